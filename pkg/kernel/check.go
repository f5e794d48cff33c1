package kernel

import (
	"fmt"
	"slices"
	"strings"

	"github.com/overcheck/overcheck/pkg/size"
)

// Check is one obstacle to fork() other than the commit check.
type Check struct {
	ID      string  `json:"id"`
	Outcome Outcome `json:"verdict"`
	Errno   *Errno  `json:"errno"` // nil unless it fails; nil also where it kills instead
	// Used and Limit are counts (of tasks, of process ids); nil where the check
	// counts bytes, where nothing was read, and Limit where there is none.
	Used  *int64 `json:"used"`
	Limit *int64 `json:"limit"`
	// NeedBytes and LimitBytes take their place where memory is compared.
	NeedBytes  *size.Bytes `json:"need_bytes"`
	LimitBytes *size.Bytes `json:"limit_bytes"`
	Where      string      `json:"where"`  // the limit's name, and its cgroup
	Reason     string      `json:"reason"` // why it fails or is uncertain, or why it cannot fail
}

// AfterCommit is the check that the commit check comes right before: both happen
// in dup_mmap, mapping by mapping.
const AfterCommit = "memory-cgroup"

// Checks judges the obstacles in the order in which copy_process
// (kernel/fork.c) meets them; the commit check (Admit) belongs before AfterCommit.
func (f Facts) Checks() []Check {
	checks := []Check{f.nproc(), f.threadsMax()}
	if f.Process.Deadline {
		checks = append(checks, f.schedPolicy())
	}
	return append(checks, f.memoryCgroup(), f.pidMax(), f.pidNamespace(), f.pidsCgroup())
}

// fail and doubt return c decided that way.
func (c Check) fail(e Errno, reason string) Check {
	c.Outcome, c.Errno, c.Reason = Fails, &e, reason
	return c
}

func (c Check) doubt(reason string) Check {
	c.Outcome, c.Reason = Uncertain, reason
	return c
}

func (c Check) pass(reason string) Check {
	c.Outcome, c.Reason = Succeeds, reason
	return c
}

const ownReason = "overcheck's own threads, which are among these, may be what fills it"

// nproc is RLIMIT_NPROC: copy_process fails with EAGAIN when the tasks of the
// real uid, the new one included, exceed the soft limit, unless the user is
// global root or has CAP_SYS_RESOURCE or CAP_SYS_ADMIN in the initial user
// namespace. Since 5.14 the count is per user namespace, and the limit of each
// ancestor's creator counts too (kernel/ucount.c: is_rlimit_overlimit).
func (f Facts) nproc() Check {
	p := f.Process
	c := Check{ID: "rlimit-nproc", Where: fmt.Sprintf("RLIMIT_NPROC of uid %d", p.UID)}
	if p.NprocExempt != nil && *p.NprocExempt {
		return c.pass("exempt: root, or CAP_SYS_RESOURCE, or CAP_SYS_ADMIN")
	}
	r, err := ParseRelease(f.Host.Release)
	ancestors := err != nil || r.AtLeast(5, 14)
	nested := p.InitialUserNS == nil || !*p.InitialUserNS
	switch {
	case p.NprocLimit == nil:
		return c.doubt("the limit could not be read")
	case ancestors && nested && !p.NprocLimit.Unlimited && p.UIDTasksMin != nil && *p.UIDTasksMin+p.Living() > p.NprocLimit.Value:
		// below: the process's own limit decides already
	case ancestors && nested:
		return c.doubt("the process may be in a user namespace, whose creator's limit counts as well and cannot be read")
	case p.NprocLimit.Unlimited:
		return c.pass("unlimited")
	}
	c.Limit = &p.NprocLimit.Value
	c.Used = p.UIDTasksMin
	if p.UIDTasksMin == nil {
		return c.doubt("the tasks of this uid could not be counted")
	}
	switch limit := *c.Limit; {
	case *p.UIDTasksMin+p.Living() > limit && p.NprocExempt == nil:
		return c.doubt("the limit is reached, and whether the process is exempt is not known")
	case *p.UIDTasksMin+p.Living() > limit:
		return c.fail(EAGAIN, "this user has as many tasks (threads count) as it may")
	case p.UIDTasksMax == nil:
		return c.doubt("not all tasks of this uid can be seen from here")
	case *p.UIDTasksMax+p.Living() > limit:
		c.Used = p.UIDTasksMax
		return c.doubt("some of these tasks may belong to another user namespace and not count")
	}
	return c.pass("")
}

