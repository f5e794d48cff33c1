package verdict

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/overcheck/overcheck/pkg/kernel"
	"github.com/overcheck/overcheck/pkg/size"
)

// Finding is something about the host or the process that its owner should know.
// Each ID has a chapter in docs/findings.
type Finding struct {
	ID       string `json:"id"`
	Severity string `json:"severity"` // error, warning or info
	Title    string `json:"title"`
	Detail   string `json:"detail"`
}

// The severities: fork() fails or the host may not survive it now; it will, or
// may, by a change that is likely; good to know.
const (
	isError   = "error"
	isWarning = "warning"
	isInfo    = "info"
)

// findings applies each rule, and sorts what they found by severity. Where nothing
// is wrong it says so.
func findings(f kernel.Facts, r Report) []Finding {
	found := []Finding{}
	for _, rule := range []func(kernel.Facts, Report) *Finding{
		commitExhausted, commitLimitTooLow, sparseMapping, hugetlbShrinksLimit, mode2AfterRestart, cgroupKill,
		pidsNear, nprocNear, threadsNear, pidMaxNear, mapCountNear, cowMayOOM, pauseLong, smallRatio, kernelRuleUnknown,
		sysctlDrift, kubelet, neighboursConflict, noreserveNotCharged, thpAndFork, swapAbsent, containerView,
	} {
		if finding := rule(f, r); finding != nil {
			found = append(found, *finding)
		}
	}
	if r.Spawn != nil {
		found = append(found, r.Spawn.finding())
	}
	quiet := !slices.ContainsFunc(found, func(f Finding) bool { return f.Severity != isInfo })
	if r.Verdict == kernel.Succeeds && quiet {
		found = append([]Finding{{
			ID: "no-action-needed", Severity: isInfo, Title: "nothing needs to be done",
			Detail: "fork() succeeds, no limit is near" + map[bool]string{true: ", and what copy-on-write may take fits"}[r.Survival != nil && r.Survival.fits()],
		}}, found...)
	}
	order := []string{isError, isWarning, isInfo}
	slices.SortStableFunc(found, func(a, b Finding) int {
		return cmp.Compare(slices.Index(order, a.Severity), slices.Index(order, b.Severity))
	})
	return found
}

// exhausted reports whether mode 2 is in force and not even a small program, of
// 4 MiB, could be forked.
func exhausted(f kernel.Facts) bool {
	f.Process.WithoutFork, f.Process.Restart = true, false
	return f.Host.Mode == kernel.Never && f.Admit(kernel.Never).Outcome == kernel.Fails
}

func commitExhausted(f kernel.Facts, r Report) *Finding {
	if !exhausted(f) {
		return nil
	}
	return &Finding{
		"commit-exhausted", isError, "nothing can be forked: the commit limit is used up",
		fmt.Sprintf("%s is committed of %s: not even a shell of 4 MiB could fork. One that runs can still use its builtins and exec", term(r.Current(), "committed now"), r.Current().Limit),
	}
}

// term is one summand of an admission.
func term(a kernel.Admission, name string) size.Bytes {
	for _, t := range a.Terms {
		if t.Name == name {
			return t.Bytes
		}
	}
	return 0
}

// commitLimitTooLow: in mode 2 this fork is refused, or may be; a small one would
// not be.
func commitLimitTooLow(f kernel.Facts, r Report) *Finding {
	a := r.Current()
	if f.Host.Mode != kernel.Never || a.Outcome == kernel.Succeeds || a.Headroom == nil || exhausted(f) {
		return nil
	}
	detail := fmt.Sprintf("the fork is charged %s and %s is needed in all, of a CommitLimit of %s", term(a, "this fork"), a.Need, a.Limit)
	if a.Outcome == kernel.Uncertain {
		return &Finding{"commit-limit-too-low", isWarning, "the commit limit may be too low for this fork", detail + ". Uncertain: " + a.Reason}
	}
	return &Finding{"commit-limit-too-low", isError, "the commit limit is too low for this fork", fmt.Sprintf("%s: %s short", detail, -*a.Headroom)}
}

