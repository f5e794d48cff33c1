# make run    build, then look at this host and at a process started for the purpose
# make test   everything that needs no root; OVERCHECK_ORACLE=1 as root adds real forks
export CGO_ENABLED ?= $(if $(RACE),1,0)
RACE := $(if $(shell command -v gcc),-race)
LINT := github.com/golangci/golangci-lint/v2/cmd/golangci-lint@v2.15.0

.PHONY: build run test test-kernels bench lint clean

build:
	CGO_ENABLED=0 go build -trimpath -ldflags='-s -w' -o overcheck ./cmd/overcheck

run: build
	@echo '$$ overcheck explain'; ./overcheck explain || test $$? = 1
	@d=$$(mktemp -d) && trap 'rm -r "$$d"' EXIT && \
	CGO_ENABLED=0 go build -o $$d/victim ./cmd/overcheck/testdata/victim && mkfifo $$d/in $$d/out && \
	{ $$d/victim anon=1073741824 noreserve=2147483648 dontfork=268435456 <$$d/in >$$d/out & } && pid=$$! && \
	exec 3>$$d/in 4<$$d/out && read -r ready <&4 && \
	echo && echo "$$ overcheck pid $$pid   (1 GiB charged, 2 GiB MAP_NORESERVE, 256 MiB MADV_DONTFORK)" && \
	{ ./overcheck pid $$pid || test $$? = 1; } && exec 3>&- && wait $$pid

test:
	go vet ./...
	go test $(RACE) -count=1 $(TESTFLAGS) ./...

# Boots Debian's kernels under QEMU (apt-get install qemu-system-x86), as root or not.
test-kernels:
	cmd/overcheck/testdata/getkernels.sh all .kernels
	OVERCHECK_KERNELS="$$(echo .kernels/vmlinuz-* | sed "s|[^ ]*|$(CURDIR)/&|g")" OVERCHECK_KERNELS_FULL=1 OVERCHECK_ACCURACY=$(CURDIR)/docs/accuracy.md \
		go test -count=1 -timeout 2h -v -run '^TestKernels$$' ./cmd/overcheck

bench:
	go test -run '^$$' -bench . -benchtime 10x ./...

lint:
	go run $(LINT) run

clean:
	rm -f overcheck
