package kernel

import (
	"slices"
	"testing"

	"github.com/overcheck/overcheck/pkg/size"
)

// find returns the check with this id.
func find(t *testing.T, f Facts, id string) Check {
	t.Helper()
	checks := f.Checks()
	i := slices.IndexFunc(checks, func(c Check) bool { return c.ID == id })
	if i < 0 {
		t.Fatalf("no check %q", id)
	}
	return checks[i]
}

type checkCase struct {
	rule   string
	change func(*Facts)
	want   Outcome
	errno  Errno // "" where it does not fail, or kills
}

func runChecks(t *testing.T, id, release string, cases []checkCase) {
	t.Helper()
	for _, tt := range cases {
		c := find(t, guest(release).charged(page).with(tt.change), id)
		var errno Errno
		if c.Errno != nil {
			errno = *c.Errno
		}
		if c.Outcome != tt.want || errno != tt.errno || c.Outcome == Uncertain && c.Reason == "" {
			t.Errorf("%s: %s %s (%s), want %s %s", tt.rule, c.Outcome, errno, c.Reason, tt.want, tt.errno)
		}
	}
}

func TestNproc(t *testing.T) {
	limited := func(limit, least, most int64) func(*Facts) {
		return func(f *Facts) {
			f.Process.NprocExempt, f.Process.NprocLimit = new(bool), &Limit{Value: limit}
			f.Process.UIDTasksMin, f.Process.UIDTasksMax = &least, &most
		}
	}
	and := func(a, b func(*Facts)) func(*Facts) { return func(f *Facts) { a(f); b(f) } }
	nested := func(f *Facts) { f.Process.InitialUserNS = new(bool) }
	cases := []checkCase{
		{"the new task is counted: 9 of 10", limited(10, 9, 9), Succeeds, ""},
		{"10 of 10", limited(10, 10, 10), Fails, EAGAIN},
		{"a limit of 0 is not no limit", limited(0, 0, 0), Fails, EAGAIN},
		{"exempt", and(limited(10, 10, 10), func(f *Facts) { f.Process.NprocExempt = new(true) }), Succeeds, ""},
		{"perhaps exempt", and(limited(10, 10, 10), func(f *Facts) { f.Process.NprocExempt = nil }), Uncertain, ""},
		{"perhaps exempt, limit not reached", and(limited(10, 9, 9), func(f *Facts) { f.Process.NprocExempt = nil }), Succeeds, ""},
		{"unlimited", func(f *Facts) { f.Process.NprocExempt, f.Process.NprocLimit = new(bool), &Limit{Unlimited: true} }, Succeeds, ""},
		{"limit unreadable", func(f *Facts) { f.Process.NprocExempt = new(bool) }, Uncertain, ""},
		{"tasks not counted", and(limited(10, 9, 9), func(f *Facts) { f.Process.UIDTasksMin = nil }), Uncertain, ""},
		{"some tasks hidden", and(limited(10, 9, 9), func(f *Facts) { f.Process.UIDTasksMax = nil }), Uncertain, ""},
		{"some tasks hidden, enough seen", and(limited(10, 10, 9), func(f *Facts) { f.Process.UIDTasksMax = nil }), Fails, EAGAIN},
		{"some may be another namespace's", limited(10, 8, 10), Uncertain, ""},
	}
	runChecks(t, "rlimit-nproc", "6.1.0", cases)
	runChecks(t, "rlimit-nproc", "6.1.0", []checkCase{
		{"a nested namespace: its creator's limit cannot be read", and(limited(10, 1, 1), nested), Uncertain, ""},
		{"but its own limit may decide", and(limited(10, 10, 10), nested), Fails, EAGAIN},
	})
	runChecks(t, "rlimit-nproc", "5.10.0", []checkCase{{"before 5.14 namespaces do not enter", and(limited(10, 1, 1), nested), Succeeds, ""}})
}

