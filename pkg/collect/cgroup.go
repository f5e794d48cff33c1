package collect

import (
	"fmt"
	"math"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/prometheus/procfs"

	"github.com/overcheck/overcheck/pkg/kernel"
	"github.com/overcheck/overcheck/pkg/size"
)

// cgroups reads pids.max and memory.max of every ancestor, whether the
// controller is in a v1 hierarchy or in the unified one.
func (c *Collector) cgroups(pid string, p *kernel.Process, ownThreads int64) error {
	text, err := c.read(pid, "cgroup")
	switch {
	case absent(err):
		return nil // no cgroups in this kernel; a process that is gone is noticed elsewhere
	case denied(err):
		p.PidsUnseen = "/proc/PID/cgroup may not be read"
		p.MemoryUnseen = p.PidsUnseen
		return nil
	case err != nil:
		return fmt.Errorf("process %s: cgroup: %w", pid, err)
	}
	p.Cgroup = strings.ToValidUTF8(ownCgroup(text), "\uFFFD")
	self, _ := c.read("self", "cgroup")
	own, _, _ := c.ancestors(self, "pids") // overcheck's own levels; none where procfs does not show it
	pids := func(l level) (g kernel.PidsCgroup, limited bool, err error) {
		g.LimitFile = c.outside(l.dir, "pids.max")
		if limited, err = l.pids(&g); slices.Contains(own, l) {
			g.Own = ownThreads
		}
		return g, limited, err
	}
	levels, unseen, err := c.ancestors(text, "pids")
	if err == nil {
		p.Pids, p.PidsUnseen, err = readLevels(levels, unseen, "pids.max", pids)
	}
	if err != nil {
		return fmt.Errorf("process %s: cgroup: %w", pid, err)
	}
	levels, unseen, err = c.ancestors(text, "memory")
	if err == nil {
		p.Memory, p.MemoryUnseen, err = readLevels(untilFlat(levels), unseen, "memory.max", func(l level) (g kernel.MemoryCgroup, limited bool, err error) {
			g.LimitFile = c.outside(l.dir, l.memoryFiles().max)
			limited, err = l.memory(&g)
			return g, limited, err
		})
	}
	if err != nil {
		return fmt.Errorf("process %s: cgroup: %w", pid, err)
	}
	return nil
}

// readLevels reads one controller's limit on the way up, and adds to unseen what
// may not be read.
func readLevels[G any](levels []level, unseen, limit string, read func(level) (G, bool, error)) (groups []G, _ string, err error) {
	for _, l := range levels {
		switch g, limited, err := read(l); {
		case denied(err):
			unseen = limit + " of " + l.path + " may not be read"
		case err != nil:
			return nil, unseen, err
		case limited:
			groups = append(groups, g)
		}
	}
	return groups, unseen, nil
}

// outside is a file's name where its own system sees it: a --sysfs directory is
// that system's /sys.
func (c *Collector) outside(dir, file string) string {
	rest := strings.TrimPrefix(dir, c.sys)
	return strings.ToValidUTF8(path.Join("/sys/", rest, file), "\uFFFD")
}

// ownCgroup is the path of systemd's hierarchy, or of the unified one.
func ownCgroup(text string) (name string) {
	for line := range strings.Lines(text) {
		f := strings.SplitN(strings.TrimSuffix(line, "\n"), ":", 3)
		if len(f) == 3 && (f[1] == "name=systemd" || f[0] == "0" && name == "") {
			name = f[2]
		}
	}
	return name
}

// untilFlat leaves out the levels above a v1 memory cgroup that does not count
// towards its parent.
func untilFlat(levels []level) []level {
	if i := slices.IndexFunc(levels, level.flat); i >= 0 {
		return levels[:i+1]
	}
	return levels
}

// level is one cgroup on the way from a process's own to the root.
type level struct {
	dir  string // where its files are
	path string // as /proc/PID/cgroup names it
	v1   bool
}

