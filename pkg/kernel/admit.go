package kernel

import (
	"fmt"
	"sort"
	"strings"

	"github.com/overcheck/overcheck/pkg/size"
)

// Term is one summand, named for people, with its source.
type Term struct {
	Name  string     `json:"name"`
	Bytes size.Bytes `json:"bytes"`
	Note  string     `json:"note"`
}

// Blocking is the mapping at which the kernel would refuse the fork.
type Blocking struct {
	Mapping
	Length size.Bytes `json:"size_bytes"`
}

// Admission is what the commit check of one mode says of the fork.
type Admission struct {
	Mode     Mode    `json:"mode"`
	ModeName string  `json:"mode_name"`
	Current  bool    `json:"current"`
	Outcome  Outcome `json:"verdict"`
	Errno    *Errno  `json:"errno"`
	// Meaning says what the mode does, in a sentence; Rule names the comparison.
	Meaning string `json:"meaning"`
	Rule    string `json:"rule"`
	// Reason says why the outcome is Uncertain, and how to settle it.
	Reason string `json:"reason"`
	// Need, Limit and Headroom (limit less need) are nil where the mode compares
	// nothing. Uncertainty is how far they may stand from what the kernel compares.
	Need        *size.Bytes `json:"need_bytes"`
	Limit       *size.Bytes `json:"limit_bytes"`
	Headroom    *size.Bytes `json:"headroom_bytes"`
	Uncertainty *size.Bytes `json:"uncertainty_bytes"`
	Terms       []Term      `json:"terms"`       // add up to Need
	LimitTerms  []Term      `json:"limit_terms"` // add up to Limit
	// LargestFork is the largest charge that the mode would admit (mode 0: the
	// largest single mapping); nil: no limit, or not known (Outcome Uncertain).
	LargestFork *size.Bytes `json:"largest_fork_bytes"`
	Blocking    *Blocking   `json:"blocking_mapping"`
	// AfterRestart is the outcome if the process were started anew in this mode;
	// nil where there is no process to restart.
	AfterRestart     *Outcome    `json:"verdict_after_restart"`
	NeedAfterRestart *size.Bytes `json:"need_after_restart_bytes"`
}

// Admit judges the commit check of mode m: what dup_mmap (kernel/fork.c, since
// 6.15 or so mm/mmap.c) gets from __vm_enough_memory (mm/util.c) for each
// charged mapping. Errno is ENOMEM in every failure.
func (f Facts) Admit(m Mode) Admission {
	if f.Process.WithoutFork {
		f = f.started()
	}
	a := f.admitAsIs(m)
	if f.Process.Source != Assumed {
		best, worst := f.restarted(m)
		w := worst.admitAsIs(m)
		after := best.admitAsIs(m).Outcome.both(w.Outcome)
		a.AfterRestart, a.NeedAfterRestart = &after, w.Need
		if f.Process.Restart {
			w.AfterRestart, w.NeedAfterRestart = a.AfterRestart, a.NeedAfterRestart
			if w.Outcome = after; after == Uncertain && w.Reason == "" {
				w.Reason = "how much of its memory the restarted process would map MAP_NORESERVE cannot be known from here"
			}
			a = w
		}
	}
	a.Mode, a.ModeName, a.Current = m, m.String(), m == f.Host.Mode
	if a.Outcome == Fails {
		e := ENOMEM
		a.Errno = &e
	} else {
		a.Blocking = nil
	}
	return a
}

// started is a small program in place of the process that starts it without
// fork: nothing of that one is copied, and what is executed has memory of its own.
func (f Facts) started() Facts {
	const small = 4 * size.MiB
	p := &f.Process
	p.Charge, p.ChargeMin, p.ChargeMax = small, small, small
	p.Largest, p.LargestMin, p.LargestMax = small/2, small/2, small/2
	p.MayBeCharged, p.Noreserve, p.Dontfork, p.TotalVM = 0, new(size.Bytes), new(size.Bytes), 2*small
	f.Mappings = nil
	return f
}

