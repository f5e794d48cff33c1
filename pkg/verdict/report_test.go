package verdict

import (
	"encoding/json"
	"testing"

	"github.com/overcheck/overcheck/pkg/kernel"
	"github.com/overcheck/overcheck/pkg/size"
)

// facts is a process of 100 MiB on a host of 4 GiB, nothing in its way.
func facts() kernel.Facts {
	const charge = 100 * size.MiB
	return kernel.Facts{
		Host: kernel.Host{
			Release: "6.1.0-13-amd64", Version: "#1 SMP", PageSize: 4 * size.KiB, CPUsOnline: 2, CPUsPresent: 2,
			OvercommitRatio: 50, MemTotal: 4 * size.GiB, MemFree: 2 * size.GiB, MemAvailable: new(3 * size.GiB),
			CommitLimit: 2 * size.GiB, CommittedAS: size.GiB,
			AdminReserve: new(8 * size.MiB), UserReserve: new(128 * size.MiB),
			Threads: new(int64(100)), ThreadsMax: new(int64(1000)), PidMax: new(int64(32768)),
		},
		Process: kernel.Process{
			PID: 7, Comm: "redis-server", Source: kernel.FromSmaps,
			Charge: charge, ChargeMin: charge, ChargeMax: charge, Largest: charge, LargestMin: charge, LargestMax: charge,
			Charged: 1, MappingCount: 30, Noreserve: new(size.Bytes), Dontfork: new(size.Bytes), TotalVM: 200 * size.MiB,
			RSS: 110 * size.MiB, RSSAnon: new(100 * size.MiB), PageTables: 256 * size.KiB,
			CapSysAdmin: new(true), NprocExempt: new(true), InitialUserNS: new(true), PidNSInitDead: new(bool),
		},
		Mappings: []kernel.Mapping{{Start: 0x7f0000000000, End: 0x7f0000000000 + kernel.Address(charge), Resident: charge, Flags: "rd wr ac"}},
	}
}

func TestVerdictTakesTheFirstErrnoInTheKernelsOrder(t *testing.T) {
	threads := func(f *kernel.Facts) { f.Host.Threads = f.Host.ThreadsMax }
	commit := func(f *kernel.Facts) { f.Host.Mode, f.Host.CommitLimit = kernel.Never, size.MiB }
	pids := func(f *kernel.Facts) { f.Process.Pids = []kernel.PidsCgroup{{Path: "/a", Current: 5}} }
	doubt := func(f *kernel.Facts) { f.Process.PidNSInitDead = nil }
	memory := func(f *kernel.Facts) {
		f.Process.Memory = []kernel.MemoryCgroup{{Path: "/a", Current: size.GiB, Max: kernel.Limit{Value: int64(size.GiB)}}}
	}
	for _, tt := range []struct {
		name    string
		changes []func(*kernel.Facts)
		want    kernel.Outcome
		errno   kernel.Errno
	}{
		{"nothing", nil, kernel.Succeeds, ""},
		{"threads-max before commit", []func(*kernel.Facts){threads, commit, pids}, kernel.Fails, kernel.EAGAIN},
		{"commit before pids", []func(*kernel.Facts){commit, pids}, kernel.Fails, kernel.ENOMEM},
		{"pids", []func(*kernel.Facts){pids}, kernel.Fails, kernel.EAGAIN},
		{"a doubt does not hide a failure", []func(*kernel.Facts){doubt, pids}, kernel.Fails, kernel.EAGAIN},
		{"a doubt does not pass for a success", []func(*kernel.Facts){doubt}, kernel.Uncertain, ""},
		{"a kill has no errno", []func(*kernel.Facts){memory}, kernel.Fails, ""},
	} {
		f := facts()
		for _, change := range tt.changes {
			change(&f)
		}
		r := Judge(f)
		var errno kernel.Errno
		if r.Errno != nil {
			errno = *r.Errno
		}
		if r.Verdict != tt.want || errno != tt.errno {
			t.Errorf("%s: %s %s, want %s %s", tt.name, r.Verdict, errno, tt.want, tt.errno)
		}
	}
}

func TestAnotherModesFailureIsNotTheVerdict(t *testing.T) {
	f := facts()
	f.Host.CommitLimit = size.MiB
	if r := Judge(f); r.Verdict != kernel.Succeeds || r.Admission[kernel.Never].Outcome != kernel.Fails {
		t.Errorf("%s, mode 2 %s", r.Verdict, r.Admission[kernel.Never].Outcome)
	}
}

