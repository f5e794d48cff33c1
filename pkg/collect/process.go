package collect

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/prometheus/procfs"

	"github.com/overcheck/overcheck/pkg/kernel"
	"github.com/overcheck/overcheck/pkg/size"
	"github.com/overcheck/overcheck/pkg/smaps"
)

// Errors that the caller may want to tell apart; they come wrapped with the pid.
var (
	// ErrExited: the process was there when reading began, and is not, or its pid
	// is another's.
	ErrExited = errors.New("exited")
	// ErrNoProcess: there never was one.
	ErrNoProcess = errors.New("no such process")
	// ErrCannotFork: a zombie or a kernel thread has no memory to copy.
	ErrCannotFork = errors.New("it has no memory of its own and cannot call fork()")
	// ErrThread: the id is that of a thread, not of a process.
	ErrThread = errors.New("a thread")
)

// Process reads the facts about one process, all but its mappings: those are
// bounded by its status until Maps or Smaps has read more.
func (c *Collector) Process(pid int, h kernel.Host) (kernel.Process, error) {
	p := kernel.Process{PID: pid, MappedIn: h.Mode}
	err := c.same(&p, func() error { return c.process(&p, h) })
	return p, err
}

// Maps reads maps, and mends p: closer bounds, at next to no cost to the
// process. Where maps may not be read, p stays as it is.
func (c *Collector) Maps(p *kernel.Process) error {
	return c.same(p, func() error {
		s, err := c.summary(strconv.Itoa(p.PID), "maps")
		switch {
		case denied(err):
			return nil
		case err != nil:
			return fmt.Errorf("process %d: maps: %w", p.PID, err)
		case s.Count == 0:
			return nil // kernels before 3.x show nobody else's mappings, without an error
		}
		if err := c.whole(p, s); err != nil {
			return err
		}
		setMappings(p, s)
		return nil
	})
}

// whole makes sure that a file of mappings was read to its end: the kernel ends
// it early when the process calls execve meanwhile.
func (c *Collector) whole(p *kernel.Process, s smaps.Summary) error {
	totalVM, err := c.totalVM(strconv.Itoa(p.PID))
	if err == nil && s.TotalVM < min(totalVM, p.TotalVM)/2 {
		err = fmt.Errorf("process %d: its mappings changed while they were read (execve?): try again", p.PID)
	}
	return err
}

// Smaps reads smaps: the mappings that a fork would be charged for, exactly. It
// makes the kernel walk the process's page tables, which costs about 10 ms per
// GiB resident with 4 KiB pages, during which the process cannot map memory. It
// returns the mappings, and mends p.
func (c *Collector) Smaps(p *kernel.Process) (mappings []kernel.Mapping, err error) {
	err = c.same(p, func() error {
		s, err := c.summary(strconv.Itoa(p.PID), "smaps")
		if err != nil {
			return fmt.Errorf("process %d: smaps: %w", p.PID, err)
		}
		if s.Count == 0 {
			return fmt.Errorf("process %d: smaps: empty: %w", p.PID, os.ErrPermission)
		}
		if err := c.whole(p, s); err != nil {
			return err
		}
		setMappings(p, s)
		mappings = s.Mappings
		return nil
	})
	return mappings, err
}

// same runs read and makes sure that p's pid still is the process that it was
// when p was first looked at.
func (c *Collector) same(p *kernel.Process, read func() error) error {
	stat, err := c.stat(p.PID)
	switch {
	case absent(err) && p.StartTime == 0:
		return fmt.Errorf("process %d: %w", p.PID, ErrNoProcess)
	case absent(err), err == nil && p.StartTime != 0 && stat.Starttime != p.StartTime:
		return fmt.Errorf("process %d %w", p.PID, ErrExited)
	case err != nil:
		return fmt.Errorf("process %d: stat: %w", p.PID, err)
	case (stat.State == "Z" || stat.State == "X") && stat.NumThreads > 1:
		return fmt.Errorf("process %d: its main thread has exited while others live: what it maps cannot be read", p.PID)
	case stat.State == "Z" || stat.State == "X":
		return fmt.Errorf("process %d is a zombie: %w", p.PID, ErrCannotFork)
	}
	const kernelThread = 0x00200000 // PF_KTHREAD of include/linux/sched.h
	if stat.Flags&kernelThread != 0 {
		return fmt.Errorf("process %d is a kernel thread: %w", p.PID, ErrCannotFork)
	}
	const schedDeadline = 6
	p.StartTime, p.Comm, p.Deadline = stat.Starttime, strings.ToValidUTF8(stat.Comm, "\uFFFD"), stat.Policy == schedDeadline
	p.Program.PPID = stat.PPID

	readErr := read()
	again, err := c.stat(p.PID)
	switch {
	case absent(err), err == nil && (again.Starttime != stat.Starttime || again.State == "Z" || again.State == "X"):
		return fmt.Errorf("process %d %w", p.PID, ErrExited)
	case readErr != nil:
		return readErr
	case err != nil:
		return fmt.Errorf("process %d: stat: %w", p.PID, err)
	case again.Comm != stat.Comm:
		return fmt.Errorf("process %d: it became %q while it was read (execve): try again", p.PID, again.Comm)
	}
	return nil
}