// ancestors returns the levels of a controller, the process's own first, and why
// some were not seen. text is /proc/PID/cgroup:
//
//	8:pids:/system.slice/redis.service
//	0::/system.slice/redis.service
func (c *Collector) ancestors(text, controller string) (levels []level, unseen string, err error) {
	unified, unifiedFound := "", false
	for line := range strings.Lines(text) {
		f := strings.SplitN(strings.TrimSuffix(line, "\n"), ":", 3)
		if len(f) != 3 || !strings.HasPrefix(f[2], "/") {
			return nil, "", fmt.Errorf("%q: want ID:CONTROLLERS:/PATH", strings.TrimSpace(line))
		}
		switch {
		case slices.Contains(strings.Split(f[1], ","), controller):
			levels, unseen = c.climb(f[2], controller, true)
			return levels, unseen, nil
		case f[0] == "0" && f[1] == "":
			unified, unifiedFound = f[2], true
		}
	}
	if !unifiedFound {
		return nil, "", nil // the kernel has no such controller
	}
	levels, unseen = c.climb(unified, controller, false)
	return levels, unseen, nil
}

// climb finds the directory of a cgroup and walks up to the mount point.
func (c *Collector) climb(name, controller string, v1 bool) (levels []level, unseen string) {
	m, dir := c.cgroupMount(controller, v1)
	if m == nil {
		return nil, "the " + controller + " cgroups are not mounted where overcheck can see them (" + c.sys + "/fs/cgroup)"
	}
	rest, ok := below(name, m.Root)
	if ok {
		_, err := os.Stat(filepath.Join(dir, rest))
		ok = err == nil
	}
	if !ok {
		return nil, "the process's cgroup " + name + " is not below what is mounted at " + dir + ": run on the host, or with its cgroup namespace and /sys"
	}
	for {
		levels = append(levels, level{dir: filepath.Join(dir, rest), path: path.Join(m.Root, rest), v1: v1})
		if rest == "/" {
			break
		}
		rest = path.Dir(rest)
	}
	ns, err := c.link("self", "ns/cgroup")
	if m.Root != "/" || err == nil && ns != initialCgroupNS {
		unseen = "the cgroups above this container cannot be seen from here, and they may have a " + controller + " limit: run on the host"
	}
	return levels, unseen
}

// below returns name relative to root, beginning with a slash. Names may begin
// with "/..": outside of overcheck's cgroup namespace; those are not folded.
func below(name, root string) (rest string, ok bool) {
	rest = name
	if root != "/" {
		if rest, ok = strings.CutPrefix(name, root); !ok || rest != "" && rest[0] != '/' {
			return "", false
		}
	}
	if rest == "/.." || strings.HasPrefix(rest, "/../") {
		return "", false
	}
	return path.Join("/", rest), true
}

// cgroupMount finds where a hierarchy is mounted below sysfs, and the directory
// to read it at. A mountinfo that speaks of /sys is read as speaking of the
// --sysfs directory.
func (c *Collector) cgroupMount(controller string, v1 bool) (*procfs.MountInfo, string) {
	var elsewhere *procfs.MountInfo
	for _, m := range c.mounts {
		switch _, has := m.SuperOptions[controller]; {
		case v1 && (m.FSType != "cgroup" || !has), !v1 && m.FSType != "cgroup2":
		case strings.HasPrefix(m.MountPoint, c.sys+"/"):
			return m, m.MountPoint
		case strings.HasPrefix(m.MountPoint, "/sys/"):
			elsewhere = m
		}
	}
	if elsewhere == nil {
		return nil, ""
	}
	return elsewhere, filepath.Join(c.sys, strings.TrimPrefix(elsewhere.MountPoint, "/sys/"))
}

// value reads one number, or "max". limited is false where there is no such
// file: at the root, or where the controller is not enabled.
func (l level) value(base string) (n kernel.Limit, found bool, err error) {
	name := filepath.Join(l.dir, base)
	text, err := readFile(name)
	if absent(err) {
		return n, false, nil
	}
	if err != nil {
		return n, false, err
	}
	n, err = parseLimit(strings.TrimSpace(text))
	if err != nil {
		return n, false, fmt.Errorf("%s: %w", name, err)
	}
	return n, true, nil
}

// parseLimit reads "512" or "max". v1 spells no limit as the largest multiple of
// the page size.
func parseLimit(s string) (kernel.Limit, error) {
	if s == "max" {
		return kernel.Limit{Unlimited: true}, nil
	}
	n, err := strconv.ParseUint(s, 10, 64)
	if err != nil {
		return kernel.Limit{}, fmt.Errorf("%q: want a number or max", s)
	}
	if n > math.MaxInt64/2 {
		return kernel.Limit{Unlimited: true}, nil
	}
	return kernel.Limit{Value: int64(n)}, nil
}

