package kernel

import (
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/overcheck/overcheck/pkg/size"
)

const page = 4 * size.KiB

// guest is a machine of one CPU and 512 MiB as Linux 6.1 booted on it: MemTotal
// 480284 kB, CommitLimit 240140 kB, Committed_AS 42456 kB, and the reserves that
// it chose. Its counter is exact, so that every boundary is sharp.
func guest(release string) Facts {
	return Facts{
		Host: Host{
			Release: release, Version: "#1 PREEMPT", PageSize: page, CPUsOnline: 1, CPUsPresent: 1,
			OvercommitRatio: 50, OvercommitKbytes: new(size.Bytes),
			AdminReserve: new(8192 * size.KiB), UserReserve: new(14519 * size.KiB),
			MemTotal: 480284 * size.KiB, MemFree: 400 * size.MiB, CommitLimit: 240140 * size.KiB, CommittedAS: 42456 * size.KiB,
			Threads: new(int64(60)), ThreadsMax: new(int64(3000)), PidMax: new(int64(32768)),
		},
		Process: Process{
			PID: 7, Comm: "victim", Source: FromSmaps, TotalVM: size.GiB, CapSysAdmin: new(true), NprocExempt: new(true),
			InitialUserNS: new(true), PidNSInitDead: new(bool), Noreserve: new(size.Bytes), Dontfork: new(size.Bytes),
		},
	}
}

// charged gives the process mappings of these sizes, in address order.
func (f Facts) charged(sizes ...size.Bytes) Facts {
	p := &f.Process
	at := Address(0x7f0000000000)
	f.Mappings = nil
	p.Charge, p.Largest, p.Charged = 0, 0, len(sizes)
	for _, b := range sizes {
		f.Mappings = append(f.Mappings, Mapping{Start: at, End: at + Address(b), Flags: "rd wr ac"})
		at += Address(b) + 0x1000
		p.Charge += b
		p.Largest = max(p.Largest, b)
	}
	p.ChargeMin, p.ChargeMax, p.LargestMin, p.LargestMax = p.Charge, p.Charge, p.Largest, p.Largest
	return f
}

// with changes a copy.
func (f Facts) with(change func(*Facts)) Facts {
	change(&f)
	return f
}

func nobody(f *Facts) { f.Process.CapSysAdmin = new(bool) }

func TestMode2Boundaries(t *testing.T) {
	g := guest("6.1.0-13-amd64")
	// CommitLimit less user_reserve (3629 whole pages) less Committed_AS is 183168
	// kB; the kernel wants strictly less.
	const root, admin = 183164 * size.KiB, 8192 * size.KiB
	for _, tt := range []struct {
		rule   string
		facts  Facts
		passes size.Bytes
	}{
		{"root, as measured: 178 MiB yes, 179 no", g, root},
		{"admin_reserve without CAP_SYS_ADMIN, as measured: 170 MiB yes, 171 no", g.with(nobody), root - admin},
		{"total_vm/32 below user_reserve: 3200 kB", g.with(func(f *Facts) { f.Process.TotalVM = 32 * 3200 * size.KiB }), (240140 - 3200 - 42456 - 4) * size.KiB},
		{"total_vm/32 is floored", g.with(func(f *Facts) { f.Process.TotalVM = 63 * page }), (240140 - 4 - 42456 - 4) * size.KiB},
		{"user_reserve 0", g.with(func(f *Facts) { f.Host.UserReserve = new(size.Bytes) }), (240140 - 42456 - 4) * size.KiB},
		{"own charge is not there when the fork happens", g.with(func(f *Facts) { f.Host.OwnCharge = 40 * size.MiB }), root + 40*size.MiB},
		{"before 3.10: total_vm/32 without cap, root", guest("3.9.6").with(func(f *Facts) { f.Host.UserReserve = nil }), (240140 - 32768 - 42456 - 4) * size.KiB},
		{"before 3.10: 1/32 of the RAM part, others", guest("3.2.0-4-amd64").with(nobody).with(func(f *Facts) {
			f.Host.UserReserve = nil
			f.Host.SwapTotal = 100 * size.MiB // in the limit, not in the 32nd
		}), (240140 - 32768 - 4304 - 42456 - 4) * size.KiB},
		{"RHEL 6.6: 1/32 of the limit with swap", guest("2.6.32-504.el6.x86_64").with(nobody).with(func(f *Facts) {
			f.Host.AdminReserve, f.Host.UserReserve = nil, nil
			f.Host.SwapTotal = 100 * size.MiB
		}), (240140 - 32768 - 7504 - 42456 - 4) * size.KiB},
		{"RHEL 6.8: admin_reserve", guest("2.6.32-642.el6.x86_64").with(nobody).with(func(f *Facts) {
			f.Host.UserReserve = nil
		}), (240140 - 32768 - 8192 - 42456 - 4) * size.KiB},
	} {
		for _, extra := range []size.Bytes{0, page} {
			a := tt.facts.charged(tt.passes + extra).Admit(Never)
			want := Succeeds
			if extra > 0 {
				want = Fails
			}
			if a.Outcome != want {
				t.Errorf("%s: %s%+d: %s, want %s; headroom %s", tt.rule, tt.passes, extra, a.Outcome, want, a.Headroom)
			}
			if got := sum(a.Terms); got != *a.Need || *a.Headroom != *a.Limit-*a.Need || sum(a.LimitTerms) != *a.Limit {
				t.Errorf("%s: the terms do not add up: %+v", tt.rule, a)
			}
		}
	}
}