// admitAsIs judges the mappings as they are, by every family that may hold.
func (f Facts) admitAsIs(m Mode) Admission {
	if why := f.Host.Inapplicable(); why != "" {
		return Admission{Rule: "Linux's rules do not apply", Reason: why}
	}
	if m == Always {
		return Admission{
			Outcome: Succeeds, Rule: "nothing is compared",
			Meaning: "nothing is refused: memory that is not there is missed later, when it is written to, and the OOM killer decides for whom",
		}
	}
	families, why := f.Host.Families()
	a := f.admitBy(families[0], m)
	for _, family := range families[1:] {
		b := f.admitBy(family, m)
		a.LargestFork = lesser(a.LargestFork, b.LargestFork)
		if merged := a.Outcome.both(b.Outcome); merged != a.Outcome {
			a.Reason = fmt.Sprintf("%s; the rule of %s says %q, that of %s %q", why, families[0], a.Outcome, family, b.Outcome)
			a.Outcome = merged
		}
	}
	return a
}

func (f Facts) admitBy(family Family, m Mode) Admission {
	switch {
	case m == Never:
		return f.admitNever(family)
	case family == F5:
		return f.admitHeuristic()
	}
	return f.admitOldHeuristic(family)
}

// admitHeuristic is mode 0 since 5.2 (commit 8c7829b04c52, mm/util.c): each
// mapping alone must not exceed totalram_pages() + total_swap_pages; equality
// passes. Neither free memory, nor a reserve, nor CAP_SYS_ADMIN enters.
func (f Facts) admitHeuristic() Admission {
	h, p := f.Host, f.Process
	total := h.MemTotal + h.SwapTotal
	a := Admission{
		Meaning: "a fork is refused only if one of its charged mappings alone is larger than RAM and swap together, however much is in use or committed",
		Rule:    "largest charged mapping against RAM + swap (Linux >= 5.2)",
		Terms:   []Term{largestTerm(p)},
		LimitTerms: []Term{
			{"RAM", h.MemTotal, "MemTotal"},
			{"swap", h.SwapTotal, "SwapTotal"},
		},
		LargestFork: &total,
	}
	a.compare(0)
	limit := span{h.pages(total), h.pages(total)}
	if h.MeminfoRewritten {
		// lxcfs shows the container's share, never more than the host has.
		limit.hi = maxPages
		a.LargestFork = nil
	}
	a.decide(span{h.pages(p.LargestMin), h.pages(p.LargestMax)}, limit, 0, false)
	if a.Outcome == Uncertain {
		a.Reason = f.why(a, h.MeminfoRewritten, false, p.LargestMin, p.LargestMax)
	}
	a.block(f, func(_, pages int64) bool { return pages > limit.hi })
	return a
}

// admitOldHeuristic is mode 0 up to 5.1: each mapping alone must be less than
// what is free or could be freed. Its cap_sys_admin branch and its terms changed
// with the families; the first stage of F0 passes whatever the second would.
func (f Facts) admitOldHeuristic(family Family) Admission {
	h, p := f.Host, f.Process
	a := Admission{
		Meaning: "a fork is refused if one of its charged mappings alone is not smaller than what is free or can be freed at that moment",
		Rule:    "largest charged mapping against free and reclaimable memory (" + family.String() + ")",
		Terms:   []Term{largestTerm(p)},
	}
	if p.ChargeMax+p.MayBeCharged == 0 {
		a.Outcome = Succeeds // no charged mapping, no check
		return a
	}
	if h.Old == nil {
		a.Reason = "the counters of the old rule (vmstat, zoneinfo) could not be read"
		return a
	}
	// Between reading the counters and the check each CPU may fold up to 125
	// pages (mm/vmstat.c: calculate_normal_threshold) of each of five counters,
	// fork takes pages for the child's page tables, and overcheck's own go back.
	e := int64(max(h.CPUsOnline, 1))*125*5 + h.pages(p.PageTables+8*size.MiB)
	r, err := ParseRelease(h.Release)
	mayWrap := err != nil || r.arithmetic() != signed
	var limit span
	for i, cap := range f.Caps() {
		terms := h.oldLimitTerms(family, cap)
		lo := h.pages(sum(terms))
		hi := lo + h.unseenOld(family)
		if mayWrap && h.wraps(terms, e) {
			hi = maxPages
		}
		if h.MeminfoRewritten { // SwapFree is this container's
			lo, hi = lo-h.pages(h.SwapFree), maxPages
		}
		if i == 0 {
			a.LimitTerms, limit = terms, span{lo, hi}
		}
		limit = span{min(limit.lo, lo), max(limit.hi, hi)}
	}
	largest := h.bytes(max(limit.lo-1, 0))
	a.LargestFork = &largest
	a.compare(h.bytes(e))
	need := span{h.pages(p.LargestMin), h.pages(p.LargestMax)}
	if a.decide(need, limit, e, true); a.Outcome == Fails && p.ChargeMin == 0 {
		a.Outcome = Uncertain // perhaps nothing is charged, and nothing checked
	}
	if a.Outcome == Uncertain {
		a.Reason = f.why(a, h.MeminfoRewritten, len(f.Caps()) > 1, p.LargestMin, p.LargestMax)
		if h.unseenOld(family) > 0 && need.lo < limit.hi && need.hi >= limit.lo {
			a.Reason += "; this kernel also counts memory as reclaimable that /proc does not show"
		}
	}
	a.block(f, func(_, pages int64) bool { return pages >= limit.lo })
	return a
}