func TestThreadsMaxAndPidMax(t *testing.T) {
	threads := func(n, limit, pidMax int64) func(*Facts) {
		return func(f *Facts) { f.Host.Threads, f.Host.ThreadsMax, f.Host.PidMax = &n, &limit, &pidMax }
	}
	runChecks(t, "threads-max", "6.1.0", []checkCase{
		{"one below", threads(2999, 3000, 32768), Succeeds, ""},
		{"reached; root is not exempt", threads(3000, 3000, 32768), Fails, EAGAIN},
		{"reached by overcheck's own", func(f *Facts) { threads(3002, 3000, 32768)(f); f.Host.OwnThreads = 5 }, Uncertain, ""},
		{"reached without overcheck's own", func(f *Facts) { threads(3005, 3000, 32768)(f); f.Host.OwnThreads = 5 }, Fails, EAGAIN},
		{"not read", func(f *Facts) { f.Host.ThreadsMax = nil }, Uncertain, ""},
		{"lxcfs", func(f *Facts) { f.Host.LoadavgRewritten = true }, Uncertain, ""},
	})
	runChecks(t, "pid-max", "6.18.0", []checkCase{
		{"far", threads(1000, 1<<20, 32768), Succeeds, ""},
		{"near", threads(31000, 1<<20, 32768), Uncertain, ""},
		{"reached, perhaps by another pid namespace", threads(32767, 1<<20, 32768), Uncertain, ""},
		{"not read", func(f *Facts) { f.Host.PidMax = nil }, Uncertain, ""},
	})
	runChecks(t, "pid-max", "6.13.0", []checkCase{{"reached", threads(32767, 1<<20, 32768), Fails, EAGAIN}})
	runChecks(t, "pid-max", "4.0.5", []checkCase{{"before 4.4 the errno was another", threads(32767, 1<<20, 32768), Fails, ENOMEM}})
}

func TestPidNamespaceAndDeadline(t *testing.T) {
	runChecks(t, "pid-namespace", "6.1.0", []checkCase{
		{"init alive", func(*Facts) {}, Succeeds, ""},
		{"init dead", func(f *Facts) { f.Process.PidNSInitDead = new(true) }, Fails, ENOMEM},
		{"not known", func(f *Facts) { f.Process.PidNSInitDead = nil }, Uncertain, ""},
	})
	runChecks(t, "sched-policy", "6.1.0", []checkCase{{"deadline", func(f *Facts) { f.Process.Deadline = true }, Uncertain, ""}})
}

func TestPidsCgroup(t *testing.T) {
	chain := func(unseen string, groups ...PidsCgroup) func(*Facts) {
		return func(f *Facts) { f.Process.Pids, f.Process.PidsUnseen = groups, unseen }
	}
	group := func(current, limit int64) PidsCgroup {
		return PidsCgroup{Path: "/a", Current: current, Max: Limit{Value: limit}}
	}
	free := PidsCgroup{Path: "/free", Current: 5, Max: Limit{Unlimited: true}}
	runChecks(t, "pids-cgroup", "6.1.0", []checkCase{
		{"no controller", chain(""), Succeeds, ""},
		{"unlimited", chain("", free), Succeeds, ""},
		{"one left", chain("", group(9, 10)), Succeeds, ""},
		{"full", chain("", group(10, 10)), Fails, EAGAIN},
		{"over: a limit lowered below what is there", chain("", group(12, 10)), Fails, EAGAIN},
		{"full of overcheck itself", chain("", PidsCgroup{Path: "/a", Current: 12, Own: 5, Max: Limit{Value: 10}}), Uncertain, ""},
		{"limit of 0", chain("", group(0, 0)), Fails, EAGAIN},
		{"an ancestor is full", chain("", group(1, 10), free, group(10, 10)), Fails, EAGAIN},
		{"ancestors unseen", chain("in a container", group(1, 10)), Uncertain, ""},
		{"full, whatever is unseen", chain("in a container", group(10, 10)), Fails, EAGAIN},
	})
}

