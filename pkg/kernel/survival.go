package kernel

import (
	"github.com/overcheck/overcheck/pkg/size"
)

// Effect is what happens when a limit on memory is hit.
type Effect string

// The effects.
const (
	HostOOM   Effect = "host-oom"   // the host's OOM killer chooses among all processes
	CgroupOOM Effect = "cgroup-oom" // that of the cgroup, among its own
	Throttle  Effect = "throttle"   // memory.high: the writer is slowed down, nobody dies
	Panic     Effect = "panic"      // vm.panic_on_oom
)

// MemoryLimit is what one limit leaves for copy-on-write.
type MemoryLimit struct {
	Where     string     `json:"where"` // "host", or the path of a memory cgroup
	Available size.Bytes `json:"available_bytes"`
	// WithoutSwap is what of Available needs no swapping.
	WithoutSwap size.Bytes `json:"without_swap_bytes"`
	Effect      Effect     `json:"effect"`
}

// Shared is what a fork shares with its parent until one of both writes to it:
// each page is then copied (mm/memory.c: do_wp_page). It is what fork copies of
// the private anonymous memory, and what of it is swapped out. exact is false
// where smaps was not read: then it is all of it, which may be too much.
func (p Process) Shared() (b size.Bytes, exact bool) {
	switch {
	case p.Cow != nil:
		return *p.Cow, true
	case p.RSSAnon != nil:
		return *p.RSSAnon + p.Swap, false
	}
	return p.RSS + p.Swap, false // before 4.5 status does not tell the kinds apart
}

// Living is how many children live at a time.
func (p Process) Living() int64 { return max(p.Children, 1) }

// MemoryLimits are the limits that copy-on-write may hit, the host's first, and
// what each leaves when the children have their page tables. memory.high only
// slows down.
func (f Facts) MemoryLimits() (limits []MemoryLimit) {
	h, p := f.Host, f.Process
	tables := p.PageTables * size.Bytes(p.Living())
	add := func(where string, room, withoutSwap size.Bytes, effect Effect) {
		limits = append(limits, MemoryLimit{where, max(room-tables, 0), max(withoutSwap-tables, 0), effect})
	}
	host := h.MemFree
	if h.MemAvailable != nil {
		host = *h.MemAvailable
	}
	effect := HostOOM
	if h.PanicOnOOM != nil && *h.PanicOnOOM > 0 {
		effect = Panic
	}
	add("host", host+h.SwapFree, host, effect)
	for _, g := range p.Memory {
		if room, limited := g.Room(h); limited {
			add(g.Path, room, g.free()+g.File+g.SlabReclaimable, CgroupOOM)
		}
		if g.High != nil {
			high := g
			high.Max = *g.High
			room, _ := high.Room(h)
			add(g.Path, room, high.free()+g.File+g.SlabReclaimable, Throttle)
		}
	}
	return limits
}
