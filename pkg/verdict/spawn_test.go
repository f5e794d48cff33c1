package verdict

import (
	"strings"
	"testing"

	"github.com/overcheck/overcheck/pkg/kernel"
	"github.com/overcheck/overcheck/pkg/size"
)

// TestSpawn: what is said of a program, by its files.
func TestSpawn(t *testing.T) {
	jvm := func(version, launch string, more ...string) kernel.Process {
		return kernel.Process{Program: kernel.Program{
			Exe: "/opt/jdk/bin/java", Libraries: append(more, "/opt/jdk/lib/server/libjvm.so"), Java: version, JavaLaunch: launch,
		}}
	}
	exe := func(path string, libraries ...string) kernel.Process {
		return kernel.Process{UID: 1000, Program: kernel.Program{Exe: path, Libraries: libraries}}
	}
	golang := func(version string) kernel.Process {
		return kernel.Process{Program: kernel.Program{Exe: "/usr/bin/prometheus", Go: version}}
	}
	imports := func(i kernel.Imports, libraries ...string) kernel.Process {
		return kernel.Process{Program: kernel.Program{Exe: "/usr/sbin/d", Libraries: libraries, Imports: &i}}
	}
	forked := exe("/usr/lib/postgresql/15/bin/postgres")
	forked.Program.Forked, forked.Program.PPID = true, 812
	forkedOld := forked
	forkedOld.Program.Libraries = []string{"/lib64/libc-2.28.so;5f3a1b2c (deleted)"}
	cgo := golang("go1.26.0")
	cgo.Program.Imports = &kernel.Imports{Fork: []string{"libx.so"}}
	onMips := golang("go1.19.1")
	onMips.Program.GoArch = "mips"
	embedded := jvm("17.0.1", "")
	embedded.Program.Exe = "/usr/bin/python3.11"
	asRoot := exe("/usr/bin/ruby3.1")
	asRoot.UID = 0

	for _, tt := range []struct {
		name    string
		process kernel.Process
		how     How
		runtime string
		detail  string // part of it
	}{
		{"Redis", exe("/usr/bin/redis-server"), ByFork, "Redis", "BGSAVE"},
		{"Debian's Valkey", exe("/usr/bin/valkey-check-rdb"), ByFork, "Valkey", "BGSAVE"},
		{"an upgraded Redis", exe("/usr/bin/redis-server;5f3a1b2c (deleted)"), ByFork, "Redis", "BGSAVE"},
		{"PostgreSQL's postmaster", exe("/usr/lib/postgresql/15/bin/postgres"), ByFork, "PostgreSQL", "each new connection"},
		{"PostgreSQL's backend", forked, WithoutFork, "PostgreSQL", "pid 812"},
		{"PostgreSQL's backend with glibc 2.28", forkedOld, ByFork, "PostgreSQL", "system and popen"},
		{"JDK 8", jvm("1.8.0_392", ""), WithoutFork, "JVM 1.8.0_392", "use vfork"},
		{"JDK 12", jvm("12.0.2", ""), WithoutFork, "JVM 12.0.2", "use vfork"},
		{"JDK 13", jvm("13", ""), WithoutFork, "JVM 13", "use posix_spawn"},
		{"a JDK without a release file", jvm("", ""), WithoutFork, "JVM", "vfork or posix_spawn"},
		{"a JDK told to fork", jvm("21.0.1", "FORK"), ByFork, "JVM 21.0.1", "is set to FORK"},
		{"a JDK told to vfork", jvm("21.0.1", "VFORK"), WithoutFork, "JVM 21.0.1", "use vfork"},
		{"JDK 17 with glibc 2.23", jvm("17.0.1", "", "/lib/x86_64-linux-gnu/libc-2.23.so"), ByFork, "JVM 17.0.1", "glibc"},
		{"JDK 17 with glibc 2.24", jvm("17.0.1", "", "/lib/x86_64-linux-gnu/libc-2.24.so"), WithoutFork, "JVM 17.0.1", "posix_spawn"},
		{"Node", exe("/usr/bin/node"), ByFork, "Node", "child_process"},
		{"Electron's Node", exe("/opt/app/app", "/opt/app/libnode.so.108"), ByFork, "Node", "child_process"},
		{"Python 3.9", exe("/usr/bin/python3.9"), ByFork, "Python 3.9", "subprocess and os.fork"},
		{"Python 3.10", exe("/usr/bin/python3.10"), Either, "Python 3.10", "forks by default"},
		{"Python 3.14", exe("/usr/bin/python3.14"), Either, "Python 3.14", "where the start method is fork"},
		{"Python 2", exe("/usr/bin/python2.7"), ByFork, "Python 2.7", "fork"},
		{"Ruby", exe("/usr/bin/ruby3.1"), Either, "Ruby 3.1", "vfork"},
		{"Ruby by its library", exe("/usr/bin/ruby", "/usr/lib/libruby-3.3.so.3.3.0"), Either, "Ruby 3.3", "vfork"},
		{"Ruby as root", asRoot, ByFork, "Ruby 3.1", "runs as root"},
		{"Go", golang("go1.26.0"), WithoutFork, "Go 1.26.0", "os/exec"},
		{"Go with C code that forks", cgo, Either, "Go 1.26.0", "by libx.so"},
		{"Go on another architecture", onMips, Either, "Go 1.19.1", "on mips"},
		{"a JVM within Python", embedded, Either, "Python 3.11", "os.fork"},
		{"a JVM with options in a file", jvm("17.0.1", "?"), Either, "JVM 17.0.1", "in a file"},
		{"Go from its repository", golang("devel go1.27-abc"), WithoutFork, "Go devel go1.27-abc", "os/exec"},
		{"imports fork", imports(kernel.Imports{Fork: []string{"d", "libx.so.1"}}), ByFork, "", "by d, libx.so.1"},
		{"imports fork and vfork", imports(kernel.Imports{Fork: []string{"d"}, Vfork: []string{"d"}}), Either, "", "by d"},
		{"imports posix_spawn", imports(kernel.Imports{PosixSpawn: []string{"d"}}, "/lib/libc.so.6"), WithoutFork, "", "fork by nothing"},
		{"imports posix_spawn of glibc 2.23", imports(kernel.Imports{PosixSpawn: []string{"d"}}, "/lib/libc-2.23.so"), ByFork, "", "by d"},
		{"imports system of glibc 2.28", imports(kernel.Imports{System: []string{"d"}, PosixSpawn: []string{"e"}}, "/lib/libc-2.28.so"), Either, "", "fork is imported by d"},
		{"imports system of glibc 2.29", imports(kernel.Imports{System: []string{"d"}}, "/lib/libc-2.29.so"), WithoutFork, "", "by d"},
		{"imports none", imports(kernel.Imports{}), NoneSeen, "", "neither it nor its libraries"},
		{"imports syscall", imports(kernel.Imports{Unclear: []string{"d"}}), HowUnknown, "", "syscall, dlopen or wordexp is imported by d"},
		{"symbols unread", exe("/usr/sbin/d"), HowUnknown, "", "its symbols do not tell"},
		{"unreadable", kernel.Process{}, HowUnknown, "", "may not read which"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			f := facts()
			f.Process.UID, f.Process.Program = tt.process.UID, tt.process.Program
			r := Judge(f)
			if got := *r.Spawn; got.How != tt.how || got.Runtime != tt.runtime || !strings.Contains(got.Detail, tt.detail) {
				t.Errorf("got %+v", got)
			}
			if asked := r.Spawn.Verdict != nil; asked != (tt.how == WithoutFork || tt.how == Either) {
				t.Errorf("verdict %v", r.Spawn.Verdict)
			}
			if last := r.Findings[len(r.Findings)-1]; !strings.HasPrefix(last.ID, "spawn-") || last.Title == "" {
				t.Errorf("findings %+v", r.Findings)
			}
		})
	}
}