// unseenOld is how much more than the terms show the old rule may count as free,
// in pages.
func (h Host) unseenOld(family Family) int64 {
	switch r, _ := ParseRelease(h.Release); {
	case family == F3, family == F4 && h.Old.KernelMiscReclaimable == nil:
		// NR_INDIRECTLY_RECLAIMABLE_BYTES has no name in vmstat; what it counts lies
		// in unreclaimable slab.
		return h.Old.SlabUnreclaimable
	case family == F4 && r.AtLeast(5, 0):
		// zoneinfo prints the high watermark with a boost of up to 150 % in it.
		return h.Old.TotalReserve * 3 / 5
	}
	return 0
}

// wraps reports whether taking the admin reserve off may go below zero, where
// the sum is unsigned: the result is then huge.
func (h Host) wraps(terms []Term, e int64) bool {
	for i, t := range terms {
		if t.Name == adminReserveName {
			left := h.pages(sum(terms[:i+1]))
			return left < e && left-h.pages(t.Bytes) > -e
		}
	}
	return false
}

const adminReserveName = "admin reserve"

// oldLimitTerms are the summands of what the old rule calls free.
func (h Host) oldLimitTerms(family Family, cap bool) []Term {
	o := h.Old
	page := func(name string, pages int64, note string) Term { return Term{name, h.bytes(pages), note} }
	file, swap, slab := page("page cache", o.FilePages, "nr_file_pages"), Term{"free swap", h.SwapFree, "SwapFree"}, page("slab", o.SlabReclaimable, "nr_slab_reclaimable")
	if family <= RHEL68 { // F0 and its RHEL 6 variants: file, swap and slab first, free pages if that is not enough
		terms := []Term{file, swap, slab}
		kept := func(of int64) Term {
			return page("reserve", -(of / 32), "1/32, kept from users without CAP_SYS_ADMIN")
		}
		switch {
		case cap:
		case family == RHEL68:
			terms = append(terms, Term{adminReserveName, -h.adminReserve(), "vm.admin_reserve_kbytes"})
		default:
			terms = append(terms, kept(h.pages(sum(terms))))
		}
		if free := o.FreePages - o.TotalReserve; free > 0 {
			terms = append(terms, page("free", o.FreePages, "nr_free_pages"), page("watermarks", -o.TotalReserve, "totalreserve_pages, from zoneinfo"))
			if !cap {
				terms = append(terms, kept(free))
			}
		}
		return terms
	}
	terms := []Term{
		page("free", o.FreePages, "nr_free_pages"), file,
		page("shared memory", -o.Shmem, "nr_shmem"), swap, slab,
	}
	if family == F4 && o.KernelMiscReclaimable != nil {
		terms = append(terms, page("misc", *o.KernelMiscReclaimable, "nr_kernel_misc_reclaimable"))
	}
	terms = append(terms, page("watermarks", -o.TotalReserve, "totalreserve_pages, from zoneinfo"))
	switch {
	case cap || sum(terms) <= 0:
	case family == F1:
		terms = append(terms, page("reserve", -(h.pages(sum(terms))/32), "1/32, kept from users without CAP_SYS_ADMIN"))
	default:
		terms = append(terms, Term{adminReserveName, -h.adminReserve(), "vm.admin_reserve_kbytes"})
	}
	return terms
}