func TestMode2EdgeCases(t *testing.T) {
	over := guest("6.1.0-13-amd64").with(func(f *Facts) { f.Host.CommittedAS = size.GiB })
	if a := over.charged().Admit(Never); a.Outcome != Succeeds {
		t.Errorf("no charge: the check is never made: %s", a.Outcome)
	}
	if a := over.charged(page).Admit(Never); a.Outcome != Fails || *a.Errno != ENOMEM {
		t.Errorf("a page beyond the limit: %s, %v", a.Outcome, a.Errno)
	}
	negative := func(release string) Outcome {
		f := guest(release).with(nobody)
		f.Host.AdminReserve = new(size.GiB)
		f.Process.TotalVM = 64 * size.GiB // before 3.10 a 32nd of it is kept
		return f.charged(page).Admit(Never).Outcome
	}
	for release, want := range map[string]Outcome{
		"4.0.5": Fails, "3.18.30": Fails, "3.10.99": Fails, "3.4.113": Fails,
		"3.11.10": Succeeds, "3.13.0-24-generic": Uncertain, "3.13.1": Succeeds, "3.15.5": Succeeds, "3.9.6": Succeeds,
		"3.16.7": Uncertain, "3.10.0-1160.el7.x86_64": Uncertain,
	} {
		if got := negative(release); got != want {
			t.Errorf("%s, reserves above the limit: %s, want %s", release, got, want)
		}
	}
}

func TestMode2NamesTheMappingWhereTheSumCrosses(t *testing.T) {
	f := guest("6.1.0-13-amd64").charged(100*size.MiB, 78*size.MiB, size.MiB, 132*size.KiB)
	a := f.Admit(Never)
	if a.Outcome != Fails || a.Blocking == nil || a.Blocking.Mapping != f.Mappings[2] {
		t.Errorf("%s at %+v, want the third mapping", a.Outcome, a.Blocking)
	}
}

func TestMode0SinceLinux52(t *testing.T) {
	g := guest("6.1.0-13-amd64")
	total := g.Host.MemTotal
	for _, tt := range []struct {
		rule  string
		facts Facts
		want  Outcome
	}{
		{"as measured: 469 MiB forks", g.charged(469 * size.MiB), Succeeds},
		{"as measured: 470 MiB does not", g.charged(470 * size.MiB), Fails},
		{"exactly RAM", g.charged(total), Succeeds},
		{"a page more", g.charged(total + page), Fails},
		{"swap counts", g.with(func(f *Facts) { f.Host.SwapTotal = page }).charged(total + page), Succeeds},
		{"each mapping alone", g.charged(total, total, total), Succeeds},
		{"nothing is kept from others", g.with(nobody).charged(total), Succeeds},
		{"free memory does not enter", g.with(func(f *Facts) { f.Host.MemFree = 0 }).charged(total), Succeeds},
		{"lxcfs shows less than the host has", g.with(func(f *Facts) { f.Host.MeminfoRewritten = true }).charged(total), Succeeds},
		{"and the host may have more", g.with(func(f *Facts) { f.Host.MeminfoRewritten = true }).charged(total + page), Uncertain},
	} {
		if a := tt.facts.Admit(Heuristic); a.Outcome != tt.want || a.Outcome == Uncertain && a.Reason == "" {
			t.Errorf("%s: %s (%s), want %s", tt.rule, a.Outcome, a.Reason, tt.want)
		}
	}
	f := g.charged(page, total+page, total+2*page)
	if a := f.Admit(Heuristic); a.Blocking == nil || a.Blocking.Mapping != f.Mappings[1] {
		t.Errorf("blocking mapping %+v, want the second", a.Blocking)
	}
}

