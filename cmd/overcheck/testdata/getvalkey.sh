#!/bin/bash
# getvalkey.sh DIR: Valkey as DIR/usr/bin/valkey-server, from bookworm-backports.
# What it is linked with comes with redis-server. Fails where the mirror does not
# have that suite.
set -euo pipefail
. "$(dirname "$0")/archive.sh"
archive bookworm-backports
(cd "$dir" && apt-get "${apt[@]}" -qq download valkey-server valkey-tools)
for deb in "$dir"/*.deb; do dpkg-deb -x "$deb" "$1"; done
rm -rf "$dir"
