package probe

import (
	"errors"
	"os"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/overcheck/overcheck/pkg/kernel"
	"github.com/overcheck/overcheck/pkg/size"
)

// ram is RAM plus swap of the machine that runs the test.
func ram(t *testing.T) (total size.Bytes) {
	t.Helper()
	b, err := os.ReadFile("/proc/meminfo")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(b)) {
		f := strings.Fields(line)
		if f[0] == "MemTotal:" || f[0] == "SwapTotal:" {
			n, err := strconv.ParseInt(f[1], 10, 64)
			if err != nil {
				t.Fatal(err)
			}
			total += size.Bytes(n) * size.KiB
		}
	}
	return total
}

func needMode0(t *testing.T) {
	t.Helper()
	if b, _ := os.ReadFile("/proc/sys/vm/overcommit_memory"); strings.TrimSpace(string(b)) != "0" {
		t.Skip("needs vm.overcommit_memory=0")
	}
}

func totalVM(t *testing.T) size.Bytes {
	t.Helper()
	b, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		t.Fatal(err)
	}
	first, _, _ := strings.Cut(string(b), " ")
	pages, err := strconv.ParseInt(first, 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return size.Bytes(pages) * size.Bytes(os.Getpagesize())
}

func TestAskAtTheBoundary(t *testing.T) {
	needMode0(t)
	total := ram(t)
	for _, tt := range []struct {
		name    string
		sizes   []size.Bytes
		refused int
	}{
		{"nothing", nil, -1},
		{"RAM and swap", []size.Bytes{total}, -1},
		{"a page more", []size.Bytes{total + 4096}, 0},
		{"twice, each alone", []size.Bytes{total, total}, -1},
		{"the second is too large", []size.Bytes{4096, total + 4096, 4096}, 1},
	} {
		for _, cap := range []bool{true, false} {
			if cap && os.Geteuid() != 0 {
				continue
			}
			a, err := Ask(kernel.Request{Mode: kernel.Heuristic, Sizes: tt.sizes, Cap: cap})
			if err != nil {
				t.Fatal(err)
			}
			if a.Refused != tt.refused || a.Admitted != (tt.refused < 0) {
				t.Errorf("%s: %+v, want refused at %d", tt.name, a, tt.refused)
			}
		}
	}
}

func TestNothingStaysMapped(t *testing.T) {
	needMode0(t)
	sizes := make([]size.Bytes, 100)
	for i := range sizes {
		sizes[i] = size.GiB
	}
	if _, err := Ask(kernel.Request{Mode: kernel.Heuristic, Sizes: sizes}); err != nil {
		t.Fatal(err)
	}
	before := totalVM(t)
	// Mode 2 holds all of them together.
	if _, err := Ask(kernel.Request{Mode: kernel.Never, Sizes: sizes[:10]}); err != nil {
		t.Fatal(err)
	}
	// Go's runtime may have mapped something of its own meanwhile, but not 10 GiB.
	if more := totalVM(t) - before; more.Abs() > 5*size.GiB {
		t.Errorf("total_vm grew by %s", more)
	}
}

// TestCapabilityIsOneThreads: giving it up to ask leaves the process with it.
func TestCapabilityIsOneThreads(t *testing.T) {
	read := func() string {
		b, err := os.ReadFile("/proc/self/status")
		if err != nil {
			t.Fatal(err)
		}
		_, rest, _ := strings.Cut(string(b), "CapEff:")
		line, _, _ := strings.Cut(rest, "\n")
		return line
	}
	before := read()
	if _, err := Ask(kernel.Request{Mode: kernel.Heuristic, Sizes: []size.Bytes{4096}}); err != nil {
		t.Fatal(err)
	}
	if after := read(); after != before {
		t.Errorf("CapEff was %s, is %s", before, after)
	}
}

func TestLimitsOfTheProberAreNotTheKernelsAnswer(t *testing.T) {
	var old unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_AS, &old); err != nil {
		t.Fatal(err)
	}
	limited := old
	limited.Cur = uint64(64 * size.TiB)
	if err := unix.Setrlimit(unix.RLIMIT_AS, &limited); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = unix.Setrlimit(unix.RLIMIT_AS, &old) }()
	if _, err := Ask(kernel.Request{Sizes: []size.Bytes{4096}}); !errors.Is(err, ErrCannotAsk) || !strings.Contains(err.Error(), "ulimit -v unlimited") {
		t.Errorf("with RLIMIT_AS: %v", err)
	}
}

func TestNewRule(t *testing.T) {
	needMode0(t)
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		t.Fatal(err)
	}
	h := kernel.Host{Release: unix.ByteSliceToString(u.Release[:]), PageSize: 4096, MemTotal: ram(t)}
	families, why := h.Families()
	if len(families) > 1 {
		t.Skipf("needs a kernel whose rule is known: %s", why)
	}
	got, err := NewRule(h)
	if err != nil || got != (families[0] == kernel.F5) {
		t.Errorf("%s: new rule %v, %v", h.Release, got, err)
	}
	h.Mode = kernel.Never
	if _, err := NewRule(h); !errors.Is(err, ErrCannotAsk) {
		t.Errorf("in mode 2: %v", err)
	}
	h.Mode, h.MeminfoRewritten = kernel.Heuristic, true
	if _, err := NewRule(h); !errors.Is(err, ErrCannotAsk) {
		t.Errorf("under lxcfs: %v", err)
	}
}
