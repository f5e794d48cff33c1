#!/bin/sh
# capture.sh PID SELF: this machine as a txtar for the tests, with the process PID
# and, as what stands in for overcheck itself, the process SELF. An explicit list
# of files: never a command line or an environment.
set -eu
put() { if [ -r "$1" ] && text=$(cat "$1" 2>/dev/null); then printf -- '-- %s --\n%s\n' "${1#/}" "$text"; fi; }
echo "Captured with capture.sh on $(uname -r), $(date -u +%F)."
for f in sys/kernel/osrelease sys/kernel/version sys/kernel/threads-max sys/kernel/pid_max \
	sys/vm/overcommit_memory sys/vm/overcommit_ratio sys/vm/overcommit_kbytes sys/vm/admin_reserve_kbytes sys/vm/user_reserve_kbytes \
	meminfo vmstat zoneinfo loadavg; do put /proc/$f; done
put /sys/devices/system/cpu/online
put /sys/devices/system/cpu/present
for p in "$1" "$2"; do
	for f in stat status statm comm maps smaps limits cgroup mountinfo uid_map; do put "/proc/$p/$f"; done
	for controller in pids memory; do
		dir=/sys/fs/cgroup/$controller$(sed -n "s/^[0-9]*:$controller://p" "/proc/$p/cgroup")
		while [ "$dir" != /sys/fs/cgroup ] && [ -d "$dir" ]; do
			for f in pids.max pids.current memory.limit_in_bytes memory.usage_in_bytes memory.stat memory.use_hierarchy; do put "$dir/$f"; done
			dir=$(dirname "$dir")
		done
	done
done
# txtar has no links: one a line.
echo "-- links --"
echo "proc/self $2"
for p in "$1" "$2"; do
	for n in user pid pid_for_children cgroup; do echo "proc/$p/ns/$n $(readlink "/proc/$p/ns/$n")"; done
done
