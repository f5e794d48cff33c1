#!/bin/sh
# \x1b[31mredis\u202e\n\a (pid 4127): fork FAILS with ENOMEM, succeeds in mode 1
# Remedy add-swap: add 59.60 GiB of swap.
# Risk: What is swapped out is slow to come back; the file needs a file system
# that allows swap, and room on it.
# To undo:
#   swapoff /var/swap-overcheck
#   rm /var/swap-overcheck
#   sed -i '\|^/var/swap-overcheck |d' /etc/fstab   # if it was made to last
set -eu
check() { "${OVERCHECK:-overcheck}" pid 4127 >/dev/null; }

if check; then
	echo "fork succeeds already: nothing is changed"
	exit 0
elif [ $? -ne 1 ]; then
	echo "it could not be checked: nothing is changed" >&2
	exit 2
fi

dd if=/dev/zero of=/var/swap-overcheck bs=1M count=61031 conv=excl status=none
chmod 600 /var/swap-overcheck
mkswap /var/swap-overcheck
swapon /var/swap-overcheck

# To last over a restart: PERSIST=yes
if [ "${PERSIST:-no}" = yes ]; then
	mkdir -p "$(dirname /etc/fstab)"
	printf '%s\n' '/var/swap-overcheck none swap sw 0 0' >>/etc/fstab
fi

check || { echo "fork still does not succeed: see the top of this script to undo" >&2; exit 1; }
echo "fork succeeds now"
