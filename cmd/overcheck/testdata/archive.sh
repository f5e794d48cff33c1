# archive SUITE: a throw-away apt configuration for a suite that this machine may
# not be configured for, from the machine's own mirror. Sets dir, a new directory,
# and apt, the options for apt-get and apt-cache. To be sourced.

# mirror KIND: the address that this machine gets the KIND archive from.
mirror() {
	apt-get indextargets --format '$(CREATED_BY) $(REPO_URI) $(RELEASE)' | awk -v kind="$1" '
		$1 == "Packages" && ($3 ~ /-security$/) == (kind == "security") { print $2; exit }'
}

archive() {
	local kind=main
	case $1 in *-security) kind=security ;; esac
	dir=$(mktemp -d)
	mkdir -p "$dir"/{lists/partial,cache/archives/partial,parts}
	echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $(mirror $kind) $1 main" >"$dir/list"
	apt=(-o Dir::Etc::sourcelist="$dir/list" -o Dir::Etc::sourceparts="$dir/parts" -o Dir::State::Lists="$dir/lists"
		-o Dir::Cache="$dir/cache" -o Dir::State::status=/dev/null -o APT::Sandbox::User=root -o Acquire::Languages=none)
	apt-get "${apt[@]}" -qq update
}
