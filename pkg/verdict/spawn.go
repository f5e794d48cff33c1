package verdict

import (
	"cmp"
	"fmt"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/overcheck/overcheck/pkg/kernel"
)

// How a program starts others.
type How string

// What a child made with CLONE_VM (vfork, posix_spawn) shares with its parent is
// not charged again: kernel/fork.c: copy_mm, all versions.
const (
	ByFork      How = "fork"
	WithoutFork How = "without-fork"
	Either      How = "either"    // it depends on what it is asked to do
	NoneSeen    How = "none-seen" // nothing shows that it starts any
	HowUnknown  How = "unknown"
)

// Spawn says how the program starts others, as its executable and libraries tell.
type Spawn struct {
	How     How    `json:"how"`
	Runtime string `json:"runtime"` // "Python 3.11"; empty: none that is known
	Detail  string `json:"detail"`
	// Verdict is that of starting a small program without fork, now; nil where the
	// program does not do that, or it is not known.
	Verdict *kernel.Outcome `json:"verdict"`
}

// spawn judges f.Process.Program.
func spawn(f kernel.Facts) Spawn {
	s, known := knownRuntime(f.Process)
	if !known {
		s = bySymbols(f.Process.Program)
	}
	if s.How == WithoutFork || s.How == Either {
		f.Process.WithoutFork = true
		s.Verdict = new(now(f))
	}
	return s
}

// snapshots reports whether it is one of the servers whose child reads all of
// their memory: Redis and its kin.
func (s Spawn) snapshots() bool {
	return slices.Contains([]string{"Redis", "Valkey", "Keydb"}, s.Runtime)
}

// mayFork is false where the program starts others without fork, or nothing shows
// that it starts any.
func (s Spawn) mayFork() bool { return s.How != WithoutFork && s.How != NoneSeen }

// finding says it.
func (s Spawn) finding() Finding {
	who := cmp.Or(s.Runtime, "the program")
	f := Finding{Severity: "info", Detail: s.Detail}
	if s.Verdict != nil {
		f.Detail += fmt.Sprintf(". Starting a small program without fork now: %s", s.Verdict)
	}
	switch s.How {
	case ByFork:
		f.ID, f.Title = "spawn-by-fork", who+" forks"
		if s.Runtime == "" {
			f.Title = "the program can fork"
		}
	case WithoutFork:
		f.ID, f.Title = "spawn-without-fork", who+" starts programs without fork: nothing of this process is charged for that"
	case Either:
		f.ID, f.Title = "spawn-depends", who+" starts processes by fork, or without it: only a fork is charged"
	case NoneSeen:
		f.ID, f.Title = "spawn-none-seen", "nothing shows that the program starts processes"
	case HowUnknown:
		f.ID, f.Title = "spawn-unknown", "whether the program ever forks cannot be known"
	}
	return f
}

// NeedsImports reports whether only its symbols can tell how the program starts
// others.
func NeedsImports(p kernel.Process) bool {
	_, known := knownRuntime(p)
	return !known && p.Program.Exe != ""
}

// knownRuntime knows the programs that are worth knowing. What it says of each was
// seen on a real one (docs/accuracy.md) but for the older versions, which are
// from their sources and release notes.
func knownRuntime(p kernel.Process) (Spawn, bool) {
	program := p.Program
	exe := base(program.Exe)
	switch {
	case slices.Contains([]string{"redis-server", "valkey-server", "keydb-server", "redis-check-rdb", "valkey-check-rdb"}, exe):
		// Debian's redis-server is a link to redis-check-rdb.
		name, _, _ := strings.Cut(exe, "-")
		return server(strings.ToUpper(name[:1])+name[1:], program, "a save (BGSAVE), an AOF rewrite and a full synchronisation with a replica each fork the server")
	case exe == "postgres":
		return server("PostgreSQL", program, "the postmaster forks for each new connection and each worker")
	case library(program, `^libjvm\.so$`) != nil && slices.Contains([]string{"java", "jsvc", "javaw"}, exe):
		return java(program), true // other programs that load a JVM start processes in their own way, too
	case exe == "node" || exe == "nodejs" || library(program, `^libnode\.so`) != nil:
		return Spawn{How: ByFork, Runtime: "Node", Detail: "child_process forks (libuv's uv_spawn), and what it starts is charged as the whole process for a moment; worker_threads are threads"}, true
	}
	if v := regexp.MustCompile(`^python(\d+)\.(\d+)`).FindStringSubmatch(exe); v != nil {
		return python(number(v[1]), number(v[2])), true
	}
	if v := regexp.MustCompile(`^ruby(\d+\.\d+)?$`).FindStringSubmatch(exe); v != nil {
		version := v[1]
		if lib := library(program, `^libruby-(\d+\.\d+)\.so`); lib != nil {
			version = lib[1]
		}
		return ruby(version, p), true
	}
	if program.Go != "" {
		return golang(program), true
	}
	return Spawn{}, false
}