// admitNever is mode 2: what is committed, plus what this fork adds, must stay
// under (not reach) the limit less the reserves. A fork that is charged nothing
// is not checked at all.
func (f Facts) admitNever(family Family) Admission {
	h, p := f.Host, f.Process
	a := Admission{
		Meaning: "all that is charged on the host must stay under the commit limit, used or not; a fork is charged once more for all of the process's charged mappings",
		Rule:    "all that is committed, this fork and the reserves, against CommitLimit",
	}
	caps := f.Caps()
	committed := Term{"committed now", h.Committed(), "Committed_AS"}
	if h.OwnCharge != 0 {
		committed.Note += " less overcheck's own " + h.OwnCharge.String()
	}
	a.Terms = []Term{committed, chargeTerm(p)}
	if p.MayBeCharged > 0 {
		a.Terms = append(a.Terms, Term{"growth, twice", 2 * p.MayBeCharged, "at most: committed, and again by this fork"})
	}
	others := size.Bytes(p.Living() - 1)
	if others > 0 {
		a.Terms = append(a.Terms, Term{"other children", others * p.Charge, fmt.Sprintf("%d more that live at the time, charged until they exit or execute", others)})
	}
	a.Terms = append(a.Terms, f.reserves(family, caps[0], p.TotalVM)...)
	a.LimitTerms = h.limitTerms()
	e := h.CounterUncertainty()
	a.compare(e)

	limit := span{maxPages, -maxPages}
	largest := maxPages
	for _, cap := range caps {
		allowed := f.allowed(family, cap, p.TotalVM)
		limit = span{min(limit.lo, allowed), max(limit.hi, allowed)}
		largest = min(largest, f.largestInNever(family, cap))
	}
	if r, err := ParseRelease(h.Release); limit.lo < 0 && (err != nil || r.arithmetic() != signed) {
		limit.hi = maxPages // below zero the sum wraps to a huge one
		if err == nil && r.arithmetic() == unsigned && len(caps) == 1 {
			limit.lo = maxPages
			a.Rule += "; the reserves exceed the limit, and this kernel's unsigned sum then admits everything"
		}
	}
	a.LargestFork = new(h.bytes(largest))
	base := h.pages(h.Committed())
	// What may be charged would also be committed by then.
	need := span{base + h.pages((others+1)*p.ChargeMin), base + h.pages((others+1)*p.ChargeMax+2*p.MayBeCharged)}
	switch a.decide(need, limit, h.pages(e), true); {
	case h.LimitGuessed, h.MeminfoRewritten && (family < F2 || h.PresentRAM == 0):
		a.Outcome = Uncertain
		a.Reason = lxcfsReason
		return a
	case p.ChargeMax+p.MayBeCharged == 0:
		a.Outcome, a.Rule = Succeeds, "no mapping is charged: the check is never made"
	case a.Outcome == Fails && p.ChargeMin == 0:
		a.Outcome = Uncertain
	}
	if a.Outcome == Uncertain {
		a.Reason = f.why(a, false, len(caps) > 1, p.ChargeMin, p.ChargeMax+p.MayBeCharged)
	}
	base += h.pages(others * p.Charge)
	a.block(f, func(before, pages int64) bool { return base+before+pages >= limit.lo })
	return a
}

// allowed is `allowed` of __vm_enough_memory in mode 2, in pages, for a process
// whose mm->total_vm is totalVM.
func (f Facts) allowed(family Family, cap bool, totalVM size.Bytes) int64 {
	return f.Host.pages(f.Host.CommitLimit - sum(f.reserves(family, cap, totalVM)))
}

// reserves are what mode 2 takes off the limit.
func (f Facts) reserves(family Family, cap bool, totalVM size.Bytes) (terms []Term) {
	h := f.Host
	owner := h.bytes(h.pages(totalVM) / 32)
	who := "no CAP_SYS_ADMIN"
	if len(f.Caps()) > 1 {
		who = "if no CAP_SYS_ADMIN"
	}
	switch {
	case cap:
	case family == RHEL66:
		terms = append(terms, Term{"reserve", h.bytes(h.pages(h.CommitLimit) / 32), "1/32 of CommitLimit: " + who})
	case family == F0 || family == F1:
		terms = append(terms, Term{"reserve", h.bytes(h.pages(h.CommitLimit-h.SwapTotal) / 32), "1/32 of the limit without swap: " + who})
	default:
		terms = append(terms, Term{adminReserveName, h.adminReserve(), "vm.admin_reserve_kbytes: " + who})
	}
	if family < F2 || h.UserReserve == nil {
		return append(terms, Term{"reserve", owner, "total_vm/32"})
	}
	return append(terms, Term{"user reserve", min(owner, h.bytes(h.pages(*h.UserReserve))), "min(total_vm/32, vm.user_reserve_kbytes)"})
}

