#!/bin/sh
# redis-server (pid 4127): fork FAILS with EAGAIN
# Remedy pids-max: raise pids.max of /system.slice/redis.service to 8.
# Risk: The limit bounds a fork bomb; what it is raised by, all services
# together may come to need.
# To undo:
#   systemctl set-property --runtime redis.service TasksMax=6
set -eu
check() { "${OVERCHECK:-overcheck}" pid 4127 >/dev/null; }
[ "$(cat /proc/4127/comm)" = redis-server ] || { echo "that process is gone: nothing is changed" >&2; exit 2; }

if check; then
	echo "fork succeeds already: nothing is changed"
	exit 0
elif [ $? -ne 1 ]; then
	echo "it could not be checked: nothing is changed" >&2
	exit 2
fi

systemctl set-property --runtime redis.service TasksMax=8

# To last over a restart: PERSIST=yes
if [ "${PERSIST:-no}" = yes ]; then
	mkdir -p "$(dirname /etc/systemd/system/redis.service.d/90-overcheck.conf)"
	cat >/etc/systemd/system/redis.service.d/90-overcheck.conf <<'END'
[Service]
TasksMax=8
END
fi

check || { echo "fork still does not succeed: see the top of this script to undo" >&2; exit 1; }
echo "fork succeeds now"
