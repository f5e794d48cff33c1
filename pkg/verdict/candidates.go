package verdict

import (
	"fmt"
	"math"
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/overcheck/overcheck/pkg/kernel"
	"github.com/overcheck/overcheck/pkg/size"
)

// mostKB bounds a search for a number of kilobytes: 256 TiB.
const mostKB = int64(256 * 1024 * size.GiB / size.KiB)

// forCommit are the kinds of change that the commit check of some mode may give
// way to, the smaller ones first. Which do, the model decides.
func (s search) forCommit() (all []candidate) {
	f := s.facts
	if f.Process.Source != kernel.Assumed {
		if s.mayAvoidFork() {
			all = append(all, s.withoutFork())
		}
		all = append(all, s.forMappings()...)
		if f.Process.MayBeCharged == 0 && f.Process.LargestMax <= f.Process.ChargeMax {
			all = append(all, s.shrink())
		}
	}
	if f.Host.UserReserve != nil {
		all = append(all, s.userReserve())
	}
	if f.Host.OvercommitKbytes != nil {
		all = append(all, s.kbytes())
	}
	all = append(all, s.ratio())
	if f.Host.HugePagesFree > 0 {
		all = append(all, s.hugePages())
	}
	return append(all, s.swap(), s.heuristic(), s.always())
}

// mayAvoidFork reports whether what the program forks for could be done without.
func (s search) mayAvoidFork() bool {
	forks := s.spawn.snapshots() || slices.Contains([]string{"PostgreSQL", "Node"}, s.spawn.Runtime)
	return s.spawn.How == Either || s.spawn.How == ByFork && !forks
}

func (s search) withoutFork() candidate {
	how := "where it forks to execute another program, use posix_spawn or vfork"
	switch {
	case strings.HasPrefix(s.spawn.Runtime, "Python") && s.spawn.How == ByFork:
		how = "run it with Python 3.10 or later, whose subprocess uses vfork"
	case strings.HasPrefix(s.spawn.Runtime, "Python"):
		how = "start programs by subprocess without preexec_fn, not by os.fork or multiprocessing's fork"
	case strings.HasPrefix(s.spawn.Runtime, "JVM"):
		how = "start it without -Djdk.lang.Process.launchMechanism=FORK"
	case strings.HasPrefix(s.spawn.Runtime, "Ruby") && s.spawn.How == ByFork:
		how = "run it as another user than root: Ruby then uses vfork"
	case strings.HasPrefix(s.spawn.Runtime, "Ruby"):
		how = "start programs by spawn or system, not by fork"
	}
	return one(Remedy{
		ID: "spawn-without-fork", Title: how, Scope: "process", Code: true, Set: map[string]string{"without-fork": "true"},
		Commands: []string{}, Undo: []string{}, Risk: "A child that must see the parent's memory (a snapshot, a worker) needs fork; this helps where another program is executed.",
	})
}

// forMappings are changes to one large anonymous mapping, for the program's
// author. The smallest that is enough is taken.
func (s search) forMappings() (all []candidate) {
	large := slices.DeleteFunc(slices.Clone(s.facts.Mappings), func(m kernel.Mapping) bool { return m.Path != "" || m.Size() < 16*size.MiB })
	if len(large) == 0 {
		return nil
	}
	slices.SortStableFunc(large, func(a, b kernel.Mapping) int { return int(a.Size() - b.Size()) })
	kind := func(id, title, risk string, key string) candidate {
		return candidate{most: int64(len(large) - 1), make: func(n int64) Remedy {
			m := large[n]
			start := strconv.FormatUint(uint64(m.Start), 16)
			return Remedy{
				ID: id, Title: fmt.Sprintf(title, fmt.Sprintf("the mapping %s-%x (%s)", start, uint64(m.End), m.Size())), Scope: "process", Code: true,
				Set: map[string]string{key: start}, Commands: []string{}, Undo: []string{}, Risk: risk,
			}
		}}
	}
	if !s.spawn.snapshots() {
		all = append(all, kind("madvise-dontfork", "exclude %s from fork by madvise(MADV_DONTFORK)", "The child dies if it touches that memory.", "dontfork"))
	}
	return append(all,
		kind("split-mapping", "cut %s in two by another protection for a page in its middle", "What merges the halves again (mprotect, mremap) undoes it.", "split"),
		kind("map-noreserve", "map %s with MAP_NORESERVE", "Not in mode 2, which ignores it; memory that is not there is missed when it is written to, by SIGKILL.", "noreserve"))
}