func (c *Collector) stat(pid int) (procfs.ProcStat, error) {
	p, err := c.fs.Proc(pid)
	if err != nil {
		return procfs.ProcStat{}, err
	}
	return p.Stat()
}

func (c *Collector) process(p *kernel.Process, h kernel.Host) error {
	pid := strconv.Itoa(p.PID)
	text, err := c.read(pid, "status")
	if err != nil {
		return fmt.Errorf("process %d: status: %w", p.PID, err)
	}
	status, err := parseStatus(text)
	if err != nil {
		return fmt.Errorf("process %d: status: %w", p.PID, err)
	}
	switch {
	case status.tgid != 0 && status.tgid != p.PID:
		return fmt.Errorf("process %d: it is %w of process %d", p.PID, ErrThread, status.tgid)
	case status.vmSize == nil:
		return fmt.Errorf("process %d %w", p.PID, ErrExited) // it is dying: no memory any more, not yet a zombie
	}
	if p.TotalVM, err = c.totalVM(pid); err != nil {
		return err
	}
	p.RSS, p.RSSAnon, p.Swap, p.PageTables = status.rss, status.rssAnon, status.swap, status.pageTables

	// VmData and VmStk are the private writable mappings, noreserve ones too; what
	// was made read-only later may be charged and is in neither.
	p.Source = kernel.FromStatus
	p.Charge, p.ChargeMax = min(status.data+status.stack, p.TotalVM), p.TotalVM
	p.Largest, p.LargestMax = p.Charge, p.TotalVM
	c.program(pid, p)
	if text, err := c.read(pid, "oom_score_adj"); err == nil {
		if n, err := strconv.ParseInt(strings.TrimSpace(text), 10, 64); err == nil {
			p.OOMScoreAdj = &n
		}
	}
	return c.surroundings(pid, p, status, h)
}

// setMappings copies a summary of smaps or maps into p.
func setMappings(p *kernel.Process, s smaps.Summary) {
	p.Source = kernel.FromMaps
	p.Charge, p.ChargeMin, p.ChargeMax = s.Charge, 0, s.ChargeMax
	p.Largest, p.LargestMin, p.LargestMax = s.Largest, 0, s.LargestMax
	p.Charged, p.MappingCount = s.Charged, s.Count
	p.Program.Libraries = slices.DeleteFunc(s.Programs, func(name string) bool { return name == p.Program.Exe })
	if s.HasFlags {
		p.Source = kernel.FromSmaps
		p.ChargeMin, p.LargestMin = s.Charge, s.Largest
		p.Noreserve, p.Dontfork = &s.Noreserve, &s.Dontfork
		p.Cow, p.CowHuge = &s.Shared, &s.Huge
	}
}

// Shell returns a small shell started where overcheck runs, by the same user: it
// would be charged 4 MiB. Where procfs does not show overcheck it is root's.
func (c *Collector) Shell(h kernel.Host) (kernel.Process, error) {
	p := kernel.Process{
		Comm: "sh", Source: kernel.Assumed, MappedIn: h.Mode,
		Charge: 4 * size.MiB, ChargeMin: 4 * size.MiB, ChargeMax: 4 * size.MiB,
		Largest: 2 * size.MiB, LargestMin: 2 * size.MiB, LargestMax: 2 * size.MiB,
		Charged: 12, MappingCount: 30, TotalVM: 8 * size.MiB, RSS: 4 * size.MiB, PageTables: 64 * size.KiB,
	}
	text, err := c.read("self", "status")
	if absent(err) {
		yes, no := true, false
		p.CapSysAdmin, p.NprocExempt, p.InitialUserNS, p.PidNSInitDead = &yes, &yes, &yes, &no
		return p, nil
	}
	if err != nil {
		return p, fmt.Errorf("self: status: %w", err)
	}
	status, err := parseStatus(text)
	if err != nil {
		return p, fmt.Errorf("self: status: %w", err)
	}
	return p, c.surroundings("self", &p, status, h)
}