// old gives the guest what the rule of before 5.2 reads: 4.15.18 booted with
// MemFree 497840 kB, SReclaimable 292 kB and totalreserve_pages 1062.
func old(f *Facts) {
	f.Host.Old = &OldInputs{FreePages: 497840 / 4, SlabReclaimable: 292 / 4, TotalReserve: 1062}
}

func TestMode0BeforeLinux52(t *testing.T) {
	limit := func(f Facts) size.Bytes { return *f.charged(page).Admit(Heuristic).Limit / size.KiB }
	plenty := func(f *Facts) {
		f.Host.Old = &OldInputs{FreePages: 64000, FilePages: 32000, Shmem: 3200, SlabReclaimable: 6400, KernelMiscReclaimable: new(int64(320)), TotalReserve: 1600}
		f.Host.SwapFree = 3200 * page
	}
	for _, tt := range []struct {
		rule string
		f    Facts
		want size.Bytes // kB
	}{
		{"4.15.18, as measured: 482 MiB yes, 483 no", guest("4.15.18").with(old), 493884},
		{"F2 counts free, file less shared, swap, slab, less the watermarks", guest("4.4.155").with(plenty), 100800 * 4},
		{"F2 keeps admin_reserve from others", guest("4.4.155").with(plenty).with(nobody), 100800*4 - 8192},
		{"F1 keeps 1/32", guest("3.8.13").with(plenty).with(nobody), (100800 - 3150) * 4},
		{"F4 counts what the kernel can reclaim elsewhere", guest("5.0.1").with(plenty), 101120 * 4},
		{"F0 counts shared memory", guest("3.0.1").with(plenty), (41600 + 62400) * 4},
		{"F0 keeps 1/32 of each stage", guest("3.0.1").with(plenty).with(nobody), (41600 - 1300 + 62400 - 1950) * 4},
		{"RHEL 6.8 keeps admin_reserve, then 1/32", guest("2.6.32-642.el6.x86_64").with(plenty).with(nobody), (41600 - 2048 + 62400 - 1950) * 4},
		{"F0 with little free has its first stage only", guest("3.0.1").with(plenty).with(func(f *Facts) { f.Host.Old.FreePages = 1600 }), 41600 * 4},
	} {
		if got := limit(tt.f); got != tt.want {
			t.Errorf("%s: limit %d kB, want %d kB", tt.rule, got, tt.want)
		}
	}
	f := guest("4.15.18").with(old)
	for mib, want := range map[size.Bytes]Outcome{460: Succeeds, 482: Uncertain, 483: Uncertain, 500: Fails} {
		if a := f.charged(mib * size.MiB).Admit(Heuristic); a.Outcome != want {
			t.Errorf("%d MiB: %s, want %s (counters move by %s)", mib, a.Outcome, want, a.Uncertainty)
		}
	}
	hidden := guest("4.19.222").with(old).with(func(f *Facts) { f.Host.Old.SlabUnreclaimable = 25600 })
	if a := hidden.charged(550 * size.MiB).Admit(Heuristic); a.Outcome != Uncertain || !strings.Contains(a.Reason, "reclaimable that /proc does not show") {
		t.Errorf("within what 4.19 hides: %s (%s)", a.Outcome, a.Reason)
	}
	if a := hidden.charged(700 * size.MiB).Admit(Heuristic); a.Outcome != Fails {
		t.Errorf("beyond what 4.19 hides: %s", a.Outcome)
	}
	if a := guest("4.4.155").charged(page).Admit(Heuristic); a.Outcome != Uncertain {
		t.Errorf("inputs not read: %s", a.Outcome)
	}
	if a := guest("4.4.155").charged().Admit(Heuristic); a.Outcome != Succeeds {
		t.Errorf("nothing charged: %s", a.Outcome)
	}
}

func TestUnknownRuleIsUncertainOnlyWhereItMatters(t *testing.T) {
	f := guest("4.18.0-193.el8.x86_64").with(old)
	for mib, want := range map[size.Bytes]Outcome{300: Succeeds, 480: Fails} {
		f.Host.Old.FreePages = 256 * 350 // old rule: about 346 MiB
		if a := f.charged(mib * size.MiB).Admit(Heuristic); a.Outcome != want {
			t.Errorf("%d MiB: %s (%s), want %s", mib, a.Outcome, a.Reason, want)
		}
	}
	a := f.charged(400 * size.MiB).Admit(Heuristic)
	if a.Outcome != Uncertain || !strings.Contains(a.Reason, "RHEL 8.2") {
		t.Errorf("400 MiB: %s (%s), want uncertain, and why", a.Outcome, a.Reason)
	}
}