func TestMemoryCgroup(t *testing.T) {
	with := func(unseen string, groups ...MemoryCgroup) func(*Facts) {
		return func(f *Facts) {
			f.Process.PageTables = 4 * size.MiB
			f.Mappings = []Mapping{{Resident: size.GiB, Flags: "rd wr ac"}}
			f.Process.Memory, f.Process.MemoryUnseen = groups, unseen
		}
	}
	group := func(free, file size.Bytes) MemoryCgroup {
		return MemoryCgroup{Path: "/a", Current: size.GiB, Max: Limit{Value: int64(size.GiB + free)}, File: file}
	}
	swappable := func(f *Facts) { with("", group(size.MiB, 0))(f); f.Host.SwapFree = size.GiB }
	runChecks(t, "memory-cgroup", "6.1.0", []checkCase{
		{"no controller", with(""), Succeeds, ""},
		{"room", with("", group(10*size.MiB, 0)), Succeeds, ""},
		{"room after reclaim", with("", group(size.MiB, 10*size.MiB)), Succeeds, ""},
		{"not even for the densest page tables: a kill, no errno", with("", group(size.MiB, 0)), Fails, ""},
		{"between the densest and what there is", with("", group(3*size.MiB, 0)), Uncertain, ""},
		{"swap may make room", swappable, Uncertain, ""},
		{"an ancestor without room", with("", group(size.GiB, 0), group(size.MiB, 0)), Fails, ""},
		{"the level with less free but more to reclaim does not hide it", with("", group(0, size.GiB), group(size.MiB, 0)), Fails, ""},
		{"ancestors unseen", with("in a container", group(size.GiB, 0)), Uncertain, ""},
	})
	wiped := func(f *Facts) { with("", group(size.MiB, 0))(f); f.Mappings[0].Flags = "rd wr wf ac" }
	rough := func(f *Facts) { with("", group(size.MiB, 0))(f); f.Process.Memory[0].Rough = true }
	kmem := func(room size.Bytes) func(*Facts) {
		return func(f *Facts) {
			with("", MemoryCgroup{Path: "/a", V1: true, Max: Limit{Unlimited: true}, KmemRoom: &room})(f)
		}
	}
	runChecks(t, "memory-cgroup", "6.1.0", []checkCase{
		{"MADV_WIPEONFORK needs no page tables", wiped, Uncertain, ""},
		{"what can be reclaimed was not read", rough, Uncertain, ""},
		{"kmem limits are not enforced any more", kmem(0), Succeeds, ""},
	})
	memsw := MemoryCgroup{V1: true, Current: size.GiB / 2, Max: Limit{Value: int64(size.GiB)}, SwapMax: &Limit{Value: int64(size.GiB)}, SwapCurrent: size.GiB / 2}
	if room, _ := memsw.Room(Host{SwapFree: 4 * size.GiB}); room != size.GiB/2 {
		t.Errorf("v1 memsw bounds RAM and swap together: %s", room)
	}
	runChecks(t, "memory-cgroup", "5.10.0", []checkCase{
		{"kmem limit: ENOMEM, not a kill", kmem(size.MiB), Fails, ENOMEM},
		{"kmem limit, in between", kmem(3 * size.MiB), Uncertain, ""},
		{"kmem limit, room", kmem(10 * size.MiB), Succeeds, ""},
	})
	runChecks(t, "memory-cgroup", "4.14.177", []checkCase{{"before 4.19: ENOMEM", with("", group(size.MiB, 0)), Fails, ENOMEM}})
	runChecks(t, "memory-cgroup", "4.4.155", []checkCase{{"before 4.9 page tables are not charged", with("", group(0, 0)), Succeeds, ""}})
}

func TestWorst(t *testing.T) {
	for _, tt := range []struct {
		os   []Outcome
		want Outcome
	}{
		{nil, Succeeds},
		{[]Outcome{Succeeds, Succeeds}, Succeeds},
		{[]Outcome{Succeeds, Uncertain}, Uncertain},
		{[]Outcome{Uncertain, Fails, Succeeds}, Fails},
	} {
		if got := Worst(tt.os...); got != tt.want {
			t.Errorf("%v: %s, want %s", tt.os, got, tt.want)
		}
	}
}
