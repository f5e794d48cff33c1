package kernel

import (
	"strings"

	"github.com/overcheck/overcheck/pkg/size"
)

// CounterUncertainty is E: how far the counter that the mode-2 check reads may
// stand from Committed_AS plus the fork's charge, because each CPU keeps a
// residue of up to batch-1 pages to itself (lib/percpu_counter.c).
//
// From 5.9 meminfo shows the exact sum and the check reads the global part
// alone, so E is one residue a CPU. Before, both read the global part, and what
// counts is how far the residues can move, from one end to the other, between
// reading Committed_AS and the last mapping that fork charges: twice that. The
// same bound covers overcheck's own charge, of which the global part holds only
// what was folded.
func (h Host) CounterUncertainty() size.Bytes {
	if h.Version != "" && !strings.Contains(h.Version, "SMP") {
		return 0 // CONFIG_SMP=n: a plain counter
	}
	r, _ := ParseRelease(h.Release) // an unreadable release counts as the oldest: the widest bound
	perCPU := h.batch(r) - 1
	if !r.AtLeast(5, 9) {
		perCPU *= 2
	}
	return h.bytes(int64(max(h.CPUsOnline, 1)) * perCPU)
}

// batch is vm_committed_as_batch in mode 2, in pages: mm/mm_init.c:
// mm_compute_batch, since 3.11. Before, the default batch of every percpu
// counter; before 2.6.29, mm/swap.c:vm_acct_memory's own threshold, for the
// 255 CPUs that distributions built for.
func (h Host) batch(r Release) int64 {
	present := int64(max(h.CPUsPresent, h.CPUsOnline, 1))
	// It was computed at boot or hot-plug: a balloon has not changed it since.
	ram := h.pages(max(h.MemTotal, h.PresentRAM))
	switch {
	case r.AtLeast(3, 11):
		return max(ram/present/256, 2*present, 32)
	case r.AtLeast(3, 0), r.Major == 2 && r.Minor == 6 && r.Patch >= 29:
		return max(32, 2*int64(h.CPUsOnline))
	}
	return 2*255 + 1
}