// server is a program that forks itself. One that was forked so does not, but may
// start programs by system and popen, as PostgreSQL's archiver does.
func server(name string, p kernel.Program, what string) (Spawn, bool) {
	switch {
	case !p.Forked:
		return Spawn{How: ByFork, Runtime: name, Detail: what}, true
	case oldGlibc(p) > 0 && oldGlibc(p) < systemSpawns:
		return Spawn{How: ByFork, Runtime: name, Detail: "it starts programs by system and popen, which fork in this glibc (before 2.29)"}, true
	}
	return Spawn{How: WithoutFork, Runtime: name, Detail: fmt.Sprintf("a child of pid %d, which executes the same program: it is that one that forks (%s)", p.PPID, what)}, true
}

// java knows java.lang.ProcessImpl: jdk.lang.Process.launchMechanism is VFORK by
// default on Linux up to JDK 12, POSIX_SPAWN since JDK 13 (JDK-8213192).
func java(p kernel.Program) Spawn {
	s := Spawn{How: WithoutFork, Runtime: strings.TrimSpace("JVM " + p.Java)}
	by := "vfork or posix_spawn"
	version := strings.TrimPrefix(p.Java, "1.") // "1.8.0_392" is 8
	if major, _, _ := strings.Cut(version, "."); number(major) >= 13 {
		by = "posix_spawn"
	} else if major != "" {
		by = "vfork"
	}
	switch p.JavaLaunch {
	case "FORK":
		return Spawn{How: ByFork, Runtime: s.Runtime, Detail: "jdk.lang.Process.launchMechanism is set to FORK: ProcessBuilder and Runtime.exec fork. Without that setting they would not"}
	case "VFORK":
		by = "vfork"
	case "POSIX_SPAWN":
		by = "posix_spawn"
	case "?":
		return Spawn{How: Either, Runtime: s.Runtime, Detail: "ProcessBuilder and Runtime.exec use " + by + ", unless jdk.lang.Process.launchMechanism=FORK is among its options: some of these are in a file, or may not be read"}
	}
	if glibc := oldGlibc(p); by == "posix_spawn" && glibc > 0 && glibc < spawnSharesMemory {
		return Spawn{How: ByFork, Runtime: s.Runtime, Detail: "ProcessBuilder and Runtime.exec use posix_spawn, which forks in this glibc (before 2.24)"}
	}
	s.Detail = "ProcessBuilder and Runtime.exec use " + by + " (jdk.lang.Process.launchMechanism=FORK would fork, and be charged)"
	return s
}

// python knows CPython's Modules/_posixsubprocess.c: vfork since 3.10, where no
// preexec_fn and no change of user is asked for.
func python(major, minor int) Spawn {
	s := Spawn{How: ByFork, Runtime: fmt.Sprintf("Python %d.%d", major, minor), Detail: "subprocess and os.fork fork (subprocess does not since Python 3.10)"}
	if major > 3 || major == 3 && minor >= 10 {
		multiprocessing := "multiprocessing (which forks by default up to 3.13)"
		if minor >= 14 {
			multiprocessing = "multiprocessing where the start method is fork"
		}
		s.How = Either
		s.Detail = "subprocess uses vfork, unless preexec_fn or another user is asked for; os.fork and " + multiprocessing + " fork"
	}
	return s
}

// ruby knows process.c: vfork unless the process is privileged.
func ruby(version string, p kernel.Process) Spawn {
	s := Spawn{How: Either, Runtime: strings.TrimSpace("Ruby " + version), Detail: "spawn, system and backticks use vfork; fork, and servers that fork their workers (Puma in cluster mode, Unicorn, Passenger), fork"}
	switch {
	case p.UID == 0:
		s.How, s.Detail = ByFork, "spawn, system and backticks fork, since it runs as root; as another user they would use vfork"
	case p.InitialUserNS == nil || !*p.InitialUserNS:
		s.Detail += ". As root of a user namespace all of them fork"
	}
	return s
}