// threadsMax is kernel.threads-max: copy_process fails with EAGAIN when
// nr_threads >= max_threads; root is not exempt.
func (f Facts) threadsMax() Check {
	h := f.Host
	c := Check{ID: "threads-max", Where: "kernel.threads-max", Used: h.Threads, Limit: h.ThreadsMax}
	switch {
	case h.LoadavgRewritten:
		c.Used = nil
		return c.doubt("lxcfs shows this container's threads; the kernel counts the host's: run on the host")
	case h.Threads == nil || h.ThreadsMax == nil:
		return c.doubt("kernel.threads-max or /proc/loadavg could not be read")
	case *h.Threads-h.OwnThreads+f.Process.Living()-1 >= *h.ThreadsMax:
		return c.fail(EAGAIN, "the host has as many threads as it may")
	case *h.Threads+f.Process.Living()-1 >= *h.ThreadsMax:
		return c.doubt(ownReason)
	}
	return c.pass("")
}

// schedPolicy: a SCHED_DEADLINE task may not fork unless it asked for
// SCHED_FLAG_RESET_ON_FORK, which /proc does not show (kernel/sched/core.c:
// sched_fork).
func (f Facts) schedPolicy() Check {
	return Check{ID: "sched-policy", Where: "SCHED_DEADLINE"}.
		doubt("a SCHED_DEADLINE task gets EAGAIN unless it has SCHED_FLAG_RESET_ON_FORK, which cannot be read")
}

// memoryCgroup compares the page tables that the child needs with the room in
// each ancestor's memory controller. Page tables are charged since 4.9. A fork
// that does not fit is killed by the cgroup's OOM killer since 4.19, and got
// ENOMEM from 3.12 on before that (mm/memcontrol.c: mem_cgroup_oom).
func (f Facts) memoryCgroup() Check {
	h, p := f.Host, f.Process
	c := Check{ID: AfterCommit, Where: "memory.max"}
	r, err := ParseRelease(h.Release)
	if err == nil && !r.AtLeast(4, 9) {
		return c.pass("page tables are not charged to cgroups before Linux 4.9")
	}
	if p.WithoutFork {
		return c.pass("no fork: no page tables are copied")
	}
	need := (p.PageTables + forkOverhead + size.Bytes(p.MappingCount)*vmaSize) * size.Bytes(p.Living())
	c = c.pass("unlimited")
	c.NeedBytes = &need
	for _, g := range p.Memory {
		level := f.memoryLevel(c, g)
		if level.LimitBytes == nil {
			continue
		}
		if c.LimitBytes == nil || worse(level.Outcome, c.Outcome) || level.Outcome == c.Outcome && *level.LimitBytes < *c.LimitBytes {
			c = level
		}
	}
	if p.MemoryUnseen != "" && c.Outcome != Fails {
		return c.doubt(p.MemoryUnseen)
	}
	return c
}

// memoryLevel judges c.NeedBytes against one ancestor.
func (f Facts) memoryLevel(c Check, g MemoryCgroup) Check {
	free := g.free()
	room, _ := g.Room(f.Host)
	c.LimitBytes, c.Where = &free, "memory.max of "+g.Path
	r, err := ParseRelease(f.Host.Release)
	switch {
	case g.KmemRoom != nil && *c.NeedBytes > *g.KmemRoom && (err != nil || !r.AtLeast(5, 16)):
		c.LimitBytes, c.Where = g.KmemRoom, "memory.kmem.limit_in_bytes of "+g.Path
		if f.leastPageTables() > *g.KmemRoom {
			return c.fail(ENOMEM, "no room for the child's page tables")
		}
		return c.doubt("it depends on how much of its page tables fork copies")
	case g.Max.Unlimited:
		c.LimitBytes, c.Where = nil, "memory.max"
		return c.pass("unlimited")
	case *c.NeedBytes > free && g.Rough:
		return c.doubt("how much of what the cgroup holds can be reclaimed was not read")
	case *c.NeedBytes <= free:
		return c.pass("")
	case *c.NeedBytes <= free+g.File+g.SlabReclaimable:
		return c.pass("after reclaiming page cache")
	case f.leastPageTables() <= room:
		return c.doubt("it depends on how much of its page tables fork copies and on what can be swapped out")
	case err == nil && r.AtLeast(4, 19):
		c.Outcome, c.Reason = Fails, "no room for the child's page tables: the cgroup's OOM killer strikes, there is no errno"
		return c
	}
	return c.fail(ENOMEM, "no room for the child's page tables")
}

// worse reports whether a weighs more than b in a verdict.
func worse(a, b Outcome) bool { return a != b && Worst(a, b) == a }

// What one fork takes besides page tables: a kernel stack, task_struct and the
// like; and a vm_area_struct for each mapping.
const (
	forkOverhead = 26 * size.KiB
	vmaSize      = 200 * size.B
)

// leastPageTables is what the child's page tables take if the anonymous pages
// that it surely gets lie as densely as they can: an entry of 8 bytes each. 0
// where smaps was not read.
func (f Facts) leastPageTables() (b size.Bytes) {
	for _, m := range f.Mappings {
		anonymous := m.Path == "" || strings.HasPrefix(m.Path, "[")
		if anonymous && !slices.Contains(strings.Fields(m.Flags), "wf") {
			b += m.Resident / f.Host.PageSize * 8
		}
	}
	return b
}