// sparseMapping: one mapping is larger than RAM and swap. No single mmap in mode 0
// makes such a mapping, since it passes the same test.
func sparseMapping(f kernel.Facts, r Report) *Finding {
	a := r.Admission[kernel.Heuristic]
	b := a.Blocking
	if a.Outcome != kernel.Fails || b == nil || a.Limit == nil || b.Length <= *a.Limit {
		return nil
	}
	severity, made := isWarning, "one reservation of that size, made while mode "+f.Host.Mode.String()+" admits it, or several neighbours that the kernel merged"
	if f.Host.Mode == kernel.Heuristic {
		severity, made = isError, "one reservation of that size is refused in this mode, so these are several neighbours that the kernel merged, or it was made in another mode"
	}
	return &Finding{
		"sparse-mapping-exceeds-ram", severity, fmt.Sprintf("one mapping of %s is larger than RAM and swap together (%s)", b.Length, a.Limit),
		fmt.Sprintf("%x-%x, %s, %s of it resident: %s. Mode 0 refuses to fork it", uint64(b.Start), uint64(b.End), cmp.Or(b.Path, "anonymous"), b.Resident, made),
	}
}

// hugetlbShrinksLimit: reserved huge pages are taken off RAM before the ratio.
func hugetlbShrinksLimit(f kernel.Facts, r Report) *Finding {
	h := f.Host
	if h.Hugetlb == 0 || h.OvercommitKbytes != nil && *h.OvercommitKbytes > 0 || h.OvercommitRatio == 0 {
		return nil
	}
	by := h.Hugetlb / 100 * size.Bytes(h.OvercommitRatio)
	severity := isInfo
	if h.Mode == kernel.Never && r.Current().Outcome == kernel.Fails && *r.Current().Headroom+by > 0 {
		severity = isError
	}
	return &Finding{
		"hugetlb-shrinks-limit", severity, fmt.Sprintf("reserved huge pages lower the commit limit by %s", by),
		fmt.Sprintf("%s of RAM is reserved for huge pages, of which %d of the default size are free; vm.overcommit_ratio=%d applies to the rest", h.Hugetlb, h.HugePagesFree, h.OvercommitRatio),
	}
}

// mode2AfterRestart: what is MAP_NORESERVE now would be charged.
func mode2AfterRestart(f kernel.Facts, r Report) *Finding {
	a := r.Admission[kernel.Never]
	if a.Outcome != kernel.Succeeds || a.AfterRestart == nil || *a.AfterRestart != kernel.Fails {
		return nil
	}
	f2 := Finding{
		"mode-2-after-restart", isInfo, "in mode 2 it forks only until it is restarted",
		fmt.Sprintf("%s is mapped MAP_NORESERVE and not charged; started in mode 2 it would be, and %s needed", *f.Process.Noreserve, a.NeedAfterRestart),
	}
	if f.Host.Mode == kernel.Never {
		f2.Severity = isWarning
	}
	return &f2
}

// cgroupKill: the fork itself would overrun memory.max.
func cgroupKill(_ kernel.Facts, r Report) *Finding {
	c := r.check(kernel.AfterCommit)
	if c.Outcome != kernel.Fails {
		return nil
	}
	how := "the cgroup's OOM killer strikes, and fork() returns nothing"
	if c.Errno != nil {
		how = "fork() returns " + string(*c.Errno)
	}
	return &Finding{
		"cgroup-kill-on-fork", isError, "the child's page tables do not fit into the memory cgroup",
		fmt.Sprintf("%s are needed at most, %s is left of %s: %s", c.NeedBytes, c.LimitBytes, c.Where, how),
	}
}

// near says that a count has reached its limit, or nine tenths of it.
func near(id, who string, c kernel.Check) *Finding {
	if c.Used == nil || c.Limit == nil || c.Outcome != kernel.Fails && *c.Used+1 <= *c.Limit-*c.Limit/10 {
		return nil
	}
	severity, title := isWarning, who+" nearly as many as may be"
	if c.Outcome == kernel.Fails {
		severity, title = isError, who+" as many as may be"
	}
	return &Finding{id, severity, title, fmt.Sprintf("%d of %d, %s", *c.Used, *c.Limit, c.Where)}
}

func pidsNear(_ kernel.Facts, r Report) *Finding {
	return near("pids-limit-near", "the cgroup has tasks,", r.check("pids-cgroup"))
}

func nprocNear(_ kernel.Facts, r Report) *Finding {
	return near("nproc-near", "the user has tasks,", r.check("rlimit-nproc"))
}

func threadsNear(_ kernel.Facts, r Report) *Finding {
	return near("threads-max-near", "the host has threads,", r.check("threads-max"))
}

func pidMaxNear(_ kernel.Facts, r Report) *Finding {
	return near("pid-max-near", "process ids are in use,", r.check("pid-max"))
}