// TestSpawnWithoutFork: of the obstacles to fork those remain that count tasks,
// and the memory of the program that is started.
func TestSpawnWithoutFork(t *testing.T) {
	for _, tt := range []struct {
		name   string
		change func(*kernel.Facts)
		fork   kernel.Outcome
		spawn  kernel.Outcome
	}{
		{"nothing", func(*kernel.Facts) {}, kernel.Succeeds, kernel.Succeeds},
		{"no room for the fork", func(f *kernel.Facts) {
			f.Host.Mode, f.Host.CommitLimit = kernel.Never, f.Host.CommittedAS+60*size.MiB
		}, kernel.Fails, kernel.Succeeds},
		{"no room for anything", func(f *kernel.Facts) { f.Host.Mode, f.Host.CommitLimit = kernel.Never, size.MiB }, kernel.Fails, kernel.Fails},
		{"no room for page tables", func(f *kernel.Facts) {
			f.Process.Memory = []kernel.MemoryCgroup{{Path: "/a", Current: size.GiB, Max: kernel.Limit{Value: int64(size.GiB)}}}
		}, kernel.Fails, kernel.Succeeds},
		{"no task left", func(f *kernel.Facts) { f.Host.Threads = f.Host.ThreadsMax }, kernel.Fails, kernel.Fails},
	} {
		f := facts()
		f.Process.Program = kernel.Program{Exe: "/usr/bin/d", Go: "go1.26"}
		tt.change(&f)
		r := Judge(f)
		if r.Verdict != tt.fork || *r.Spawn.Verdict != tt.spawn {
			t.Errorf("%s: fork %s, spawn %s; want %s, %s", tt.name, r.Verdict, r.Spawn.Verdict, tt.fork, tt.spawn)
		}
	}
}