// shrink makes the process smaller: n KiB less than it is.
func (s search) shrink() candidate {
	p := s.facts.Process
	private := p.ChargeMax
	if p.Noreserve != nil {
		private += *p.Noreserve
	}
	return candidate{most: int64(private / size.KiB), make: func(n int64) Remedy {
		left := max(private-size.Bytes(n)*size.KiB, 0)
		r := Remedy{
			ID: "shrink-process", Title: fmt.Sprintf("make its private memory %s at most, of %s now", left, private), Scope: "process", Code: true,
			Set: map[string]string{"shrink": exact(left)}, Commands: []string{}, Undo: []string{},
			Risk: "The charge falls only when the allocator gives memory back, for sure after a restart.",
		}
		switch {
		case s.spawn.snapshots():
			r.Title += " (maxmemory; keys are evicted or writes refused)"
		case strings.HasPrefix(s.spawn.Runtime, "JVM"):
			r.Title += " (-Xmx and -XX:MaxDirectMemorySize)"
		}
		return r
	}}
}

// exact spells a size so that --set takes exactly it.
func exact(b size.Bytes) string { return strconv.FormatInt(int64(b), 10) + "B" }

// sysctl is a remedy that sets one sysctl of the host.
func (s search) sysctl(id, key, title, risk string, value, old int64) Remedy {
	return Remedy{
		ID: id, Title: title, Scope: "host", Set: map[string]string{key: strconv.FormatInt(value, 10)},
		Commands: []string{s.write(key, value)},
		Persist:  s.sysctlFile(id, key, value),
		Undo:     []string{s.write(key, old)},
		Risk:     risk,
	}
}

// write is the command that sets a sysctl: where no command can be started, one
// that the shell has in itself.
func (s search) write(key string, value int64) string {
	if s.exhausted {
		return fmt.Sprintf("echo %d > /proc/sys/%s", value, strings.ReplaceAll(key, ".", "/"))
	}
	return fmt.Sprintf("sysctl -w %s=%d", key, value)
}

// sysctlFile is the file that makes a setting last: one that is read after those
// that set the same now.
func (s search) sysctlFile(id, key string, value int64) *Persist {
	set := fmt.Sprintf("%s = %d\n", key, value)
	prefix, rest := "90", "-overcheck-"+id+".conf"
	for _, b := range s.facts.Host.Boot {
		limits := []string{"vm.overcommit_ratio", "vm.overcommit_kbytes"} // they zero each other
		if both := slices.Contains(limits, key) && slices.Contains(limits, b.Key); b.Key != key && !both {
			continue
		}
		if b.File == "/etc/sysctl.conf" { // read last where it is read by itself
			return &Persist{b.File, set, fmt.Sprintf("sed -i '/^%s = %d$/d' /etc/sysctl.conf", key, value)}
		}
		for path.Base(b.File) >= prefix+rest {
			if prefix == "90" {
				prefix = "z"
			}
			prefix += "z"
		}
	}
	name := "/etc/sysctl.d/" + prefix + rest
	return &Persist{name, set, "rm -f " + name}
}

func (s search) userReserve() candidate {
	now := int64(*s.facts.Host.UserReserve / size.KiB)
	return candidate{most: now, make: func(n int64) Remedy {
		return s.sysctl("user-reserve", "vm.user_reserve_kbytes", fmt.Sprintf("lower vm.user_reserve_kbytes to %d, from %d", now-n, now),
			"The reserve is what lets you log in and kill something when all is committed: each process has that much less.", now-n, now)
	}}
}

// kbytes sets the limit in kilobytes. It zeroes the ratio, so what is undone
// depends on which of both is in force.
func (s search) kbytes() candidate {
	h := s.facts.Host
	return candidate{most: mostKB, make: func(n int64) Remedy {
		r := s.sysctl("overcommit-kbytes", "vm.overcommit_kbytes", fmt.Sprintf("raise CommitLimit to %s by vm.overcommit_kbytes", size.Bytes(n)*size.KiB+h.SwapTotal),
			s.limitRisk(size.Bytes(n)*size.KiB), n, 0)
		r.Undo = []string{s.undoLimit()}
		return r
	}}
}

func (s search) ratio() candidate {
	h := s.facts.Host
	return candidate{most: 100_000, make: func(n int64) Remedy {
		part := size.Bytes(float64(h.MemTotal-h.Hugetlb) * float64(n) / 100)
		r := s.sysctl("overcommit-ratio", "vm.overcommit_ratio", fmt.Sprintf("raise CommitLimit to %s by vm.overcommit_ratio=%d", part+h.SwapTotal, n), s.limitRisk(part), n, 0)
		r.Undo = []string{s.undoLimit()}
		return r
	}}
}

