package verdict

import (
	"strings"
	"testing"

	"github.com/overcheck/overcheck/pkg/kernel"
	"github.com/overcheck/overcheck/pkg/size"
)

// TestSurvivalVerdict: all fits, or what is expected does; it does not; or it
// depends on how much is written. Unknown is never a success, nor a failure.
func TestSurvivalVerdict(t *testing.T) {
	cgroup := func(free size.Bytes, more ...func(*kernel.MemoryCgroup)) func(*kernel.Facts) {
		return func(f *kernel.Facts) {
			g := kernel.MemoryCgroup{Path: "/a", Current: size.GiB, Max: kernel.Limit{Value: int64(size.GiB + free)}, SwapMax: &kernel.Limit{}}
			for _, change := range more {
				change(&g)
			}
			f.Process.Memory = []kernel.MemoryCgroup{g}
		}
	}
	const tables = 256 * size.KiB // of facts()
	for _, tt := range []struct {
		name      string
		changes   []func(*kernel.Facts)
		want      kernel.Outcome
		tightest  string
		breakEven float64 // -1: not known
		victim    string  // part of it
	}{
		{"all fits", nil, kernel.Succeeds, "host", 100, ""},
		{"half fits", []func(*kernel.Facts){cgroup(50*size.MiB + tables)}, kernel.Uncertain, "/a", 50, "the process itself"},
		{"nothing fits", []func(*kernel.Facts){cgroup(0)}, kernel.Fails, "/a", 0, "the process itself"},
		{"half fits, less is expected", []func(*kernel.Facts){cgroup(50*size.MiB + tables), func(f *kernel.Facts) { f.Process.CowExpected = new(50 * size.MiB) }}, kernel.Succeeds, "/a", 50, ""},
		{"half fits, a byte more is expected", []func(*kernel.Facts){cgroup(50*size.MiB + tables), func(f *kernel.Facts) { f.Process.CowExpected = new(50*size.MiB + 1) }}, kernel.Fails, "/a", 50, ""},
		{"two children", []func(*kernel.Facts){cgroup(100*size.MiB + 2*tables), func(f *kernel.Facts) { f.Process.Children = 2 }}, kernel.Uncertain, "/a", 50, ""},
		{"page cache can be reclaimed", []func(*kernel.Facts){cgroup(tables, func(g *kernel.MemoryCgroup) { g.File = 100 * size.MiB })}, kernel.Succeeds, "/a", 100, ""},
		{"what MADV_DONTFORK exempts costs nothing", []func(*kernel.Facts){cgroup(50*size.MiB + tables), func(f *kernel.Facts) { f.Process.Cow = new(50 * size.MiB) }}, kernel.Succeeds, "/a", 100, ""},
		{"nothing is shared", []func(*kernel.Facts){cgroup(0), func(f *kernel.Facts) { f.Process.Cow = new(size.Bytes) }}, kernel.Succeeds, "/a", -1, ""},
		{"the cgroups were not seen", []func(*kernel.Facts){func(f *kernel.Facts) { f.Process.MemoryUnseen = "not mounted" }}, kernel.Uncertain, "host", -1, ""},
		{"memory.oom.group", []func(*kernel.Facts){cgroup(0, func(g *kernel.MemoryCgroup) { g.OOMGroup = true })}, kernel.Fails, "/a", 0, "all of the cgroup"},
		{"vm.panic_on_oom", []func(*kernel.Facts){func(f *kernel.Facts) { f.Host.MemAvailable, f.Host.PanicOnOOM = new(size.Bytes), new(int64(1)) }}, kernel.Fails, "host", 0, "the kernel panics"},
		{"protected", []func(*kernel.Facts){cgroup(0), func(f *kernel.Facts) { f.Process.OOMScoreAdj = new(int64(-1000)) }}, kernel.Fails, "/a", 0, "another process"},
	} {
		f := facts()
		f.Process.OOMScoreAdj = new(int64)
		for _, change := range tt.changes {
			change(&f)
		}
		s := *Judge(f).Survival
		if s.Verdict != tt.want || s.Tightest != tt.tightest || (s.BreakEven == nil) != (tt.breakEven < 0) || s.BreakEven != nil && *s.BreakEven != tt.breakEven || !strings.Contains(s.Victim, tt.victim) {
			t.Errorf("%s: %s, tightest %s, break-even %v, victim %q; want %s, %s, %v, %q", tt.name, s.Verdict, s.Tightest, s.BreakEven, s.Victim, tt.want, tt.tightest, tt.breakEven, tt.victim)
		}
	}
}

// TestMemoryHighOnlySlowsDown: it is said, and kills nobody.
func TestMemoryHighOnlySlowsDown(t *testing.T) {
	f := facts()
	f.Process.Memory = []kernel.MemoryCgroup{{
		Path: "/a", Current: size.GiB, Max: kernel.Limit{Value: int64(2 * size.GiB)}, SwapMax: &kernel.Limit{}, High: &kernel.Limit{Value: int64(size.GiB + size.MiB)},
	}}
	s := *Judge(f).Survival
	if s.Verdict != kernel.Succeeds || s.Throttled == nil || s.Throttled.Effect != kernel.Throttle || s.Throttled.Available != size.MiB-f.Process.PageTables {
		t.Errorf("%s, throttled %+v", s.Verdict, s.Throttled)
	}
}

// TestChildrenKeepTheirCharge: in mode 2 a second child needs its charge as well.
func TestChildrenKeepTheirCharge(t *testing.T) {
	f := facts()
	f.Host.Mode = kernel.Never
	one := Judge(f).Admission[kernel.Never]
	f.Process.Children = 3
	three := Judge(f).Admission[kernel.Never]
	if *three.Need-*one.Need != 2*f.Process.Charge {
		t.Errorf("one child needs %s, three %s, the charge is %s", one.Need, three.Need, f.Process.Charge)
	}
	var sum size.Bytes
	for _, term := range three.Terms {
		sum += term.Bytes
	}
	if sum != *three.Need {
		t.Errorf("the terms add up to %s, needed is %s", sum, three.Need)
	}
}