// mapCountNear: fork does not test vm.max_map_count, mmap and mprotect do.
func mapCountNear(f kernel.Facts, _ Report) *Finding {
	n, limit := int64(f.Process.MappingCount), f.Host.MaxMapCount
	if limit == nil || n <= *limit-*limit/10 {
		return nil
	}
	return &Finding{
		"map-count-near", isWarning, "the process has nearly as many mappings as it may",
		fmt.Sprintf("%d of vm.max_map_count=%d. fork() does not test that; mmap, mprotect and munmap fail there with ENOMEM", n, *limit),
	}
}

// cowMayOOM: not all may be rewritten while the child lives.
func cowMayOOM(f kernel.Facts, r Report) *Finding {
	s := r.Survival
	if s == nil || s.BreakEven == nil || s.fits() {
		return nil
	}
	severity := isWarning
	if s.Verdict == kernel.Fails {
		severity = isError
	}
	if r.Spawn != nil && !r.Spawn.mayFork() {
		severity = isInfo
	}
	return &Finding{
		"cow-may-oom", severity, fmt.Sprintf("copy-on-write may run %s out of memory", s.place()),
		fmt.Sprintf("%.0f%% of %s may be rewritten while a child lives; %s is available, and %s of swap", *s.BreakEven, s.CowWorst, s.Available, f.Host.SwapFree),
	}
}

// pauseLong: while fork copies page tables, the process does nothing else.
func pauseLong(_ kernel.Facts, r Report) *Finding {
	s := r.Survival
	if s == nil || s.PauseRange[1] < 250 {
		return nil
	}
	severity := isInfo
	if s.PauseRange[1] >= 1000 && (r.Spawn == nil || r.Spawn.mayFork()) {
		severity = isWarning
	}
	return &Finding{
		"pause-long", severity, fmt.Sprintf("each fork holds the process up for %.0f to %.0f ms", s.PauseRange[0], s.PauseRange[1]),
		fmt.Sprintf("%s of page tables are copied: %s", s.PageTables/size.Bytes(s.Children), s.PauseSource),
	}
}

// smallRatio: what RAM exceeds the limit by can never be charged; reserved huge
// pages are not charged, and used all the same.
func smallRatio(f kernel.Facts, _ Report) *Finding {
	h := f.Host
	usable := h.MemTotal - h.Hugetlb
	if h.Mode != kernel.Never || h.CommitLimit >= usable || h.MeminfoRewritten {
		return nil
	}
	by := fmt.Sprintf("vm.overcommit_ratio=%d", h.OvercommitRatio)
	if h.OvercommitKbytes != nil && *h.OvercommitKbytes > 0 {
		by = fmt.Sprintf("vm.overcommit_kbytes=%d", *h.OvercommitKbytes/size.KiB)
	}
	severity := isInfo
	if h.CommitLimit < usable/4*3 {
		severity = isWarning
	}
	return &Finding{
		"mode-2-small-ratio", severity, fmt.Sprintf("%s of RAM can never be committed in this mode", usable-h.CommitLimit),
		fmt.Sprintf("CommitLimit is %s by %s and %s of swap, RAM without huge pages is %s", h.CommitLimit, by, h.SwapTotal, usable),
	}
}

func kernelRuleUnknown(f kernel.Facts, _ Report) *Finding {
	families, why := f.Host.Families()
	if len(families) < 2 || f.Host.Inapplicable() != "" {
		return nil
	}
	return &Finding{"kernel-rule-unknown", isWarning, "which rule this kernel has in mode 0 is not known", why + ". --probe asks the kernel, in mode 0"}
}

// sysctlDrift compares what is in force with what a boot would set.
func sysctlDrift(f kernel.Facts, r Report) *Finding {
	h := f.Host
	if h.Boot == nil || len(r.Assumed) > 0 {
		return nil
	}
	boot, from := h.Booted()
	var drift []string
	for _, key := range []string{"vm.overcommit_memory", "vm.overcommit_ratio", "vm.overcommit_kbytes", "vm.admin_reserve_kbytes", "vm.user_reserve_kbytes"} {
		now, known := h.Sysctl(key)
		if at, set := boot[key]; known && set && at != now {
			drift = append(drift, fmt.Sprintf("%s is %d, and %d after a boot (%s)", key, now, at, from[key]))
		}
	}
	if drift == nil {
		return nil
	}
	return &Finding{"sysctl-drift", isWarning, "a reboot changes what holds here", strings.Join(drift, "; ")}
}