func (s search) undoLimit() string {
	h := s.facts.Host
	if h.OvercommitKbytes != nil && *h.OvercommitKbytes > 0 {
		return s.write("vm.overcommit_kbytes", int64(*h.OvercommitKbytes/size.KiB))
	}
	return s.write("vm.overcommit_ratio", h.OvercommitRatio)
}

// limitRisk is what a limit of so much besides swap means.
func (s search) limitRisk(b size.Bytes) string {
	if usable := s.facts.Host.MemTotal - s.facts.Host.Hugetlb; b > usable {
		return fmt.Sprintf("The limit then exceeds RAM without huge pages, and swap, by %s: if all of it is used, the OOM killer strikes after all.", b-usable)
	}
	return "Little: the limit stays within RAM and swap; what the kernel itself takes is not charged and not in it."
}

func (s search) hugePages() candidate {
	h := s.facts.Host
	return candidate{most: h.HugePagesFree, make: func(n int64) Remedy {
		now := h.HugePagesTotal
		r := s.sysctl("fewer-huge-pages", "HugePages_Total", fmt.Sprintf("give back %d of the %d reserved huge pages that nobody uses", n, h.HugePagesFree),
			"What is started later and wants them finds fewer.", now-n, now)
		r.Commands, r.Undo = []string{s.write("vm.nr_hugepages", now-n)}, []string{s.write("vm.nr_hugepages", now)}
		r.Persist = s.sysctlFile(r.ID, "vm.nr_hugepages", now-n)
		return r
	}}
}

// swap adds a swap file of n MiB, a page of which is its header (mkswap).
func (s search) swap() candidate {
	const file = "/var/swap-overcheck"
	return candidate{most: mostKB / 1024, make: func(n int64) Remedy {
		usable := max(size.Bytes(n)*size.MiB-s.facts.Host.PageSize, 0)
		return Remedy{
			ID: "add-swap", Title: fmt.Sprintf("add %s of swap", size.Bytes(n)*size.MiB), Scope: "host",
			Set: map[string]string{"SwapTotal": exact(s.facts.Host.SwapTotal + usable)},
			Commands: []string{
				// excl: another file of that name is not overwritten.
				fmt.Sprintf("dd if=/dev/zero of=%s bs=1M count=%d conv=excl status=none", file, n), "chmod 600 " + file, "mkswap " + file, "swapon " + file,
			},
			Persist: &Persist{"/etc/fstab", file + " none swap sw 0 0\n", "sed -i '\\|^" + file + " |d' /etc/fstab"},
			Undo:    []string{"swapoff " + file, "rm " + file},
			Risk:    "What is swapped out is slow to come back; the file needs a file system that allows swap, and room on it.",
		}
	}}
}

func (s search) heuristic() candidate {
	return one(s.sysctl("overcommit-heuristic", "vm.overcommit_memory", "switch to mode 0",
		"Nothing but a single mapping larger than RAM and swap is refused then: memory may run out when it is written to.", int64(kernel.Heuristic), int64(s.facts.Host.Mode)))
}

func (s search) always() candidate {
	return one(s.sysctl("overcommit-always", "vm.overcommit_memory", "switch to mode 1",
		"Nothing is refused any more on the whole host: memory that is not there is missed when it is written to, and the OOM killer decides for whom.",
		int64(kernel.Always), int64(s.facts.Host.Mode)))
}

// counter raises kernel.threads-max or kernel.pid_max.
func (s search) counter(c kernel.Check) candidate {
	if c.Limit == nil || c.Used == nil {
		return candidate{}
	}
	key := c.Where
	now := *c.Limit
	most := int64(0x3fffffff) // kernel/fork.c: MAX_THREADS, FUTEX_TID_MASK
	if key == "kernel.pid_max" {
		most = 4194304 // include/linux/threads.h: PID_MAX_LIMIT
	}
	return candidate{most: most, make: func(n int64) Remedy {
		risk := "More tasks take more kernel memory: some 30 KiB each."
		if key == "kernel.pid_max" {
			risk = "Programs that keep a process id in 15 bits are confused by larger ones."
		}
		return s.sysctl(c.ID, key, fmt.Sprintf("raise %s to %d, from %d", key, n, now), risk, n, now)
	}}
}