func (h Host) adminReserve() size.Bytes {
	if h.AdminReserve == nil {
		return 0
	}
	return h.bytes(h.pages(*h.AdminReserve))
}

// largestInNever finds the largest charge that mode 2 admits now, in pages. A
// larger charge means a larger total_vm, and that a larger reserve.
func (f Facts) largestInNever(family Family, cap bool) int64 {
	h := f.Host
	base := h.pages(h.Committed())
	refused := func(charge int) bool {
		n := int64(charge)
		return base+n*f.Process.Living() >= f.allowed(family, cap, max(f.Process.TotalVM, h.bytes(n)))
	}
	return int64(max(sort.Search(int(max(h.pages(h.CommitLimit), 0))+1, refused)-1, 0))
}

// limitTerms are the summands of CommitLimit: mm/util.c:vm_commit_limit.
func (h Host) limitTerms() []Term {
	if h.OvercommitKbytes != nil && *h.OvercommitKbytes > 0 {
		return []Term{{"set by hand", h.CommitLimit - h.SwapTotal, "vm.overcommit_kbytes"}, {"swap", h.SwapTotal, "SwapTotal"}}
	}
	part := "RAM"
	if h.Hugetlb > 0 {
		part = fmt.Sprintf("(RAM - %s of huge pages)", h.Hugetlb)
	}
	return []Term{
		{"share of RAM", h.CommitLimit - h.SwapTotal, fmt.Sprintf("vm.overcommit_ratio: %d%% of %s", h.OvercommitRatio, part)},
		{"swap", h.SwapTotal, "SwapTotal"},
	}
}

// Caps returns what cap_sys_admin may be in __vm_enough_memory: one value, or
// both where it cannot be known. SELinux may deny sys_admin to a domain that
// runs as root (selinux_vm_enough_memory), and /proc does not show it.
func (f Facts) Caps() []bool {
	switch c := f.Process.CapSysAdmin; {
	case c == nil, *c && f.Host.SELinuxEnforcing:
		return []bool{false, true}
	default:
		return []bool{*c}
	}
}

// restarted returns the facts if the process were started anew in mode m and
// grew to what it is: the best and the worst that could be.
//
// MAP_NORESERVE is honoured only outside mode 2 (mm/mmap.c:do_mmap), and
// allocators that ask for it in modes 0 and 1 (jemalloc since 4.2) do not ask in
// mode 2. So what is uncharged now is charged after a restart in mode 2; what
// is charged in mode 2 may be uncharged after a restart outside it.
func (f Facts) restarted(m Mode) (best, worst Facts) {
	best, worst = f, f
	switch {
	case m == Never && f.Process.Noreserve != nil:
		// In mode 2 too there may be some, from before the sysctl was changed.
		best.charge(*f.Process.Noreserve + f.Process.MayBeCharged)
		best.Process.MayBeCharged = 0
		worst = best
	case m == Never:
		p := &worst.Process
		most := p.ChargeMax + p.MayBeCharged
		worst.Host.CommittedAS += most
		p.Charge, p.ChargeMin, p.ChargeMax, p.MayBeCharged = most, most, most, 0
	case f.Process.MappedIn == Never:
		p := &best.Process
		p.Charge, p.ChargeMin, p.ChargeMax = 0, 0, 0
		p.Largest, p.LargestMin, p.LargestMax, p.MayBeCharged = 0, 0, 0, 0
	}
	return best, worst
}

// charge makes b more bytes of the process charged, and committed.
func (f *Facts) charge(b size.Bytes) {
	f.Host.CommittedAS += b
	p := &f.Process
	p.Charge, p.ChargeMin, p.ChargeMax = p.Charge+b, p.ChargeMin+b, p.ChargeMax+b
}

// span is an inclusive range of pages.
type span struct{ lo, hi int64 }

// maxPages stands for "no bound", in pages of any size.
const maxPages = int64(limitless / size.KiB)