// kubelet sets mode 1 when it starts (SetupKernelTunables).
func kubelet(f kernel.Facts, _ Report) *Finding {
	if !slices.Contains(f.Host.Neighbours, "kubelet") {
		return nil
	}
	severity := isInfo
	if f.Host.Mode != kernel.Always {
		severity = isWarning
	}
	return &Finding{
		"kubelet-forces-mode-1", severity, "the kubelet sets mode 1 when it starts",
		fmt.Sprintf("mode %d is in force now; no other lasts on this node", f.Host.Mode),
	}
}

// opinions are the modes that the manuals of some programs ask for, by comm.
func opinions() map[string]kernel.Mode {
	return map[string]kernel.Mode{
		"redis-server": kernel.Always, "valkey-server": kernel.Always, "keydb-server": kernel.Always,
		"postgres": kernel.Never, "kubelet": kernel.Always,
	}
}

// Opinionated are the comms to look for among a host's processes.
func Opinionated() (comms []string) {
	for comm := range opinions() {
		comms = append(comms, comm)
	}
	slices.Sort(comms)
	return comms
}

func neighboursConflict(f kernel.Facts, _ Report) *Finding {
	wants := map[kernel.Mode][]string{}
	for _, comm := range f.Host.Neighbours {
		mode := opinions()[comm]
		wants[mode] = append(wants[mode], comm)
	}
	if len(wants) < 2 {
		return nil
	}
	return &Finding{
		"neighbours-conflict", isWarning, "programs on this host are advised to want different modes",
		fmt.Sprintf("mode 1 is advised for %s, mode 2 for %s; the setting is one for all. Ask 'overcheck pid' of each what it really needs",
			strings.Join(wants[kernel.Always], " and "), strings.Join(wants[kernel.Never], " and ")),
	}
}

// noreserveNotCharged: most of the process is not charged at all.
func noreserveNotCharged(f kernel.Facts, r Report) *Finding {
	p := f.Process
	if p.Restart || p.MayBeCharged > 0 || p.Noreserve == nil || *p.Noreserve < 64*size.MiB || *p.Noreserve < p.Charge {
		return nil
	}
	redis := ""
	if r.Spawn != nil && r.Spawn.snapshots() {
		redis = ". Its warning that memory overcommit must be enabled looks at the setting alone, and does not know this"
	}
	return &Finding{
		"noreserve-not-charged", isInfo, fmt.Sprintf("a fork is charged %s, though %s more is mapped", p.Charge, *p.Noreserve),
		"the rest is mapped MAP_NORESERVE, as jemalloc does outside mode 2" + redis,
	}
}

// thpAndFork: since 5.8 a write after fork copies 4 KiB of a huge page, before it
// 2 MiB (mm/huge_memory.c: do_huge_pmd_wp_page).
func thpAndFork(f kernel.Facts, r Report) *Finding {
	if f.Host.THP != "always" || r.Spawn == nil || !r.Spawn.mayFork() {
		return nil
	}
	release, err := kernel.ParseRelease(f.Host.Release)
	if err != nil {
		return nil
	}
	if release.AtLeast(5, 8) {
		return &Finding{
			"thp-and-fork", isInfo, "transparent huge pages are on, and make fork faster",
			"since Linux 5.8 a write after fork copies 4 KiB, not 2 MiB: warnings that say otherwise are about older kernels",
		}
	}
	return &Finding{
		"thp-and-fork", isWarning, "transparent huge pages make copy-on-write dearer on this kernel",
		"before Linux 5.8 a write after fork copies 2 MiB where it would copy 4 KiB",
	}
}

// swapAbsent matters where something is short.
func swapAbsent(f kernel.Facts, r Report) *Finding {
	if f.Host.SwapTotal > 0 || r.Current().Outcome == kernel.Succeeds && (r.Survival == nil || r.Survival.fits()) {
		return nil
	}
	return &Finding{
		"swap-absent", isInfo, "there is no swap",
		"it would raise the commit limit, the largest mapping that mode 0 admits, and what copy-on-write may take, each by its size",
	}
}

func containerView(f kernel.Facts, _ Report) *Finding {
	if f.Host.Container == "" {
		return nil
	}
	return &Finding{
		"container-view", isInfo, "overcheck runs in a container: vm.* is the host's and cannot be changed from here",
		f.Host.Container + ". The mode, CommitLimit and Committed_AS are those of the whole host; its administrator must change them",
	}
}

// check returns one of the checks.
func (r Report) check(id string) kernel.Check {
	for _, c := range r.Checks {
		if c.ID == id {
			return c
		}
	}
	return kernel.Check{}
}
