package main

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/tools/txtar"

	"github.com/overcheck/overcheck/pkg/kernel"
	"github.com/overcheck/overcheck/pkg/size"
	"github.com/overcheck/overcheck/pkg/verdict"
)

// What all machines of TestFamilies have, in pages of 4 KiB: what the rules of
// docs/model.md add up.
const (
	ram       = 3950000 / 4
	swap      = 1048576 / 4
	committed = (800000 - 10000) / 4 // Committed_AS less overcheck's own
	free      = 500000
	file      = 300000
	shm       = 20000
	slab      = 15000
	reserve   = 60 + 900 + 9000 // totalreserve: DMA's high and protection, Normal's high
	admin     = 8192 / 4
	userShare = 110000 / 32 // of the process's total_vm; less than user_reserve_kbytes
)

// TestFamilies judges machines of the families that cannot be booted, written by
// hand in the formats of their time, from the command line on: each mode's
// boundary is the one computed here by hand, for a process with CAP_SYS_ADMIN and
// for one without.
func TestFamilies(t *testing.T) {
	const (
		limit = ram/2 + swap
		// F0's two stages, each less a 32nd without CAP_SYS_ADMIN.
		first, second = file + swap + slab, free - reserve
		// The sum of F1 to F4.
		sum = free + file - shm + swap + slab - reserve
	)
	// mode0 is the largest mapping that is admitted, mode2 the charge that is just
	// too large.
	type boundaries struct{ mode0, mode2 int64 }
	for name, want := range map[string]struct{ privileged, other boundaries }{
		"by-hand-f0-2.6.32-5-amd64": {
			boundaries{first + second - 1, limit - userShare - committed},
			boundaries{first - first/32 + second - second/32 - 1, ram/2 - ram/2/32 + swap - userShare - committed},
		},
		"by-hand-rhel6.8-2.6.32-642.el6": {
			boundaries{first + second - 1, limit - userShare - committed},
			boundaries{first - admin + second - second/32 - 1, limit - admin - userShare - committed},
		},
		"by-hand-f1-3.2.0-4-amd64": {
			boundaries{sum - 1, limit - userShare - committed},
			boundaries{sum - sum/32 - 1, ram/2 - ram/2/32 + swap - userShare - committed},
		},
		"by-hand-f2-3.10.0-1160.el7": {
			boundaries{sum - 1, limit - userShare - committed},
			boundaries{sum - admin - 1, limit - admin - userShare - committed},
		},
		"by-hand-f3-4.19.0-27-amd64": {
			boundaries{sum - 1, limit - userShare - committed},
			boundaries{sum - admin - 1, limit - admin - userShare - committed},
		},
		"by-hand-f4-5.1.0": {
			boundaries{sum + 1000 - 1, limit - userShare - committed},
			boundaries{sum + 1000 - admin - 1, limit - admin - userShare - committed},
		},
		"by-hand-f5-5.4.0-150-generic": {
			boundaries{ram + swap, limit - userShare - committed},
			boundaries{ram + swap, limit - admin - userShare - committed},
		},
	} {
		t.Run(name, func(t *testing.T) {
			for caps, want := range map[string]boundaries{"0000003fffffffff": want.privileged, "0000000000000000": want.other} {
				dir := unpackMachine(t, name, caps)
				r := judgeBelow(t, dir)
				never := r.Admission[kernel.Never]
				got := boundaries{int64(*r.Admission[kernel.Heuristic].LargestFork / (4 * size.KiB)), int64((*never.Headroom + r.Process.Charge) / (4 * size.KiB))}
				if got != want {
					t.Errorf("CapEff %s: the boundaries are %+v, want %+v", caps, got, want)
				}
				for _, a := range r.Admission {
					if a.Outcome != kernel.Succeeds {
						t.Errorf("mode %d: 400 MiB: %s (%s)", a.Mode, a.Outcome, a.Reason)
					}
				}
				// Far beyond, in either mode, it fails.
				for _, a := range judgeBelow(t, dir, "--set", "grow=5GiB", "--set", "restart=true").Admission {
					if a.Mode != kernel.Always && a.Outcome == kernel.Succeeds {
						t.Errorf("mode %d: 5 GiB more: %s", a.Mode, a.Outcome)
					}
				}
			}
		})
	}
}

// unpackMachine lays out a machine of pkg/collect's, its process with other
// capabilities.
func unpackMachine(t *testing.T, name, caps string) (dir string) {
	t.Helper()
	archive, err := txtar.ParseFile("../../pkg/collect/testdata/" + name + ".txtar")
	if err != nil {
		t.Fatal(err)
	}
	dir = t.TempDir()
	for _, f := range archive.Files {
		path := filepath.Join(dir, f.Name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		switch f.Name {
		case "links":
			for line := range strings.Lines(string(f.Data)) {
				from, to, _ := strings.Cut(strings.TrimSpace(line), " ")
				from = filepath.Join(dir, from)
				if err := os.MkdirAll(filepath.Dir(from), 0o755); err != nil {
					t.Fatal(err)
				}
				if err := os.Symlink(to, from); err != nil {
					t.Fatal(err)
				}
			}
			continue
		case "proc/812/status":
			before, _, _ := strings.Cut(string(f.Data), "CapEff:")
			f.Data = []byte(before + "CapEff:\t" + caps + "\n")
		}
		if err := os.WriteFile(path, f.Data, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// judgeBelow runs overcheck on the machine below dir.
func judgeBelow(t *testing.T, dir string, args ...string) (r verdict.Report) {
	t.Helper()
	var out, errs bytes.Buffer
	args = append([]string{"pid", "812", "-o", "json", "--procfs", filepath.Join(dir, "proc"), "--sysfs", filepath.Join(dir, "sys")}, args...)
	code := run(args, streams{out: &out, err: &errs, getenv: os.Getenv, terminal: isTerminal, pageSize: 4096})
	if code == exitUnknown {
		t.Fatalf("%q: %s", args, errs.String())
	}
	if err := json.Unmarshal(out.Bytes(), &r); err != nil {
		t.Fatal(err)
	}
	return r
}
