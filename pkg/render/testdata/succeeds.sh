#!/bin/sh
# redis-server (pid 4127): fork succeeds now
# Nothing needs to be done.
