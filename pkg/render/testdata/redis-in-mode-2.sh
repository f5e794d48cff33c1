#!/bin/sh
# redis-server (pid 4127): fork FAILS with ENOMEM, succeeds in modes 0 and 1
# Remedy overcommit-kbytes: raise CommitLimit to 4.34 GiB by
# vm.overcommit_kbytes.
# Risk: Little: the limit stays within RAM and swap; what the kernel itself
# takes is not charged and not in it.
# To undo:
#   sysctl -w vm.overcommit_kbytes=4194304
#   rm -f /etc/sysctl.d/zz-overcheck-overcommit-kbytes.conf   # if it was made to last
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

sysctl -w vm.overcommit_kbytes=4546956

# To last over a restart: PERSIST=yes
if [ "${PERSIST:-no}" = yes ]; then
	mkdir -p "$(dirname /etc/sysctl.d/zz-overcheck-overcommit-kbytes.conf)"
	printf '%s\n' 'vm.overcommit_kbytes = 4546956' >/etc/sysctl.d/zz-overcheck-overcommit-kbytes.conf
fi

check || { echo "fork still does not succeed: see the top of this script to undo" >&2; exit 1; }
echo "fork succeeds now"
