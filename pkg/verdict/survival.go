package verdict

import (
	"fmt"
	"math"
	"slices"

	"github.com/overcheck/overcheck/pkg/kernel"
	"github.com/overcheck/overcheck/pkg/size"
)

// Survival is what the copy-on-write after a fork may cost, against what is there.
type Survival struct {
	// Verdict: Succeeds if all that may be rewritten, or what is expected to be,
	// fits; Fails if what is expected does not, or nothing may be rewritten at all;
	// else it depends on how much is.
	Verdict kernel.Outcome `json:"verdict"`
	// CowWorst: every page that is shared is rewritten while the children live.
	CowWorst  size.Bytes `json:"cow_worst_bytes"`
	Available size.Bytes `json:"available_bytes"` // up to the tightest limit that kills
	Tightest  string     `json:"tightest"`        // "host", or the path of a memory cgroup
	// Effect is what happens there.
	Effect kernel.Effect `json:"effect"`
	// BreakEven is the share of CowWorst that fits, at most 100; nil: nothing to
	// copy, or what is available is not known.
	BreakEven *float64 `json:"break_even_percent"`
	// Expected is how much is expected to be rewritten; nil: not said.
	Expected *size.Bytes `json:"cow_expected_bytes"`
	Children int64       `json:"children"` // that live at a time
	// Throttled is memory.high, where it is reached before the tightest limit.
	Throttled *kernel.MemoryLimit  `json:"throttled"`
	Limits    []kernel.MemoryLimit `json:"limits"` // all of them, the host first
	// Victim says whom the OOM killer would choose, as far as can be said.
	Victim string `json:"victim"`
	// PageTables is what the children's page tables take at most.
	PageTables size.Bytes `json:"page_table_bytes"`
	// Pause is how long one fork itself holds up the process, roughly; PauseRange
	// from and to, by PauseSource.
	Pause       float64    `json:"pause_estimate_ms"`
	PauseRange  [2]float64 `json:"pause_range_ms"`
	PauseSource string     `json:"pause_source"`
	// Reason says what of this is not known.
	Reason string `json:"reason"`
}

// The time that fork takes to copy page tables, in ms per GiB of anonymous memory:
// with 4 KiB pages 9 to 13 on hardware, 13 to 24 in virtual machines (Redis's
// documentation; 14.5 to 25 measured on Linux 6.18, AMD EPYC guest, and up to 39
// there by a Redis under load), with huge
// pages a thirtieth (0.35 to 0.69 measured there).
const (
	pausePerGiB                       = 15
	pausePerGiBLeast, pausePerGiBMost = 9, 40
	hugePausePerGiB                   = 0.5
)

func survival(f kernel.Facts) Survival {
	h, p := f.Host, f.Process
	shared, exact := p.Shared()
	s := Survival{
		CowWorst: shared * size.Bytes(p.Living()), Children: p.Living(), Expected: p.CowExpected,
		PageTables: p.PageTables * size.Bytes(p.Living()), Limits: f.MemoryLimits(),
	}
	s.pause(f, shared)
	if s.Expected != nil {
		s.Expected = new(min(*s.Expected, s.CowWorst)) // no more than there is
	}
	s.Reason = notKnown(h, p)
	tightest := kernel.MemoryLimit{Available: -1}
	for _, l := range s.Limits {
		switch {
		case l.Effect == kernel.Throttle:
			if s.Throttled == nil || l.Available < s.Throttled.Available {
				s.Throttled = &l
			}
		case tightest.Available < 0 || l.Available < tightest.Available:
			tightest = l
		}
	}
	s.Available, s.Tightest, s.Effect = tightest.Available, tightest.Where, tightest.Effect
	if s.Reason == "" && tightest.Effect == kernel.CgroupOOM && s.CowWorst > tightest.WithoutSwap && tightest.Available > tightest.WithoutSwap && mayBeHuge(h, p) {
		s.Reason = "with huge pages a cgroup's OOM killer may strike before its swap is used up: how much of it can be had is not known"
	}
	if s.Throttled != nil && s.Throttled.Available >= s.Available {
		s.Throttled = nil
	}
	if s.CowWorst > 0 && (s.Reason == "" || s.Available == 0) {
		share := min(float64(s.Available)/float64(s.CowWorst), 1)
		s.BreakEven = new(math.Floor(share*1000) / 10)
	}
	s.Verdict = s.outcome()
	s.Victim = victim(f, s)
	if !exact && s.Reason == "" && s.CowWorst > 0 && s.Verdict != kernel.Succeeds {
		s.Reason = "smaps was not read: what MADV_DONTFORK and MADV_WIPEONFORK exempt is counted"
	}
	return s
}