// TestContract: the keys that other programs lean on, by their path.
func TestContract(t *testing.T) {
	b, err := json.Marshal(Judge(facts()))
	if err != nil {
		t.Fatal(err)
	}
	var report map[string]any
	if err := json.Unmarshal(b, &report); err != nil {
		t.Fatal(err)
	}
	want := func(where string, object any, keys ...string) map[string]any {
		t.Helper()
		m, ok := object.(map[string]any)
		if !ok {
			t.Fatalf("%s is %T", where, object)
		}
		for _, k := range keys {
			if _, ok := m[k]; !ok {
				t.Errorf("%s has no %q", where, k)
			}
		}
		return m
	}
	want("report", report, "schema", "host", "process", "admission", "checks", "verdict", "survival", "findings", "remedies")
	want("host", report["host"], "kernel", "mode", "mode_name", "mem_total_bytes", "swap_total_bytes", "commit_limit_bytes", "committed_as_bytes")
	want("process", report["process"], "pid", "comm", "charge_bytes", "charge_min_bytes", "charge_max_bytes", "charged_mappings",
		"largest_mapping_bytes", "noreserve_bytes", "cap_sys_admin", "mappings_source")
	admission := want("admission", report["admission"].([]any)[2], "mode", "mode_name", "current", "verdict", "errno", "rule", "need_bytes", "limit_bytes",
		"headroom_bytes", "uncertainty_bytes", "terms", "blocking_mapping", "largest_fork_bytes", "verdict_after_restart")
	want("terms", admission["terms"].([]any)[0], "name", "bytes")
	want("checks", report["checks"].([]any)[0], "id", "verdict", "errno", "used", "limit", "where")
	want("survival", report["survival"], "cow_worst_bytes", "available_bytes", "tightest", "break_even_percent", "page_table_bytes", "pause_estimate_ms")
	if report["schema"] != "overcheck.v1" || report["verdict"] != "succeeds" {
		t.Errorf("schema %v, verdict %v", report["schema"], report["verdict"])
	}
	shell := facts()
	shell.Process.Source = kernel.Assumed
	b, _ = json.Marshal(Judge(shell))
	report = nil
	if err := json.Unmarshal(b, &report); err != nil {
		t.Fatal(err)
	}
	if _, there := report["process"]; there {
		t.Error("a report on the host alone names a process")
	}
}

func TestWorthSmaps(t *testing.T) {
	bounds := func(rss, charge size.Bytes) kernel.Facts {
		f := facts()
		p := &f.Process
		p.Source, p.RSS, p.Charge, p.ChargeMin, p.ChargeMax = kernel.FromMaps, rss, charge, 0, charge
		p.Largest, p.LargestMin, p.LargestMax, p.Noreserve = charge, 0, charge, nil
		f.Mappings = nil
		return f
	}
	inMode2 := bounds(50*size.GiB, 3*size.GiB)
	inMode2.Host.Mode = kernel.Never
	for _, tt := range []struct {
		name string
		f    kernel.Facts
		want bool
	}{
		{"the bounds decide every mode", bounds(3*size.GiB, 500*size.MiB), false},
		{"mode 2 is open, and it costs little", bounds(4*size.GiB, 3*size.GiB), true},
		{"mode 2 is open, but not in force, and it costs much", bounds(4*size.GiB+1, 3*size.GiB), false},
		{"the mode in force is open", bounds(50*size.GiB, 5*size.GiB), true},
		{"mode 2 is in force, and open", inMode2, true},
	} {
		if got := WorthSmaps(tt.f); got != tt.want {
			t.Errorf("%s: %v, want %v", tt.name, got, tt.want)
		}
	}
	if p := (kernel.Process{RSS: size.GiB}); !SmapsIsCheap(p) {
		t.Error("1 GiB is not cheap")
	}
	if p := (kernel.Process{RSS: size.GiB + 1}); SmapsIsCheap(p) {
		t.Error("more than 1 GiB is cheap")
	}
}

func TestSurvival(t *testing.T) {
	for _, tt := range []struct {
		name      string
		change    func(*kernel.Facts)
		breakEven float64 // -1: nil
		tightest  string
	}{
		{"all of it fits", func(*kernel.Facts) {}, 100, "host"},
		{"half of it, page tables taken off", func(f *kernel.Facts) { f.Host.MemAvailable = new(50*size.MiB + 256*size.KiB) }, 50, "host"},
		{"swap counts", func(f *kernel.Facts) { f.Host.MemAvailable, f.Host.SwapFree = new(256*size.KiB), 25*size.MiB }, 25, "host"},
		{"what is swapped out is copied too", func(f *kernel.Facts) {
			f.Process.Swap, f.Host.MemAvailable = 100*size.MiB, new(100*size.MiB+256*size.KiB)
		}, 50, "host"},
		{"nothing left", func(f *kernel.Facts) { f.Host.MemAvailable = new(size.Bytes) }, 0, "host"},
		{"the cgroup is tighter", func(f *kernel.Facts) {
			f.Process.Memory = []kernel.MemoryCgroup{{Path: "/a", Current: size.GiB, Max: kernel.Limit{Value: int64(size.GiB + 20*size.MiB + 256*size.KiB)}, File: 5 * size.MiB}}
		}, 25, "/a"},
		{"an unlimited cgroup is not one of zero", func(f *kernel.Facts) {
			f.Process.Memory = []kernel.MemoryCgroup{{Path: "/a", Max: kernel.Limit{Unlimited: true}}}
		}, 100, "host"},
		{"nothing to copy", func(f *kernel.Facts) { f.Process.RSSAnon = new(size.Bytes) }, -1, "host"},
		{"cgroups unseen", func(f *kernel.Facts) { f.Process.MemoryUnseen = "in a container" }, -1, "host"},
		{"no MemAvailable", func(f *kernel.Facts) { f.Host.MemAvailable = nil }, -1, "host"},
	} {
		f := facts()
		tt.change(&f)
		s := *Judge(f).Survival
		got := -1.0
		if s.BreakEven != nil {
			got = *s.BreakEven
		}
		if got != tt.breakEven || s.Tightest != tt.tightest {
			t.Errorf("%s: %v%% of %s against %s (%s), want %v%%", tt.name, got, s.CowWorst, s.Available, s.Tightest, tt.breakEven)
		}
	}
}
