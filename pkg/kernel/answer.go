package kernel

import (
	"time"

	"github.com/overcheck/overcheck/pkg/size"
)

// Request is what a probe asks the kernel to charge, in the order of a fork.
type Request struct {
	Mode Mode
	// Sizes are the mappings, none empty. In mode 2 they are charged together, in
	// mode 0 each alone.
	Sizes []size.Bytes
	// Index is, for each of Sizes, which of the process's charged mappings it is.
	Index []int
	// Cap: ask as CAP_SYS_ADMIN, or without it.
	Cap bool
	// Adjusted is how much more (less, if negative) than the fork's charge is asked
	// for, to make up for what is different about the prober: its own charge, and
	// the share of its own address space that mode 2 keeps in reserve.
	Adjusted size.Bytes
	// Excess is how much more than the fork would need the request still asks for,
	// where what the prober itself has charged and kept in reserve is more than the
	// fork: a refusal then says nothing of the fork.
	Excess size.Bytes
}

// Answer is what the kernel said to a Request.
type Answer struct {
	Admitted bool          `json:"admitted"`
	Refused  int           `json:"refused_at"` // index into Sizes of what was refused; -1: nothing
	Held     time.Duration `json:"held_ns"`    // how long anything was charged
}

// Request returns what a probe must ask so that the kernel's answer is that to
// the fork. selfVM is the prober's mm->total_vm before it maps anything; what it
// has charged itself is Host.OwnCharge.
//
// mmap of a private writable mapping runs the very check that fork runs for it
// (mm/util.c:__vm_enough_memory, called from mmap_region and from dup_mmap), with
// three differences: the prober's own charge is committed, the user reserve is a
// 32nd of the prober's address space (as it stands before the last mapping), and
// the capability is the prober's.
func (f Facts) Request(cap bool, selfVM size.Bytes) Request {
	r := Request{Mode: f.Host.Mode, Cap: cap}
	for i, m := range f.Mappings {
		r.Sizes, r.Index = append(r.Sizes, m.Size()), append(r.Index, i)
	}
	if f.Host.Mode != Never || len(r.Sizes) == 0 {
		return r
	}
	family := F5 // from 3.10 on all are alike in mode 2
	if families, _ := f.Host.Families(); len(families) > 0 {
		family = families[0]
	}
	last := r.Sizes[len(r.Sizes)-1]
	target := sum(f.reserves(family, cap, f.Process.TotalVM))
	// The prober's address space depends on what is asked for, and that on the
	// reserve: the second round is exact to a page or two.
	for range 3 {
		own := sum(f.reserves(family, cap, selfVM+f.Process.Charge+r.Adjusted-last))
		r.Adjusted = target - own - f.Host.OwnCharge
	}
	r.adjust(f.Host.PageSize)
	return r
}

// adjust spreads Adjusted over the sizes: more goes to the first, less is taken
// from the first ones that have it.
func (r *Request) adjust(page size.Bytes) {
	left := r.Adjusted
	if left >= 0 {
		r.Sizes[0] += left
		return
	}
	for i := range r.Sizes {
		take := min(-left, r.Sizes[i])
		r.Sizes[i] -= take
		left += take
	}
	sizes, index := r.Sizes, r.Index
	r.Sizes, r.Index = nil, nil
	for i, b := range sizes {
		if b >= page {
			r.Sizes, r.Index = append(r.Sizes, b), append(r.Index, index[i])
		}
	}
	if len(r.Sizes) == 0 {
		r.Sizes, r.Index, r.Excess = []size.Bytes{page}, index[len(index)-1:], page-left
	}
}