// OwnVM is overcheck's own address space, mm->total_vm.
func (c *Collector) OwnVM() (size.Bytes, error) { return c.totalVM("self") }

// totalVM reads mm->total_vm: the first field of statm, in pages.
func (c *Collector) totalVM(pid string) (size.Bytes, error) {
	text, err := c.read(pid, "statm")
	if err != nil {
		return 0, fmt.Errorf("process %s: statm: %w", pid, err)
	}
	first, _, _ := strings.Cut(text, " ")
	n, err := strconv.ParseInt(first, 10, 52)
	if err != nil || n < 0 {
		return 0, fmt.Errorf("process %s: statm: %q: want pages", pid, strings.TrimSpace(text))
	}
	return size.Bytes(n) * c.pageSize, nil
}

// status is what is needed of /proc/PID/status.
type status struct {
	uid                    int64
	tgid                   int
	threads                int64
	capEff                 uint64
	vmSize                 *size.Bytes // nil: no memory of its own
	rssAnon                *size.Bytes // since 4.5
	rss, swap, data, stack size.Bytes
	pageTables             size.Bytes // VmPTE, plus VmPMD where it is apart (4.0 to 4.14)
}

// parseStatus reads lines such as
//
//	Uid:	1000	1000	1000	1000
//	VmSize:	    2788 kB
//	CapEff:	000001ffffffffff
func parseStatus(s string) (st status, err error) {
	var sawUID, sawCap bool
	for line := range strings.Lines(s) {
		key, value, ok := strings.Cut(strings.TrimSuffix(line, "\n"), ":\t")
		if !ok {
			continue
		}
		bytes := func(to *size.Bytes) {
			kb, unit := strings.CutSuffix(value, " kB")
			n, perr := strconv.ParseInt(strings.TrimSpace(kb), 10, 52)
			if perr != nil || !unit || n < 0 {
				err = errors.Join(err, fmt.Errorf("field %s: %q: want a number of kB", key, value))
			}
			*to += size.Bytes(n) * size.KiB
		}
		switch key {
		case "Uid":
			sawUID = true
			uid, _, _ := strings.Cut(value, "\t")
			if st.uid, err = strconv.ParseInt(uid, 10, 64); err != nil {
				return st, fmt.Errorf("field Uid: %q: want four numbers", value)
			}
		case "Tgid":
			if st.tgid, err = strconv.Atoi(value); err != nil {
				return st, fmt.Errorf("field Tgid: %q: want a number", value)
			}
		case "Threads":
			if st.threads, err = strconv.ParseInt(value, 10, 64); err != nil {
				return st, fmt.Errorf("field Threads: %q: want a number", value)
			}
		case "CapEff":
			sawCap = true
			if st.capEff, err = strconv.ParseUint(value, 16, 64); err != nil {
				return st, fmt.Errorf("field CapEff: %q: want hexadecimal digits", value)
			}
		case "VmSize":
			st.vmSize = new(size.Bytes)
			bytes(st.vmSize)
		case "VmRSS":
			bytes(&st.rss)
		case "RssAnon":
			st.rssAnon = new(size.Bytes)
			bytes(st.rssAnon)
		case "VmSwap":
			bytes(&st.swap)
		case "VmData":
			bytes(&st.data)
		case "VmStk":
			bytes(&st.stack)
		case "VmPTE", "VmPMD":
			bytes(&st.pageTables)
		}
		if err != nil {
			return st, err
		}
	}
	if !sawUID || !sawCap {
		return st, errors.New("field Uid or CapEff: not there")
	}
	return st, nil
}

const (
	capSysAdmin    = 1 << 21
	capSysResource = 1 << 24
)