// free is what the cgroup may still take without reclaiming anything.
func (g MemoryCgroup) free() size.Bytes { return max(size.Bytes(g.Max.Value)-g.Current, 0) }

// Room is how much more memory the cgroup can take before its OOM killer
// strikes; limited is false where it has no limit.
func (g MemoryCgroup) Room(h Host) (room size.Bytes, limited bool) {
	if g.Max.Unlimited {
		return 0, false
	}
	if g.V1 && g.SwapMax != nil && !g.SwapMax.Unlimited {
		// memsw bounds RAM and swap together.
		together := max(size.Bytes(g.SwapMax.Value)-g.SwapCurrent, 0)
		return g.File + g.SlabReclaimable + min(g.free()+h.SwapFree, together), true
	}
	return g.free() + g.File + g.SlabReclaimable + g.swapRoom(h), true
}

// swapRoom is how much of the cgroup could move to swap: what is free of it, less a
// sixteenth, for a page that was swapped in again keeps its slot for a while. Near
// the limit not all of it was to be had, on Linux 7.3 with four CPUs.
func (g MemoryCgroup) swapRoom(h Host) size.Bytes {
	room := h.SwapFree
	if g.SwapMax != nil && !g.SwapMax.Unlimited {
		room = min(room, size.Bytes(g.SwapMax.Value)-g.SwapCurrent)
	}
	return max(room-room/16, 0)
}

// reservedPids is RESERVED_PIDS (kernel/pid.c): ids below it are not used again
// once pid_max was reached for the first time.
const reservedPids = 300

// pidMax is kernel.pid_max: alloc_pid fails when every id below it is taken,
// with EAGAIN since 4.4 and ENOMEM in 4.0 and before. Threads take an id each;
// so do process groups and sessions that outlived their leader, which are not
// counted here, hence the doubt near the limit. Since 6.14 a pid namespace may
// have a lower pid_max of its own; it cannot be read from outside, and is taken
// as not set.
func (f Facts) pidMax() Check {
	h := f.Host
	c := Check{ID: "pid-max", Where: "kernel.pid_max", Used: h.Threads, Limit: h.PidMax}
	r, err := ParseRelease(h.Release)
	switch {
	case h.LoadavgRewritten:
		c.Used = nil
		return c.doubt("lxcfs shows this container's threads; the kernel counts the host's: run on the host")
	case h.Threads == nil || h.PidMax == nil:
		return c.doubt("kernel.pid_max or /proc/loadavg could not be read")
	case *h.Threads-h.OwnThreads >= *h.PidMax-1 && (err != nil || r.AtLeast(6, 14)):
		return c.doubt("the threads of the whole host are more than this limit, which may be this pid namespace's alone")
	case *h.Threads-h.OwnThreads >= *h.PidMax-1:
		e := EAGAIN
		if !r.AtLeast(4, 4) {
			e = ENOMEM
		}
		return c.fail(e, "every process id is taken")
	case *h.Threads+*h.Threads/8 >= *h.PidMax-reservedPids:
		return c.doubt("process ids are nearly used up; ids that process groups and sessions hold are not counted")
	}
	return c.pass("")
}

// pidNamespace: alloc_pid fails with ENOMEM in a pid namespace whose init has
// exited (kernel/pid.c: "documented behavior").
func (f Facts) pidNamespace() Check {
	c := Check{ID: "pid-namespace", Where: "init of the children's pid namespace"}
	switch dead := f.Process.PidNSInitDead; {
	case dead == nil:
		return c.doubt("whether it is alive could not be read")
	case *dead:
		return c.fail(ENOMEM, "it has exited: nothing can be forked into this namespace any more")
	}
	return c.pass("")
}

// pidsCgroup is pids.max of every ancestor (kernel/cgroup/pids.c:
// pids_can_fork, since 4.3): EAGAIN when a level's current+1 exceeds its max. It
// is tested after the whole address space was copied.
func (f Facts) pidsCgroup() Check {
	p := f.Process
	c := Check{ID: "pids-cgroup", Where: "pids.max"}
	var own int64
	for _, g := range p.Pids {
		if g.Max.Unlimited {
			continue
		}
		// Name the level with the least room.
		if c.Limit == nil || g.Max.Value-(g.Current-g.Own) < *c.Limit-(*c.Used-own) {
			c.Used, c.Limit, c.Where, own = &g.Current, &g.Max.Value, "pids.max of "+g.Path, g.Own
		}
	}
	switch {
	case c.Limit != nil && *c.Used-own+p.Living() > *c.Limit:
		return c.fail(EAGAIN, "the cgroup has as many tasks as it may")
	case c.Limit != nil && *c.Used+p.Living() > *c.Limit:
		return c.doubt(ownReason)
	case p.PidsUnseen != "":
		return c.doubt(p.PidsUnseen)
	case c.Limit == nil:
		return c.pass("unlimited")
	}
	return c.pass("")
}
