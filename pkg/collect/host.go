package collect

import (
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

// Host reads the facts about the machine. old asks for the inputs of the old
// mode-0 rule even where the kernel that runs has the new one.
func (c *Collector) Host(old bool) (kernel.Host, error) {
	h := kernel.Host{PageSize: c.pageSize}
	for _, s := range []struct {
		name string
		to   *string
	}{{"sys/kernel/osrelease", &h.Release}, {"sys/kernel/version", &h.Version}} {
		text, err := c.read(s.name)
		if err != nil {
			return h, err
		}
		*s.to = strings.TrimSpace(text)
	}
	_, err := os.Stat(filepath.Join(c.proc, "sys/vm/nr_trim_pages")) // kernel/sysctl.c: only with CONFIG_MMU=n
	h.NoMMU = err == nil
	if err := c.sysctls(&h); err != nil {
		return h, err
	}
	if h.CPUsOnline, err = c.cpus("online"); err != nil {
		return h, err
	}
	if h.CPUsPresent, err = c.cpus("present"); err != nil {
		return h, err
	}
	if err := c.loadavg(&h); err != nil {
		return h, err
	}
	c.rewritten(&h)
	if old || oldRule(h) {
		if h.Old, err = c.oldInputs(); err != nil {
			return h, err
		}
	}
	h.PresentRAM = c.presentRAM()
	if h.MeminfoRewritten {
		h.CPUsOnline = h.CPUsPresent // lxcfs rewrites that too
	}
	enforce, _ := readFile(filepath.Join(c.sys, "fs/selinux/enforce")) // absent: no SELinux
	h.SELinuxEnforcing = strings.TrimSpace(enforce) == "1"
	h.THP = c.thp()
	h.Container = c.container()
	return h, c.Commit(&h)
}

// OutOfMemory reads what the host does when it is out of memory, which only
// matters to a process that forks: the host itself is read without it.
func (c *Collector) OutOfMemory(h *kernel.Host) error {
	for name, to := range map[string]**int64{"vm.swappiness": &h.Swappiness, "vm.panic_on_oom": &h.PanicOnOOM, "vm.oom_kill_allocating_task": &h.OOMKillAllocating} {
		var err error
		if *to, err = c.integer(name); err != nil {
			return err
		}
	}
	return nil
}

// integer reads a sysctl of one number; nil: there is none.
func (c *Collector) integer(name string) (*int64, error) {
	v, err := c.fs.SysctlInts(name)
	switch {
	case absent(err):
		return nil, nil
	case err != nil:
		return nil, fmt.Errorf("sysctl %s: %w", name, err)
	case len(v) != 1 || v[0] < 0:
		return nil, fmt.Errorf("sysctl %s: %v: want one number", name, v)
	}
	return new(int64(v[0])), nil
}

// sysctls reads vm.* and the limits of the process table, a file at a time. All
// but the mode and the ratio are optional: each came with some version.
func (c *Collector) sysctls(h *kernel.Host) error {
	for _, s := range []struct {
		name     string
		required bool
		set      func(int64)
	}{
		{"vm.overcommit_memory", true, func(n int64) { h.Mode = kernel.Mode(n) }},
		{"vm.overcommit_ratio", true, func(n int64) { h.OvercommitRatio = n }},
		{"vm.overcommit_kbytes", false, func(n int64) { h.OvercommitKbytes = new(kernel.KiloBytes(uint64(n))) }},
		{"vm.admin_reserve_kbytes", false, func(n int64) { h.AdminReserve = new(kernel.KiloBytes(uint64(n))) }},
		{"vm.user_reserve_kbytes", false, func(n int64) { h.UserReserve = new(kernel.KiloBytes(uint64(n))) }},
		{"kernel.threads-max", false, func(n int64) { h.ThreadsMax = &n }},
		{"kernel.pid_max", false, func(n int64) { h.PidMax = &n }},
		{"vm.max_map_count", false, func(n int64) { h.MaxMapCount = &n }},
	} {
		n, err := c.integer(s.name)
		switch {
		case err != nil:
			return err
		case n != nil:
			s.set(*n)
		case s.required && h.Inapplicable() == "":
			return fmt.Errorf("sysctl %s: not there: is %s the /proc of a Linux host?", s.name, c.proc)
		}
	}
	if !slices.Contains(kernel.Modes(), h.Mode) {
		return fmt.Errorf("sysctl vm.overcommit_memory: %d: want 0, 1 or 2", h.Mode)
	}
	return nil
}

// cpus counts the processors of a mask such as present or online. Without sysfs
// it counts those that /proc/stat lists.
func (c *Collector) cpus(mask string) (int, error) {
	name := filepath.Join(c.sys, "devices/system/cpu", mask)
	text, err := readFile(name)
	if err == nil {
		n, err := parseCPUList(strings.TrimSpace(text))
		if err != nil {
			return 0, fmt.Errorf("%s: %w", name, err)
		}
		return n, nil
	}
	stat, err := c.read("stat")
	if err != nil {
		return 0, fmt.Errorf("%s: %w", name, err)
	}
	return max(strings.Count(stat, "\ncpu"), 1), nil
}

// parseCPUList counts the members of a list like "0-3,8,10-11".
func parseCPUList(s string) (n int, err error) {
	for part := range strings.SplitSeq(s, ",") {
		first, last, isRange := strings.Cut(part, "-")
		if !isRange {
			last = first
		}
		a, err := strconv.Atoi(first)
		if err != nil {
			return 0, fmt.Errorf("cpu list %q: want a list like 0-3,8", s)
		}
		b, err := strconv.Atoi(last)
		if err != nil || b < a {
			return 0, fmt.Errorf("cpu list %q: want a list like 0-3,8", s)
		}
		n += b - a + 1
	}
	return n, nil
}

// loadavg reads nr_threads.
func (c *Collector) loadavg(h *kernel.Host) error {
	text, err := c.read("loadavg")
	if err != nil {
		return err
	}
	n, err := parseLoadavgThreads(text)
	if err != nil {
		return fmt.Errorf("loadavg: %w", err)
	}
	h.Threads = &n
	h.OwnThreads = c.ownThreads()
	return nil
}

// ownThreads counts overcheck's own threads; 0 where procfs does not show it.
func (c *Collector) ownThreads() int64 {
	text, err := c.read("self", "status")
	if err != nil {
		return 0
	}
	st, err := parseStatus(text)
	if err != nil {
		return 0
	}
	return st.threads
}

// parseLoadavgThreads returns 123 of "0.00 0.01 0.05 1/123 4567".
func parseLoadavgThreads(s string) (int64, error) {
	if f := strings.Fields(s); len(f) == 5 {
		if _, threads, ok := strings.Cut(f[3], "/"); ok {
			if n, err := strconv.ParseInt(threads, 10, 64); err == nil && n > 0 {
				return n, nil
			}
		}
	}
	return 0, fmt.Errorf("%q: want five fields, the fourth RUNNING/THREADS", strings.TrimSpace(s))
}

// rewritten looks for lxcfs, which shows a container its own share in place of
// the host's numbers.
func (c *Collector) rewritten(h *kernel.Host) {
	for _, m := range c.mounts {
		if m.FSType != "fuse.lxcfs" {
			continue
		}
		switch m.MountPoint {
		case filepath.Join(c.proc, "meminfo"):
			h.MeminfoRewritten = true
		case filepath.Join(c.proc, "loadavg"):
			h.LoadavgRewritten = true
		}
	}
}

// oldInputs reads what the mode-0 rule of before Linux 5.2 compares with.
func (c *Collector) oldInputs() (*kernel.OldInputs, error) {
	text, err := c.read("vmstat")
	if denied(err) || absent(err) {
		return nil, nil // then mode 0 cannot be judged; the other modes can
	}
	if err != nil {
		return nil, err
	}
	o, err := parseVmstat(text)
	if err != nil {
		return nil, fmt.Errorf("vmstat: %w", err)
	}
	zones, err := c.fs.Zoneinfo()
	if denied(err) || absent(err) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	if o.TotalReserve, err = totalReserve(zones); err != nil {
		return nil, fmt.Errorf("zoneinfo: %w", err)
	}
	return &o, nil
}

// parseVmstat picks the counters from lines like "nr_free_pages 6137886".
func parseVmstat(s string) (o kernel.OldInputs, err error) {
	seen := 0
	for line := range strings.Lines(s) {
		name, value, ok := strings.Cut(strings.TrimSpace(line), " ")
		if !ok || !strings.HasPrefix(name, "nr_") {
			continue
		}
		var to *int64
		switch name {
		case "nr_free_pages":
			to = &o.FreePages
		case "nr_file_pages":
			to = &o.FilePages
		case "nr_shmem":
			to = &o.Shmem
		case "nr_slab_reclaimable":
			to = &o.SlabReclaimable
		case "nr_slab_unreclaimable":
			to = &o.SlabUnreclaimable
		case "nr_kernel_misc_reclaimable":
			o.KernelMiscReclaimable = new(int64)
			to = o.KernelMiscReclaimable
			seen--
		default:
			continue
		}
		if *to, err = strconv.ParseInt(value, 10, 64); err != nil {
			return o, fmt.Errorf("%s: %q: want a number", name, value)
		}
		seen++
	}
	if seen != 5 {
		return o, fmt.Errorf("want nr_free_pages, nr_file_pages, nr_shmem, nr_slab_reclaimable and nr_slab_unreclaimable: %d of them there", seen)
	}
	return o, nil
}

// totalReserve is totalreserve_pages: for every zone the high watermark and the
// largest lowmem reserve, but no more than the zone has (mm/page_alloc.c:
// calculate_totalreserve_pages). Before 3.9 zoneinfo prints no managed pages and
// the kernel uses the present ones.
func totalReserve(zones []procfs.Zoneinfo) (total int64, err error) {
	for _, z := range zones {
		if z.Zone == "" {
			continue
		}
		pages := z.Managed
		if pages == nil {
			pages = z.Present
		}
		if pages == nil || z.High == nil {
			return 0, fmt.Errorf("node %s, zone %s: high or managed missing", z.Node, z.Zone)
		}
		var protection int64
		for _, p := range z.Protection {
			if p != nil {
				protection = max(protection, *p)
			}
		}
		total += min(*z.High+protection, *pages)
	}
	if len(zones) == 0 || total == 0 {
		return 0, fmt.Errorf("no zones")
	}
	return total, nil
}

// presentRAM is the RAM that the zones span, 0 if that cannot be read: lines like
// "        present  782336", in pages. It does not shrink with a balloon, as
// MemTotal does, and lxcfs does not rewrite it.
func (c *Collector) presentRAM() (ram size.Bytes) {
	text, _ := c.read("zoneinfo")
	for {
		_, after, found := strings.Cut(text, "\n        present ")
		if !found {
			return ram
		}
		value, rest, _ := strings.Cut(after, "\n")
		n, _ := strconv.ParseInt(strings.TrimSpace(value), 10, 48) // one that is no number adds nothing
		ram += size.Bytes(n) * c.pageSize
		text = "\n" + rest
	}
}

// Commit reads meminfo, and before it overcheck's own charge, for as long as
// overcheck maps more meanwhile: a heap arena of 4 MiB may come at any time.
func (c *Collector) Commit(h *kernel.Host) error {
	const tries = 8
	var own smaps.Summary
	for range tries {
		var err error
		if own, err = c.summary("self", "smaps"); err != nil && !absent(err) {
			return fmt.Errorf("self: smaps: %w", err)
		}
		m, err := c.fs.Meminfo()
		if err != nil {
			return fmt.Errorf("meminfo: %w", err)
		}
		if err := setMeminfo(h, m); err != nil {
			return fmt.Errorf("meminfo: %w", err)
		}
		after, err := c.summary("self", "maps") // a hundredth of the price of smaps
		if err != nil && !absent(err) {
			return fmt.Errorf("self: maps: %w", err)
		}
		if after.Writable == own.Writable {
			break
		}
	}
	// Where Committed_AS does not know of overcheck (another machine's /proc, a
	// counter with the charge still in a CPU's residue), it is not taken out.
	h.OwnCharge = min(own.Charge+own.Dontfork, h.CommittedAS)
	return nil
}

// summary reads /proc/PID/smaps or maps.
func (c *Collector) summary(pid, name string) (smaps.Summary, error) {
	f, err := open(filepath.Join(c.proc, pid, name))
	if err != nil {
		return smaps.Summary{}, err
	}
	defer f.close()
	return smaps.Read(f)
}

// setMeminfo copies what the rules need. HugePages_* are counts; Hugetlb is
// there since 4.16, before that the default size is all that is known.
func setMeminfo(h *kernel.Host, m procfs.Meminfo) error {
	for _, f := range []struct {
		name string
		from *uint64
		to   *size.Bytes
	}{
		{"MemTotal", m.MemTotal, &h.MemTotal},
		{"MemFree", m.MemFree, &h.MemFree},
		{"SwapTotal", m.SwapTotal, &h.SwapTotal},
		{"SwapFree", m.SwapFree, &h.SwapFree},
		{"CommitLimit", m.CommitLimit, &h.CommitLimit},
		{"Committed_AS", m.CommittedAS, &h.CommittedAS},
	} {
		if f.from == nil {
			if h.Inapplicable() != "" {
				continue
			}
			return fmt.Errorf("%s: not there", f.name)
		}
		*f.to = kernel.KiloBytes(*f.from)
	}
	if m.MemAvailableBytes != nil {
		h.MemAvailable = new(size.Bytes(*m.MemAvailableBytes))
	}
	if m.HugepagesizeBytes != nil {
		h.HugePageSize = size.Bytes(*m.HugepagesizeBytes)
	}
	if m.HugePagesTotal != nil {
		h.HugePagesTotal = int64(*m.HugePagesTotal)
	}
	if m.HugePagesFree != nil && m.HugePagesRsvd != nil {
		h.HugePagesFree = max(int64(*m.HugePagesFree)-int64(*m.HugePagesRsvd), 0)
	}
	h.Hugetlb = size.Bytes(h.HugePagesTotal) * h.HugePageSize
	if m.HugetlbBytes != nil {
		h.Hugetlb = size.Bytes(*m.HugetlbBytes)
	}
	return nil
}