// surroundings reads what the process stands in: user, namespaces, cgroups.
func (c *Collector) surroundings(pid string, p *kernel.Process, st status, h kernel.Host) error {
	p.UID = st.uid
	p.InitialUserNS = c.initialUserNS(pid)
	p.CapSysAdmin = and(st.capEff&capSysAdmin != 0, p.InitialUserNS)
	p.NprocExempt = c.nprocExempt(p, st)
	if p.NprocExempt == nil || !*p.NprocExempt {
		if err := c.nproc(pid, p, h); err != nil {
			return err
		}
	}
	p.PidNSInitDead = c.pidNSInitDead(pid)
	return c.cgroups(pid, p, h.OwnThreads)
}

// and is a && b where b may be unknown.
func and(a bool, b *bool) *bool {
	if !a {
		return new(bool)
	}
	return b
}

// initialUserNS tells whether the process is in the initial user namespace; nil:
// it cannot be told.
func (c *Collector) initialUserNS(pid string) *bool {
	inode, err := c.link(pid, "ns/user")
	if err == nil {
		return new(inode == initialUserNS)
	}
	uidMap, mapErr := c.read(pid, "uid_map")
	switch {
	case absent(mapErr) && absent(err):
		return new(true) // no user namespaces: before 3.8, or not built in
	case mapErr == nil && strings.Join(strings.Fields(uidMap), " ") != "0 0 4294967295":
		return new(false)
	}
	return nil // an identity map proves nothing
}

// nprocExempt: global root, or privileged in the initial user namespace. A uid
// of 0 is global root's only if overcheck itself sees global uids.
func (c *Collector) nprocExempt(p *kernel.Process, st status) *bool {
	privileged := and(st.capEff&(capSysAdmin|capSysResource) != 0, p.InitialUserNS)
	if p.UID != 0 || privileged != nil && *privileged {
		return privileged
	}
	if here := c.initialUserNS("self"); here == nil || *here {
		return here
	}
	return nil
}

// nproc reads RLIMIT_NPROC and counts the tasks that it limits.
func (c *Collector) nproc(pid string, p *kernel.Process, h kernel.Host) error {
	text, err := c.read(pid, "limits")
	switch {
	case denied(err):
		return nil
	case err != nil:
		return fmt.Errorf("process %s: limits: %w", pid, err)
	}
	soft, hard, err := parseNprocLimit(text)
	if err != nil {
		return fmt.Errorf("process %s: limits: %w", pid, err)
	}
	p.NprocLimit, p.NprocHard = &soft, &hard
	if soft.Unlimited {
		return nil
	}
	return c.countTasks(pid, p, h)
}

// parseNprocLimit returns the soft limit of the line
//
//	Max processes             94268                94268                processes
func parseNprocLimit(s string) (soft, hard kernel.Limit, err error) {
	for line := range strings.Lines(s) {
		rest, ok := strings.CutPrefix(line, "Max processes")
		if !ok {
			continue
		}
		f := strings.Fields(rest)
		for i, to := range []*kernel.Limit{&soft, &hard} {
			var err error
			if to.Unlimited = i < len(f) && f[i] == "unlimited"; i < len(f) && !to.Unlimited {
				to.Value, err = strconv.ParseInt(f[i], 10, 64)
			}
			if err != nil || i >= len(f) {
				return soft, hard, fmt.Errorf("field Max processes: %q: want two numbers or unlimited", strings.TrimSpace(rest))
			}
		}
		return soft, hard, nil
	}
	return soft, hard, errors.New("field Max processes: not there")
}

// countTasks bounds the tasks that count against the process's RLIMIT_NPROC.
//
// Before 5.14 all tasks of the real uid count. Since then those in the same user
// namespace do, and in addition whatever lives in namespaces that this user
// created, under any uid: those may count.
func (c *Collector) countTasks(pid string, p *kernel.Process, h kernel.Host) error {
	r, err := kernel.ParseRelease(h.Release)
	perNamespace := err != nil || r.AtLeast(5, 14)
	mine := ""
	if perNamespace {
		mine, _ = c.link(pid, "ns/user")
	}
	self, _ := os.Readlink(filepath.Join(c.proc, "self"))
	var least, most int64
	err = c.each(func(other string) error {
		if other == self {
			return nil // overcheck will be gone
		}
		text, err := c.read(other, "status")
		if err != nil {
			return nil // it exited
		}
		st, err := parseStatus(text)
		if err != nil {
			return nil
		}
		if !perNamespace {
			if st.uid == p.UID {
				least += st.threads
				most += st.threads
			}
			return nil
		}
		ns, _ := c.link(other, "ns/user") // "": it may not be read
		switch same := st.uid == p.UID; {
		case same && ns == mine && ns != "":
			least += st.threads
			most += st.threads
		case same, ns != initialUserNS && st.uid != 0: // no namespace of another user's maps root
			most += st.threads
		}
		return nil
	})
	if err != nil {
		return err
	}
	p.UIDTasksMin = &least
	if !c.hidden() {
		p.UIDTasksMax = &most
	}
	return nil
}