// nproc raises RLIMIT_NPROC of the process that runs.
func (s search) nproc() candidate {
	p := s.facts.Process
	if p.NprocLimit == nil || p.NprocLimit.Unlimited || p.UIDTasksMax == nil {
		return candidate{}
	}
	hard := func(n int64) string {
		if p.NprocHard == nil || p.NprocHard.Unlimited {
			return "unlimited"
		}
		return strconv.FormatInt(max(n, p.NprocHard.Value), 10)
	}
	return candidate{most: math.MaxInt32, make: func(n int64) Remedy {
		r := Remedy{
			ID: "rlimit-nproc", Title: fmt.Sprintf("raise RLIMIT_NPROC of the process to %d, from %s", n, p.NprocLimit), Scope: "process",
			Set:      map[string]string{"RLIMIT_NPROC": strconv.FormatInt(n, 10)},
			Commands: []string{fmt.Sprintf("prlimit --pid %d --nproc=%d:%s", p.PID, n, hard(n))},
			Undo:     []string{fmt.Sprintf("prlimit --pid %d --nproc=%s:%s", p.PID, p.NprocLimit, hard(0))},
			Risk:     "The limit counts all threads of the user, who may then start more of them.",
		}
		switch where := placed(p.Cgroup); {
		case where.kind == inSystemd && strings.HasSuffix(where.name, ".service"):
			r.Persist = where.dropIn(r.ID, fmt.Sprintf("LimitNPROC=%d:%s", n, strings.Replace(hard(n), "unlimited", "infinity", 1)))
		case where.kind == inDocker:
			r.Persist = &Persist{"compose.yaml", fmt.Sprintf("    ulimits:\n      nproc: %d\n", n), ""}
		case where.kind == inSystemd: // a session: by pam_limits
			const file = "/etc/security/limits.d/90-overcheck-nproc.conf"
			r.Persist = &Persist{file, fmt.Sprintf(":%d soft nproc %d\n", p.UID, n), "rm -f " + file}
		default:
			r.Risk += " It holds for the process that runs; where it is started from is not known."
		}
		return r
	}}
}

// pidsMax leaves room for n more tasks at each level that has less.
func (s search) pidsMax() candidate {
	const most = 4194305 // kernel/cgroup/pids.c: PIDS_MAX
	return candidate{most: most, make: func(n int64) Remedy {
		r := cgroupRemedy("pids-max", "The limit bounds a fork bomb; what it is raised by, all services together may come to need.")
		for _, g := range s.facts.Process.Pids {
			if g.Max.Unlimited || g.Max.Value-g.Current >= n {
				continue
			}
			value := strconv.FormatInt(g.Current+n, 10)
			r.limit(limit{
				key: "pids.max", cgroup: g.Path, file: g.LimitFile, property: "TasksMax", docker: "--pids-limit", compose: "pids_limit",
				pod: "the kubelet's podPidsLimit", value: value, shown: value, old: strconv.FormatInt(g.Max.Value, 10),
			})
		}
		return r
	}}
}

// memoryMax leaves room for n more pages at each level that has less, with what can
// be reclaimed there.
func (s search) memoryMax() candidate {
	page := int64(s.facts.Host.PageSize)
	return candidate{most: int64(64 * 1024 * size.GiB / s.facts.Host.PageSize), make: func(n int64) Remedy {
		r := cgroupRemedy("memory-max", "What the cgroup may take more, the rest of the host has less.")
		for _, g := range s.facts.Process.Memory {
			room, limited := g.Room(s.facts.Host)
			if !limited || int64(room) >= n*page {
				continue
			}
			value := (g.Max.Value/page + (n*page-int64(room))/page + 1) * page
			l := limit{
				key: "memory.max", cgroup: g.Path, file: g.LimitFile, property: "MemoryMax", docker: "--memory", compose: "mem_limit",
				pod: "the container's resources.limits.memory", value: strconv.FormatInt(value, 10), unit: "B", shown: size.Bytes(value).String(), old: strconv.FormatInt(g.Max.Value, 10),
			}
			if g.V1 && g.SwapMax != nil && !g.SwapMax.Unlimited && g.SwapMax.Value < value {
				l.memsw = strconv.FormatInt(g.SwapMax.Value, 10) // RAM and swap together: never below
			}
			r.limit(l)
		}
		return r
	}}
}

func cgroupRemedy(id, risk string) Remedy {
	return Remedy{ID: id, Scope: "cgroup", Set: map[string]string{}, Commands: []string{}, Undo: []string{}, Risk: risk}
}
