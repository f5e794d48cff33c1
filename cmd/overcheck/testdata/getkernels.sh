#!/bin/bash
# getkernels.sh short|all DIR: Debian's own kernels as DIR/vmlinuz-RELEASE, those
# that are there already left alone. short: one old, one new. They come from the
# machine's own mirror, through a throw-away apt configuration. A suite that the
# mirror refuses is left out, loudly; the configured one is a must.
set -euo pipefail
which=$1 out=$2
mkdir -p "$out"

. "$(dirname "$0")/archive.sh"

get() {
	local suite=$1 re=$2 dir apt pkg
	archive "$suite" &&
		pkg=$(apt-cache "${apt[@]}" search --names-only "$re" | awk '{print $1}' | grep -E "$re" | sort -V | tail -1) && [ -n "$pkg" ] || return 1
	local release=${pkg#linux-image-}
	if [ ! -e "$out/vmlinuz-$release" ]; then
		# From 7.1 or so the image is in linux-binary-*; linux-image-* is empty.
		apt-cache "${apt[@]}" show "linux-binary-$release" >/dev/null 2>&1 && pkg=linux-binary-$release
		(cd "$dir" && apt-get "${apt[@]}" -qq download "$pkg") && dpkg-deb -x "$dir"/*.deb "$dir/x" || return 1
		cp "$(find "$dir/x" -name 'vmlinuz*' | head -1)" "$out/vmlinuz-$release"
	fi
	rm -rf "$dir"
	echo "$out/vmlinuz-$release"
}

optional() { get "$@" || echo "getkernels.sh: NO KERNEL from $1: the mirror does not have it" >&2; }

get bookworm-security '^linux-image-6\.1\.0-[0-9]+-cloud-amd64$'
optional trixie-backports '^linux-image-7\.[0-9.]+\+deb13-cloud-amd64$'
if [ "$which" = all ]; then
	optional bullseye-security '^linux-image-5\.10\.0-[0-9]+-cloud-amd64$'
	optional trixie-security '^linux-image-6\.12\.[0-9.]+\+deb13(\.1)?-cloud-amd64$'
fi