func (l level) pids(g *kernel.PidsCgroup) (limited bool, err error) {
	g.Path = strings.ToValidUTF8(l.path, "\uFFFD")
	limit, found, err := l.value("pids.max")
	if err != nil || !found {
		return false, err
	}
	current, _, err := l.value("pids.current")
	g.Max, g.Current = limit, current.Value
	return true, err
}

type memoryFiles struct{ max, current, swapMax, swapCurrent string }

func (l level) memoryFiles() memoryFiles {
	if l.v1 {
		return memoryFiles{"memory.limit_in_bytes", "memory.usage_in_bytes", "memory.memsw.limit_in_bytes", "memory.memsw.usage_in_bytes"}
	}
	return memoryFiles{"memory.max", "memory.current", "memory.swap.max", "memory.swap.current"}
}

func (l level) memory(g *kernel.MemoryCgroup) (limited bool, err error) {
	names := l.memoryFiles()
	g.Path, g.V1 = strings.ToValidUTF8(l.path, "\uFFFD"), l.v1
	limit, found, err := l.value(names.max)
	if err != nil || !found {
		return false, err
	}
	g.Max = limit
	current, _, err := l.value(names.current)
	if err != nil {
		return false, err
	}
	g.Current = size.Bytes(current.Value)
	if !l.v1 {
		if err := l.v2(g); err != nil {
			return false, err
		}
	}
	if l.v1 {
		if err := l.kmem(g); err != nil {
			return false, err
		}
	}
	if limit.Unlimited {
		return true, nil // the rest only matters against a limit
	}
	swap, found, err := l.value(names.swapMax)
	if err != nil {
		return false, err
	}
	if found {
		used, _, err := l.value(names.swapCurrent)
		if err != nil {
			return false, err
		}
		g.SwapMax, g.SwapCurrent = &swap, size.Bytes(used.Value)
	}
	stat, err := readFile(filepath.Join(l.dir, "memory.stat"))
	if err != nil {
		return false, err
	}
	if err := parseMemoryStat(stat, g); err != nil {
		return false, fmt.Errorf("%s: %w", filepath.Join(l.dir, "memory.stat"), err)
	}
	return true, nil
}

// v2 reads what only the unified hierarchy has.
func (l level) v2(g *kernel.MemoryCgroup) error {
	high, found, err := l.value("memory.high")
	if err != nil {
		return err
	}
	if found && !high.Unlimited {
		g.High = &high
	}
	group, _, err := l.value("memory.oom.group")
	g.OOMGroup = group.Value == 1
	return err
}

// kmem reads v1's limit on kernel memory.
func (l level) kmem(g *kernel.MemoryCgroup) error {
	limit, found, err := l.value("memory.kmem.limit_in_bytes")
	if err != nil || !found || limit.Unlimited {
		return err
	}
	used, _, err := l.value("memory.kmem.usage_in_bytes")
	g.KmemRoom = new(max(size.Bytes(limit.Value-used.Value), 0))
	return err
}

// flat reports whether a v1 memory cgroup does not count towards its parent
// (memory.use_hierarchy 0; always 1 since 5.11).
func (l level) flat() bool {
	if !l.v1 {
		return false
	}
	text, err := readFile(filepath.Join(filepath.Dir(l.dir), "memory.use_hierarchy"))
	return err == nil && strings.TrimSpace(text) == "0"
}

// parseMemoryStat sums what can be reclaimed: lines like "inactive_file 8192".
// v1 gives the cgroup's own numbers under these names, and those with its
// descendants under total_*.
func parseMemoryStat(s string, g *kernel.MemoryCgroup) error {
	prefix := ""
	if g.V1 {
		prefix = "total_"
	}
	for line := range strings.Lines(s) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), " ")
		name, ok := strings.CutPrefix(name, prefix)
		if !ok {
			continue
		}
		var to *size.Bytes
		switch name {
		case "inactive_file", "active_file":
			to = &g.File
		case "slab_reclaimable":
			to = &g.SlabReclaimable
		default:
			continue
		}
		n, err := strconv.ParseInt(value, 10, 64)
		if err != nil {
			return fmt.Errorf("%s: %q: want a number", name, value)
		}
		*to += size.Bytes(n)
	}
	return nil
}