func TestCapUnknownJudgesBoth(t *testing.T) {
	f := guest("6.1.0-13-amd64").with(func(f *Facts) { f.Process.CapSysAdmin = nil })
	selinux := guest("6.1.0-13-amd64").with(func(f *Facts) { f.Host.SELinuxEnforcing = true })
	for mib, want := range map[size.Bytes]Outcome{170: Succeeds, 171: Uncertain, 178: Uncertain, 179: Fails} {
		for name, f := range map[string]Facts{"unknown": f, "SELinux": selinux} {
			if a := f.charged(mib * size.MiB).Admit(Never); a.Outcome != want {
				t.Errorf("%s, %d MiB: %s, want %s", name, mib, a.Outcome, want)
			}
		}
	}
}

func TestBoundsDecideOnlyWhatTheyCan(t *testing.T) {
	bounded := func(f *Facts) {
		p := &f.Process
		p.Source, p.ChargeMin, p.LargestMin, p.Noreserve = FromMaps, 0, 0, nil
	}
	g := guest("6.1.0-13-amd64")
	for mib, want := range map[size.Bytes]Outcome{178: Succeeds, 179: Uncertain, 4000: Uncertain} {
		if a := g.charged(mib * size.MiB).with(bounded).Admit(Never); a.Outcome != want {
			t.Errorf("up to %d MiB in mode 2: %s, want %s", mib, a.Outcome, want)
		}
	}
	for mib, want := range map[size.Bytes]Outcome{469: Succeeds, 470: Uncertain} {
		if a := g.charged(mib * size.MiB).with(bounded).Admit(Heuristic); a.Outcome != want {
			t.Errorf("up to %d MiB in mode 0: %s, want %s", mib, a.Outcome, want)
		}
	}
}

func TestCounterUncertainty(t *testing.T) {
	h := Host{PageSize: page, Version: "#1 SMP", MemTotal: size.GiB, CPUsOnline: 4, CPUsPresent: 4}
	for _, tt := range []struct {
		rule string
		h    Host
		want int64 // pages
	}{
		{"5.9 on: a residue a CPU", h.on("6.1.176"), 4 * (262144/4/256 - 1)},
		{"to 5.8: from one end to the other", h.on("4.19.222"), 2 * 4 * (262144/4/256 - 1)},
		{"to 3.10: twice the online CPUs, 32 at least", h.on("3.10.0-1160.el7"), 2 * 4 * 31},
		{"2.6.32", h.on("2.6.32-642.el6"), 2 * 4 * 31},
		{"little RAM: twice the present CPUs, 32 at least", func() Host { h := h.on("6.1.0"); h.MemTotal = 8 * size.MiB; return h }(), 4 * 31},
		{"one kernel image for one CPU", func() Host { h := h.on("6.1.0"); h.Version = "#1 PREEMPT"; return h }(), 0},
		{"ballooned: by what the host had at boot", func() Host { h := h.on("6.1.0"); h.PresentRAM = 2 * size.GiB; return h }(), 4 * 511},
	} {
		if got := tt.h.pages(tt.h.CounterUncertainty()); got != tt.want {
			t.Errorf("%s: %d pages, want %d", tt.rule, got, tt.want)
		}
	}
}

func (h Host) on(release string) Host {
	h.Release = release
	return h
}

func TestPagesOf64KiB(t *testing.T) {
	f := guest("5.14.0-427.el9.aarch64")
	f.Host.PageSize = 64 * size.KiB
	f.Host.UserReserve = new(14500 * size.KiB) // 226.6 pages: floored
	f.Process.TotalVM = size.TiB
	limit := (240140/64 - 226) * 64 * size.KiB // pages of the limit, less pages of the reserve
	f.Host.CommittedAS = 64 * size.KiB
	for extra, want := range map[size.Bytes]Outcome{-2: Succeeds, -1: Fails} {
		if a := f.charged(limit + extra*64*size.KiB).Admit(Never); a.Outcome != want {
			t.Errorf("%d pages under: %s, want %s", -extra, a.Outcome, want)
		}
	}
}