// golang knows syscall.forkExec: clone with CLONE_VFORK and CLONE_VM, since Go 1.9
// on amd64, later on other architectures. Build information is there since 1.13.
func golang(p kernel.Program) Spawn {
	s := Spawn{How: WithoutFork, Runtime: "Go " + strings.TrimPrefix(p.Go, "go"), Detail: "os/exec uses vfork (not for a child in a new user namespace); bare system calls may do otherwise"}
	v := regexp.MustCompile(`^go1\.(\d+)`).FindStringSubmatch(p.Go)
	switch {
	case p.Imports != nil && len(p.Imports.Fork) > 0:
		s.How, s.Detail = Either, "os/exec uses vfork, but C code is linked in: fork is imported by "+names(p.Imports.Fork)
	case v != nil && number(v[1]) < 26 && !slices.Contains([]string{"", "amd64", "arm64", "ppc64", "ppc64le", "s390x"}, p.GoArch):
		s.How, s.Detail = Either, "os/exec uses vfork or, in older versions of Go on "+p.GoArch+", fork"
	}
	return s
}

// bySymbols judges a program that is not known by what it imports.
func bySymbols(p kernel.Program) Spawn {
	if p.Exe == "" {
		return Spawn{How: HowUnknown, Detail: "overcheck may not read which program this is: run it as root, or as the owner of the process"}
	}
	if p.Imports == nil {
		return Spawn{How: HowUnknown, Detail: base(p.Exe) + " is not a program that overcheck knows, and its symbols do not tell"}
	}
	i := *p.Imports
	forks, without := i.Fork, i.Vfork
	spawns, shells := &without, &without
	if glibc := oldGlibc(p); glibc > 0 {
		if glibc < spawnSharesMemory {
			spawns = &forks
		}
		if glibc < systemSpawns {
			shells = &forks
		}
	}
	*spawns = slices.Concat(*spawns, i.PosixSpawn)
	*shells = slices.Concat(*shells, i.System)
	const other = "vfork, posix_spawn or system"
	switch {
	case len(forks) > 0 && len(without) > 0:
		return Spawn{How: Either, Detail: fmt.Sprintf("fork is imported by %s; %s by %s", names(forks), other, names(without))}
	case len(forks) > 0:
		return Spawn{How: ByFork, Detail: "fork is imported by " + names(forks)}
	case len(without) > 0:
		return Spawn{How: WithoutFork, Detail: fmt.Sprintf("%s is imported by %s, and fork by nothing", other, names(without))}
	}
	if len(i.Unclear) > 0 {
		return Spawn{How: HowUnknown, Detail: "neither it nor its libraries import a function that starts a process, but syscall, dlopen or wordexp is imported by " + names(i.Unclear)}
	}
	return Spawn{How: NoneSeen, Detail: "neither it nor its libraries import a function that starts a process"}
}

// The minor versions of glibc 2 since which posix_spawn shares the memory
// (sysdeps/unix/sysv/linux/spawni.c), and system and popen use it.
const (
	spawnSharesMemory = 24
	systemSpawns      = 29
)

// oldGlibc is the minor version of glibc where its file is named for it, as it
// was to 2.33: libc-2.31.so. 0: newer, or another library.
func oldGlibc(p kernel.Program) int {
	if v := library(p, `^libc-2\.(\d+)\.so$`); v != nil {
		return number(v[1])
	}
	return 0
}

// names lists a few, each once.
func names(all []string) string {
	slices.Sort(all)
	all = slices.Compact(all)
	if len(all) > 3 {
		return strings.Join(all[:3], ", ") + fmt.Sprintf(" and %d more", len(all)-3)
	}
	return strings.Join(all, ", ")
}

// library returns the match of the first library's name.
func library(p kernel.Program, pattern string) []string {
	re := regexp.MustCompile(pattern)
	for _, lib := range p.Libraries {
		if m := re.FindStringSubmatch(base(lib)); m != nil {
			return m
		}
	}
	return nil
}

// base is the name of a file, though it was deleted since, as by an upgrade; rpm
// renames it before.
func base(name string) string {
	name, gone := strings.CutSuffix(path.Base(name), " (deleted)")
	if gone {
		name = regexp.MustCompile(`;[0-9a-f]{8}$`).ReplaceAllString(name, "")
	}
	return name
}

func number(s string) int {
	n, _ := strconv.Atoi(s) // digits, or nothing
	return n
}