// hidden reports whether procfs may keep processes from overcheck: it shows a
// pid namespace that is not the initial one, or is mounted with hidepid.
func (c *Collector) hidden() bool {
	if ns, err := c.link("self", "ns/pid"); err == nil && ns != initialPidNS {
		return true
	}
	return slices.ContainsFunc(c.mounts, func(m *procfs.MountInfo) bool {
		hide := m.SuperOptions["hidepid"]
		return m.FSType == "proc" && m.MountPoint == c.proc && hide != "" && hide != "0" && hide != "off"
	})
}

// each calls fn with every process id below /proc.
func (c *Collector) each(fn func(pid string) error) error {
	d, err := os.Open(c.proc)
	if err != nil {
		return err
	}
	defer func() { _ = d.Close() }() // opened for reading
	names, err := d.Readdirnames(-1)
	if err != nil {
		return err
	}
	for _, name := range names {
		if _, err := strconv.Atoi(name); err != nil {
			continue
		}
		if err := fn(name); err != nil {
			return err
		}
	}
	return nil
}

// pidNSInitDead tells whether the pid namespace that the process's children
// would join has lost its init; nil: it cannot be told. A process's own pid
// namespace has a live init, or the process would be dead too.
func (c *Collector) pidNSInitDead(pid string) *bool {
	children, err := c.link(pid, "ns/pid_for_children")
	if absent(err) {
		return new(false) // before 4.12; or a new namespace: the next child becomes its init
	}
	own, ownErr := c.link(pid, "ns/pid")
	if denied(err) || denied(ownErr) {
		return new(false) // another than its own only after unshare or setns: taken as not done
	}
	if err != nil || ownErr != nil {
		return nil
	}
	if children == own {
		return new(false)
	}
	alive, all := false, true
	if err := c.each(func(other string) error {
		if alive {
			return nil
		}
		ns, err := c.link(other, "ns/pid")
		all = all && !denied(err)
		if ns == children {
			text, _ := c.read(other, "status")
			alive = isInit(text)
		}
		return nil
	}); err != nil || !alive && (!all || c.hidden()) {
		return nil
	}
	return new(!alive)
}

// isInit tells from a status file whether the process is a live init of its pid
// namespace: the last number of "NSpid:	4127	1" is 1.
func isInit(status string) bool {
	var init, dead bool
	for line := range strings.Lines(status) {
		key, value, _ := strings.Cut(line, ":")
		f := strings.Fields(value)
		switch {
		case key == "NSpid" && len(f) > 0:
			init = f[len(f)-1] == "1"
		case key == "State" && len(f) > 0:
			dead = f[0] == "Z" || f[0] == "X"
		}
	}
	return init && !dead
}

// Find returns the processes that match says yes to, in order of their pids:
// match gets the comm and the cgroup paths of each. overcheck itself is left out.
func (c *Collector) Find(match func(comm string, cgroups []string) bool) (pids []int, err error) {
	self, _ := os.Readlink(filepath.Join(c.proc, "self"))
	err = c.each(func(pid string) error {
		if pid == self {
			return nil
		}
		comm, err := c.read(pid, "comm")
		if err != nil {
			return nil // it exited
		}
		text, _ := c.read(pid, "cgroup")
		var paths []string
		for line := range strings.Lines(text) {
			if f := strings.SplitN(strings.TrimSuffix(line, "\n"), ":", 3); len(f) == 3 {
				paths = append(paths, f[2])
			}
		}
		if match(strings.TrimSuffix(comm, "\n"), paths) {
			n, _ := strconv.Atoi(pid)
			pids = append(pids, n)
		}
		return nil
	})
	slices.Sort(pids)
	return pids, err
}