// mayBeHuge reports whether some of what is shared is in huge pages, as far as can
// be known.
func mayBeHuge(h kernel.Host, p kernel.Process) bool {
	if p.CowHuge == nil {
		return h.THP == "always" || h.THP == "madvise"
	}
	return *p.CowHuge > 0
}

// notKnown says why what is available is not known; empty: it is.
func notKnown(h kernel.Host, p kernel.Process) string {
	switch {
	case h.MemAvailable == nil:
		return "this kernel does not report MemAvailable (before 3.14)"
	case h.MeminfoRewritten:
		return "lxcfs shows this container's share of the host's memory"
	}
	return p.MemoryUnseen
}

func (s Survival) outcome() kernel.Outcome {
	switch {
	case s.CowWorst == 0:
		return kernel.Succeeds
	case s.Available == 0:
		return kernel.Fails
	case s.Reason != "":
		return kernel.Uncertain
	case s.CowWorst <= s.Available, s.Expected != nil && *s.Expected <= s.Available:
		return kernel.Succeeds
	case s.Expected != nil:
		return kernel.Fails
	}
	return kernel.Uncertain
}

// pause estimates how long fork holds up the process.
func (s *Survival) pause(f kernel.Facts, shared size.Bytes) {
	p := f.Process
	resident := max(shared-p.Swap, 0)
	huge := size.Bytes(0)
	if p.CowHuge != nil {
		huge = min(*p.CowHuge, resident)
	}
	ms := func(perGiB float64) float64 {
		return math.Round((float64(resident-huge)*perGiB+float64(huge)*hugePausePerGiB)/float64(size.GiB)*10) / 10
	}
	if rate := f.Host.PausePerGiB; rate > 0 {
		s.Pause, s.PauseSource = ms(rate), fmt.Sprintf("%.1f ms per GiB in 4 KiB pages, measured on this host", rate)
		// An idle process took 0.9 to 1.4 of it, a Redis under load up to 1.6.
		s.PauseRange = [2]float64{s.Pause * 0.8, s.Pause * 1.75}
		return
	}
	s.Pause, s.PauseRange = ms(pausePerGiB), [2]float64{ms(pausePerGiBLeast), ms(pausePerGiBMost)}
	s.PauseSource = "9 to 40 ms per GiB in 4 KiB pages, from idle hardware to virtual machines under load; --calibrate measures it here"
}

// victim says whom the OOM killer would choose: by the memory that a process holds
// (resident, swapped, page tables) and oom_score_adj (mm/oom_kill.c: oom_badness).
// A child that was just forked holds as much as its parent, and its adj.
func victim(f kernel.Facts, s Survival) string {
	h, p := f.Host, f.Process
	adj := p.OOMScoreAdj
	switch {
	case s.Effect == kernel.Panic:
		return "nobody: the kernel panics (vm.panic_on_oom)"
	case s.Effect == kernel.CgroupOOM && slices.ContainsFunc(p.Memory, func(g kernel.MemoryCgroup) bool { return g.Path == s.Tightest && g.OOMGroup }):
		return "all of the cgroup (memory.oom.group)"
	case h.OOMKillAllocating != nil && *h.OOMKillAllocating > 0 && s.Effect == kernel.HostOOM:
		return "the process that happens to ask for memory (vm.oom_kill_allocating_task)"
	case adj == nil:
		return "not known: oom_score_adj could not be read"
	case *adj == -1000:
		return "another process: this one and its children have oom_score_adj -1000"
	case s.Effect == kernel.CgroupOOM:
		return "the process itself rather than its child, which has no pages of files, unless the child raises its oom_score_adj; or what holds more in the cgroup"
	}
	return fmt.Sprintf("the process of the host that holds most, by oom_score; this one holds %s with oom_score_adj %d, and its child as much", p.RSS+p.Swap, *adj)
}

// fits reports whether all may be rewritten.
func (s Survival) fits() bool { return s.CowWorst == 0 || s.BreakEven != nil && *s.BreakEven == 100 }

// place is the tightest limit in words.
func (s Survival) place() string {
	if s.Tightest == "host" {
		return "the host"
	}
	return "the cgroup " + s.Tightest
}