func TestAfterRestart(t *testing.T) {
	jemalloc := guest("6.1.0-13-amd64").charged(10 * size.MiB)
	jemalloc.Process.Noreserve = new(100 * size.MiB)
	a := jemalloc.Admit(Never)
	if a.Outcome != Succeeds || *a.AfterRestart != Fails || *a.NeedAfterRestart != *a.Need+200*size.MiB {
		t.Errorf("mapped in mode 0, judged in mode 2: %s, after restart %s", a.Outcome, *a.AfterRestart)
	}
	born2 := guest("6.1.0-13-amd64").charged(470 * size.MiB)
	born2.Process.MappedIn = Never
	if a := born2.Admit(Heuristic); a.Outcome != Fails || *a.AfterRestart != Uncertain {
		t.Errorf("mapped in mode 2, judged in mode 0: %s, after restart %s", a.Outcome, *a.AfterRestart)
	}
	if a := born2.Admit(Never); *a.AfterRestart != a.Outcome {
		t.Errorf("mapped in mode 2, judged in mode 2: %s, after restart %s", a.Outcome, *a.AfterRestart)
	}
	jemalloc.Process.Restart = true
	if a := jemalloc.Admit(Never); a.Outcome != Fails {
		t.Errorf("--set restart=true: %s", a.Outcome)
	}
}

func TestInapplicable(t *testing.T) {
	for release, h := range map[string]Host{
		"4.4.0":                 {Version: "#1 SMP Sun Jan 10 15:06:54 PST 2016"},
		"4.19.0-gvisor":         {},
		"4.4.0-19041-Microsoft": {},
		"6.1.0":                 {NoMMU: true},
	} {
		h.Release = release
		for _, m := range Modes() {
			if a := (Facts{Host: h}).Admit(m); a.Outcome != Uncertain || a.Reason == "" {
				t.Errorf("%s in mode %d: %s (%s)", release, m, a.Outcome, a.Reason)
			}
		}
	}
	if why := (Host{Release: "5.15.153.1-microsoft-standard-WSL2"}).Inapplicable(); why != "" {
		t.Errorf("WSL2 is a real kernel: %s", why)
	}
}

// FuzzMoreIsNeverWorse: raising what a rule allows never worsens a verdict, and
// narrowing the bounds of the charge never contradicts what the wide ones said.
func FuzzMoreIsNeverWorse(f *testing.F) {
	f.Add(uint64(1))
	releases := []string{"6.1.0", "4.4.155", "4.19.222", "3.8.13", "3.0.1", "2.6.32-642.el6", "4.18.0-193.el8", "5.0.1", "4.14.1.amzn2", "3.13.1"}
	f.Fuzz(func(t *testing.T, seed uint64) {
		rng := rand.New(rand.NewPCG(seed, 0))
		some := func() size.Bytes { return size.Bytes(rng.Int64N(1<<18)) * page }
		facts := guest(releases[rng.IntN(len(releases))]).with(old)
		facts.Host.Version, facts.Host.CPUsOnline = "#1 SMP", 1+rng.IntN(8)
		facts.Host.CommittedAS = some()
		facts.Process.TotalVM = some() * 8
		facts.Process.CapSysAdmin = []*bool{nil, new(bool), new(true)}[rng.IntN(3)]
		facts.Process.MappedIn = Mode(rng.IntN(3))
		facts = facts.charged(some(), some(), some())
		for _, m := range Modes() {
			before := facts.Admit(m)
			for name, more := range map[string]func(*Facts){
				"CommitLimit":  func(f *Facts) { f.Host.CommitLimit += some() },
				"MemTotal":     func(f *Facts) { setMemTotal(f, f.Host.MemTotal+some()) },
				"Committed_AS": func(f *Facts) { f.Host.CommittedAS -= min(some(), f.Host.CommittedAS) },
				"user_reserve": func(f *Facts) { f.Host.UserReserve = new(size.Bytes) },
				"SwapTotal":    func(f *Facts) { setSwapTotal(f, f.Host.SwapTotal+some()) },
			} {
				if name == "MemTotal" && m == Never {
					continue // more RAM means a larger batch, hence more doubt
				}
				if r, _ := ParseRelease(facts.Host.Release); r.arithmetic() != signed {
					continue // there a limit below zero admits everything
				}
				after := facts.with(more).Admit(m)
				if before.Outcome == Succeeds && after.Outcome != Succeeds || before.Outcome == Uncertain && after.Outcome == Fails {
					t.Errorf("%s in mode %d: more %s turned %s into %s", facts.Host.Release, m, name, before.Outcome, after.Outcome)
				}
			}
			wide := facts
			wide.Process.ChargeMin, wide.Process.LargestMin, wide.Process.Source = 0, 0, FromMaps
			wide.Process.ChargeMax += some()
			wide.Process.LargestMax += some()
			wide.Process.Noreserve = nil
			if w := wide.Admit(m); w.Outcome != Uncertain && w.Outcome != before.Outcome {
				t.Errorf("%s in mode %d: bounds said %s, the exact charge %s", facts.Host.Release, m, w.Outcome, before.Outcome)
			}
		}
	})
}