// decide compares need against limit, in pages, with e pages of doubt; strict:
// equality fails.
func (a *Admission) decide(need, limit span, e int64, strict bool) {
	if strict {
		limit.lo--
		limit.hi--
	}
	switch {
	case limit.lo-need.hi >= e:
		a.Outcome = Succeeds
	case limit.hi-need.lo < -e:
		a.Outcome = Fails
	default:
		a.Outcome = Uncertain
	}
}

// compare fills the numbers from the terms.
func (a *Admission) compare(uncertainty size.Bytes) {
	need, limit := sum(a.Terms), sum(a.LimitTerms)
	headroom := limit - need
	a.Need, a.Limit, a.Headroom, a.Uncertainty = &need, &limit, &headroom, &uncertainty
}

// block names the first mapping, in the order in which fork charges them, that
// refused says the kernel refuses: given the pages charged before it and its own.
func (a *Admission) block(f Facts, refused func(before, pages int64) bool) {
	if a.Outcome == Succeeds {
		return
	}
	var before int64
	for _, m := range f.Mappings {
		pages := f.Host.pages(m.Size())
		if refused(before, pages) {
			a.Blocking = &Blocking{Mapping: m, Length: m.Size()}
			return
		}
		before += pages
	}
}

const lxcfsReason = "lxcfs shows this container's share for RAM and swap; the kernel goes by the host's: run on the host"

// why lists what leaves an outcome uncertain, and what would settle it.
func (f Facts) why(a Admission, meminfo, cap bool, lo, hi size.Bytes) string {
	var why []string
	if lo != hi {
		why = append(why, f.Process.boundsReason(lo, hi))
	}
	if meminfo {
		why = append(why, lxcfsReason)
	}
	if cap {
		why = append(why, "whether the kernel treats the process as CAP_SYS_ADMIN is not known")
	}
	if u := *a.Uncertainty; u > 0 && a.Headroom.Abs() <= u+f.Host.PageSize {
		why = append(why, fmt.Sprintf("too close to call: the kernel's own counters may stand %s from what /proc shows", u))
	}
	if len(why) == 0 {
		why = append(why, "the facts do not decide")
	}
	return strings.Join(why, "; ")
}

func (p Process) boundsReason(lo, hi size.Bytes) string {
	settle := "run as root, or as the owner of the process"
	switch {
	case p.MayBeCharged > 0:
		return fmt.Sprintf("what is charged lies between %s and %s: whether it would grow by charged or by MAP_NORESERVE memory is not known", lo, hi)
	case p.Source == FromSmaps || p.Source == Assumed: // exact, but for a change that makes it grow
		return fmt.Sprintf("the largest charged mapping lies between %s and %s: whether one mapping would grow or many come is not known", lo, hi)
	case p.Source == FromMaps:
		settle = "--mappings smaps reads it exactly"
	}
	return fmt.Sprintf("what is charged lies between %s and %s (%s does not tell): %s", lo, hi, p.Source, settle)
}

func largestTerm(p Process) Term {
	note := "of " + Plural(p.Charged, "charged mapping")
	if p.MayBeCharged > 0 {
		note = fmt.Sprintf("at most: between %s and this", p.LargestMin)
	} else if p.Source == FromMaps || p.Source == FromStatus {
		note = fmt.Sprintf("likely, from %s: at most %s", p.Source, p.LargestMax)
	}
	return Term{"largest mapping", p.Largest, note}
}

func chargeTerm(p Process) Term {
	note := Plural(p.Charged, "mapping") + " with VM_ACCOUNT"
	switch {
	case p.WithoutFork:
		return Term{"what is started", p.Charge, "a small program, assumed: nothing is forked"}
	case p.Source == Assumed:
		note = "a small shell, assumed"
	case p.Source == FromMaps, p.Source == FromStatus:
		note = fmt.Sprintf("likely, from %s: between %s and %s", p.Source, p.ChargeMin, p.ChargeMax)
	}
	return Term{"this fork", p.Charge, note}
}

// Plural counts things in words: "1 mapping", "2 mappings".
func Plural(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

func sum(terms []Term) (total size.Bytes) {
	for _, t := range terms {
		total += t.Bytes
	}
	return total
}

func lesser(a, b *size.Bytes) *size.Bytes {
	if a == nil || b != nil && *b < *a {
		return b
	}
	return a
}
