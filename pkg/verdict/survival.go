package verdict

import (
	"math"

	"github.com/overcheck/overcheck/pkg/kernel"
	"github.com/overcheck/overcheck/pkg/size"
)

// Survival is what the copy-on-write after a fork may cost, against what is there.
type Survival struct {
	// CowWorst: every private anonymous page rewritten while both live.
	CowWorst  size.Bytes `json:"cow_worst_bytes"`
	Available size.Bytes `json:"available_bytes"` // up to the tightest limit
	Tightest  string     `json:"tightest"`        // "host", or the path of a memory cgroup
	// BreakEven is the share of CowWorst that fits, at most 100; nil: nothing to
	// copy, or what is available is not known.
	BreakEven *float64 `json:"break_even_percent"`
	// PageTables is what the child's page tables take at most.
	PageTables size.Bytes `json:"page_table_bytes"`
	// Pause is how long the fork itself holds up the process, roughly.
	Pause float64 `json:"pause_estimate_ms"`
	// Reason says what of this is not known.
	Reason string `json:"reason"`
}

// pausePerGiB is the time that fork takes to copy page tables, in ms per GiB of
// resident anonymous memory in 4 KiB pages: measured 14.5 to 17.1 on Linux 6.18
// (AMD EPYC guest); Redis's documentation gives 9 to 23 for other machines. Huge
// pages take a twentieth.
const pausePerGiB = 15

func survival(f kernel.Facts) Survival {
	h, p := f.Host, f.Process
	anon := p.RSS // before 4.5 status does not tell the kinds apart
	if p.RSSAnon != nil {
		anon = *p.RSSAnon
	}
	s := Survival{
		CowWorst: anon + p.Swap, Tightest: "host", PageTables: p.PageTables,
		Pause: math.Round(float64(anon)/float64(size.GiB)*pausePerGiB*10) / 10,
	}
	if h.MemAvailable == nil {
		s.Reason = "this kernel does not report MemAvailable (before 3.14)"
		s.Available = h.MemFree + h.SwapFree
	} else {
		s.Available = *h.MemAvailable + h.SwapFree
	}
	switch {
	case h.MeminfoRewritten:
		s.Reason = "lxcfs shows this container's share of the host's memory"
	case p.MemoryUnseen != "":
		s.Reason = p.MemoryUnseen
	}
	for _, g := range p.Memory {
		if free, limited := g.Room(h); limited && free < s.Available {
			s.Available, s.Tightest = free, g.Path
		}
	}
	s.Available = max(s.Available-s.PageTables, 0)
	if s.CowWorst > 0 && (s.Reason == "" || s.Available == 0) {
		share := min(float64(s.Available)/float64(s.CowWorst), 1)
		s.BreakEven = new(math.Floor(share*1000) / 10)
	}
	return s
}

// fits reports whether all may be rewritten.
func (s Survival) fits() bool { return s.CowWorst == 0 || s.BreakEven != nil && *s.BreakEven == 100 }
