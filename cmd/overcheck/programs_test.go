package main

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/overcheck/overcheck/pkg/kernel"
	"github.com/overcheck/overcheck/pkg/size"
	"github.com/overcheck/overcheck/pkg/verdict"
)

// program is a real program that starts processes when it is told to.
type program struct {
	*victim
	name  string // with its version
	way   string // how it is told to
	how   verdict.How
	forks bool // whether that way is by fork
	// start has it start one; refused says how it was told that it may not.
	start func() (refused string)
	// finish waits until what was started has ended; nil: start did.
	finish func()
}

// TestPrograms: what overcheck says of servers and runtimes, which start
// processes by fork or without it, against what then happens to them in each
// mode, with a limit just below what a fork needs and just above, and with a
// largest mapping just below RAM and just above.
func TestPrograms(t *testing.T) {
	needOracle(t)
	needPrograms(t, "redis-server", "redis-cli", "node", "java", "javac", "python3", "ruby", "gcc")
	overcheck, victimBin := build(t, "."), build(t, "./testdata/victim")
	ballast, classes := compile(t)
	letOthersRead(t, victimBin, ballast, filepath.Join(classes, "Spawn.class"))
	guardSysctls(t, victimBin)
	nobody := credential(t, "nobody")
	scripts, err := filepath.Abs("testdata/programs")
	if err != nil {
		t.Fatal(err)
	}
	// readable by nobody, wherever the repository lies
	for _, name := range []string{"spawn.py", "spawn.js", "spawn.rb"} {
		b, err := os.ReadFile(filepath.Join(scripts, name))
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(classes, name), b, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	script := func(name string) string { return filepath.Join(classes, name) }

	var rows programRows
	run := func(name, way string, how verdict.How, forks bool, command ...string) {
		t.Run(name+" "+way, func(t *testing.T) {
			for _, ballastSize := range []size.Bytes{ramAndSwap() / 64 * 63, ramAndSwap() + 64*size.KiB} {
				env, args, order := preload(ballast, ballastSize), command, "fork"
				if command[0] == victimBin {
					env, args, order = nil, []string{victimBin, fmt.Sprintf("merged=%d", ballastSize)}, "exec"
				}
				v := startSpeaker(t, nobody, env, args...)
				p := program{victim: v, name: name, way: way, how: how, forks: forks, start: func() string {
					if errno := v.tell(order, 0); errno != 0 {
						return errno.Error()
					}
					return ""
				}}
				p.atTheBoundary(t, overcheck, &rows)
				v.stop()
			}
		})
	}

	python := "Python " + versionOf(t, `[\d.]+`, "/usr/bin/python3", "--version")
	for _, way := range []struct {
		name  string
		forks bool
	}{{"subprocess", false}, {"os.system", false}, {"preexec_fn", true}, {"os.fork", true}, {"multiprocessing", true}} {
		run(python, way.name, verdict.Either, way.forks, "/usr/bin/python3", script("spawn.py"), way.name)
	}
	run("Node "+versionOf(t, `[\d.]+`, "node", "--version"), "child_process", verdict.ByFork, true, "node", script("spawn.js"))
	ruby := "Ruby " + versionOf(t, `[\d.]+`, "ruby", "--version")
	run(ruby, "spawn", verdict.Either, false, "ruby", script("spawn.rb"), "spawn")
	run(ruby, "fork", verdict.Either, true, "ruby", script("spawn.rb"), "fork")
	for _, java := range javas(t) {
		name := "JVM " + versionOf(t, `(?m)(?:JAVA_VERSION=|")(\d[\w.]*)`, java, "-version")
		run(name, "ProcessBuilder", verdict.WithoutFork, false, java, "-cp", classes, "Spawn")
		for _, mechanism := range []string{"POSIX_SPAWN", "VFORK", "FORK"} {
			how := verdict.WithoutFork
			if mechanism == "FORK" {
				how = verdict.ByFork
			}
			run(name, "launchMechanism="+mechanism, how, how == verdict.ByFork,
				java, "-Djdk.lang.Process.launchMechanism="+mechanism, "-cp", classes, "Spawn")
		}
	}
	run("Go "+strings.TrimPrefix(versionOf(t, `go[\d.]+`, "go", "version"), "go"), "os/exec", verdict.WithoutFork, false, victimBin)

	// Servers with a mapping that mode 0 refuses, and with one that is only large
	// enough for a limit to refuse the fork and leave the server what else it asks
	// for: with nothing left Redis ends itself.
	large := []size.Bytes{size.GiB / 2, ramAndSwap() + 64*size.KiB}
	for _, server := range []string{"redis-server", "valkey-server"} {
		if _, err := exec.LookPath(server); err != nil {
			t.Logf("NO %s: not tried", server)
			continue
		}
		name := server + " " + versionOf(t, `v=([\d.]+)`, server, "--version")
		for _, allocator := range []struct {
			name, library string
			ballast       size.Bytes
		}{{"jemalloc", "", large[0]}, {"jemalloc", "", large[1]}, {"libc malloc", "libc.so.6:", large[0]}} {
			if server == "valkey-server" && allocator.name == "libc malloc" {
				continue // Debian's build crashes so: it asks jemalloc about libc's memory
			}
			t.Run(fmt.Sprintf("%s with %s and %s", name, allocator.name, allocator.ballast), func(t *testing.T) {
				r := startRedis(t, redisOptions{server: server, env: preload(allocator.library+ballast, allocator.ballast), as: nobody})
				if got := r.try("debug", "populate", "10000", "key", "10000"); got != "OK" {
					t.Fatalf("populate: %s", got)
				}
				// 100 MB of data: jemalloc maps them MAP_NORESERVE in mode 0, libc does not.
				held := (&victim{t: t, cmd: r.cmd}).judge(overcheck).Process
				if charged := held.Charge-allocator.ballast > 100e6; charged == (allocator.name == "jemalloc") || *held.Noreserve > 100e6 != (allocator.name == "jemalloc") {
					t.Errorf("with %s: charge %s, noreserve %s", allocator.name, held.Charge, held.Noreserve)
				}
				for _, command := range []string{"bgsave", "bgrewriteaof"} {
					p := program{victim: &victim{t: t, cmd: r.cmd}, name: name + " with " + allocator.name, way: strings.ToUpper(command), how: verdict.ByFork, forks: true}
					p.start, p.finish = func() string { return r.background(command) }, r.finish
					p.atTheBoundary(t, overcheck, &rows)
				}
			})
		}
	}
	for i, o := range []postgresOptions{
		{env: preload(ballast, large[0])}, {env: preload(ballast, large[0]), hugePages: true}, {env: preload(ballast, large[1])},
	} {
		t.Run(fmt.Sprintf("PostgreSQL %+v", o), func(t *testing.T) {
			if i == 2 {
				setSysctl(t, "overcommit_memory", int64(kernel.Always)) // its start forks, too
			}
			s := startPostgres(t, o)
			setSysctl(t, "overcommit_memory", int64(kernel.Heuristic))
			name := s.version
			if o.hugePages {
				name += " with shared_buffers in huge pages"
			}
			p := program{victim: &victim{t: t, cmd: s.cmd}, name: name, way: "a connection", how: verdict.ByFork, forks: true}
			var backends []net.Conn
			p.start = func() string {
				backend, refused := s.connect()
				if backend != nil {
					backends = append(backends, backend)
				}
				return refused
			}
			p.finish = func() {
				before := len(s.children())
				for _, backend := range backends {
					backend.Close()
					before--
				}
				backends = nil
				until(t, "the backend has ended", func() bool { return len(s.children()) <= before })
			}
			p.atTheBoundary(t, overcheck, &rows)
		})
	}
	t.Run("PostgreSQL, many backends", func(t *testing.T) {
		startPostgres(t, postgresOptions{env: preload(ballast, size.GiB/2)}).manyBackends(t, overcheck)
	})
	setSysctl(t, "overcommit_memory", 0)
	t.Logf("%s", rows)
	if page := os.Getenv("OVERCHECK_ACCURACY"); page != "" && !t.Failed() {
		needPrograms(t, "valkey-server")
		rewriteTable(t, page, "programs", rows.String())
	}
}

// adminReserve is what others than root have less of in mode 2 while these tests
// run: so they can be refused, and everybody else on the machine, who is root,
// is not.
const adminReserve = 2 * size.GiB

// atTheBoundary tries p in each mode, on either side of what it needs in mode 2.
func (p program) atTheBoundary(t *testing.T, overcheck string, rows *programRows) {
	t.Helper()
	setSysctl(t, "admin_reserve_kbytes", int64(adminReserve/size.KiB))
	defer setSysctl(t, "overcommit_memory", 0)
	for side := -1; side <= 1; side += 2 {
		quiet := false
		for range 20 {
			if quiet = p.tryModes(t, overcheck, size.Bytes(side), rows); quiet {
				break
			}
		}
		if !quiet {
			t.Fatal("the machine is never quiet enough")
		}
	}
}

// margin is how far beyond the counter's uncertainty the limit is set, and how
// much others may commit or release meanwhile without spoiling the case.
const margin = 24 * size.MiB

func (p program) tryModes(t *testing.T, overcheck string, side size.Bytes, rows *programRows) (quiet bool) {
	t.Helper()
	first := p.judge(overcheck).Admission[kernel.Never]
	h := p.judge(overcheck).Host
	setSysctl(t, "overcommit_kbytes", kbytesFor(*first.Need+side*(*first.Uncertainty+2*margin), h))
	said := p.judge(overcheck)
	if said.Spawn.How != p.how || said.Spawn.Runtime == "" {
		t.Errorf("%s: overcheck says %q of how %q starts others (%s), want %q", p.name, said.Spawn.How, said.Spawn.Runtime, said.Spawn.Detail, p.how)
	}
	var refused []string
	for _, m := range kernel.Modes() {
		setSysctl(t, "overcommit_memory", int64(m))
		refused = append(refused, p.start())
		setSysctl(t, "overcommit_memory", 0)
		if p.finish != nil {
			p.finish()
		}
	}
	if (p.judge(overcheck).Host.Committed() - said.Host.Committed()).Abs() > margin {
		return false
	}
	for m, refusal := range refused {
		expect := kernel.Succeeds
		if p.forks {
			expect = said.Admission[m].Outcome
		}
		row := rows.row(p)
		row.starts++
		if refusal != "" {
			row.refused++
			row.refusal = refusal
		}
		if (expect == kernel.Succeeds) != (refusal == "") || expect == kernel.Uncertain {
			row.wrong++
			a := said.Admission[m]
			t.Errorf("%s, %s, in mode %d: overcheck said %q (headroom %v, uncertainty %v), refused: %q", p.name, p.way, m, expect, a.Headroom, a.Uncertainty, refusal)
		}
	}
	return true
}

// programRow counts what was tried of one program.
type programRow struct {
	name, way, how, refusal string
	starts, refused, wrong  int
}

type programRows []programRow

func (rows *programRows) row(p program) *programRow {
	for i := range *rows {
		if r := &(*rows)[i]; r.name == p.name && r.way == p.way {
			return r
		}
	}
	how := "without fork"
	if p.forks {
		how = "fork"
	}
	*rows = append(*rows, programRow{name: p.name, way: p.way, how: how})
	return &(*rows)[len(*rows)-1]
}

// String is the table in Markdown.
func (rows programRows) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s, `OVERCHECK_ORACLE=1 OVERCHECK_ACCURACY=$PWD/docs/accuracy.md go test -run Programs ./cmd/overcheck`:\n\n", time.Now().UTC().Format(time.DateOnly))
	b.WriteString("| program | asked for | which is | tries | refused | error | wrong |\n|---|---|---|---:|---:|---|---:|\n")
	for _, r := range rows {
		as := r.refusal
		if as != "" {
			as = "`" + as + "`"
		}
		fmt.Fprintf(&b, "| %s | %s | %s | %d | %d | %s | %d |\n", r.name, r.way, r.how, r.starts, r.refused, as, r.wrong)
	}
	return b.String()
}

func needPrograms(t *testing.T, names ...string) {
	t.Helper()
	for _, name := range names {
		if _, err := exec.LookPath(name); err != nil {
			t.Fatalf("OVERCHECK_ORACLE=1 needs %s: .ci/run names the Debian packages", name)
		}
	}
}

// compile makes the preloaded library and the Java class, in one directory.
func compile(t *testing.T) (ballast, classes string) {
	t.Helper()
	dir := t.TempDir()
	ballast = filepath.Join(dir, "ballast.so")
	for _, args := range [][]string{
		{"gcc", "-Wall", "-Werror", "-shared", "-fPIC", "-o", ballast, "testdata/programs/ballast.c"},
		{"javac", "--release", "11", "-Xlint:-options", "-d", dir, "testdata/programs/Spawn.java"},
	} {
		if out, err := exec.Command(args[0], args[1:]...).CombinedOutput(); err != nil {
			t.Fatalf("%q: %v\n%s", args, err, out)
		}
	}
	return ballast, dir
}

// javas are the Java installations of this machine, each once.
func javas(t *testing.T) (paths []string) {
	t.Helper()
	names, _ := filepath.Glob("/usr/lib/jvm/*/bin/java")
	seen := map[string]bool{}
	for _, name := range names {
		real, err := filepath.EvalSymlinks(name)
		if err == nil && !seen[real] {
			seen[real] = true
			paths = append(paths, real)
		}
	}
	if len(paths) == 0 {
		t.Fatal("no Java in /usr/lib/jvm")
	}
	return paths
}

// versionOf finds the first match, or its group, in what a program says of itself.
func versionOf(t *testing.T, pattern string, command ...string) string {
	t.Helper()
	out, err := exec.Command(command[0], command[1:]...).CombinedOutput()
	m := regexp.MustCompile(pattern).FindSubmatch(out)
	if err != nil || m == nil {
		t.Fatalf("%q: %v\n%s", command, err, out)
	}
	return string(m[len(m)-1])
}

func credential(t *testing.T, name string) *syscall.Credential {
	t.Helper()
	u, err := user.Lookup(name)
	if err != nil {
		t.Fatal(err)
	}
	uid, _ := strconv.ParseUint(u.Uid, 10, 32)
	gid, _ := strconv.ParseUint(u.Gid, 10, 32)
	return &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}
}

// preload is an environment in which a program has one more mapping of b bytes.
func preload(ballast string, b size.Bytes) []string {
	return []string{"LD_PRELOAD=" + ballast, fmt.Sprintf("BALLAST=%d", b)}
}

// startSpeaker starts a program that speaks the victim's protocol.
func startSpeaker(t *testing.T, as *syscall.Credential, env []string, command ...string) *victim {
	t.Helper()
	v := &victim{t: t, cmd: exec.Command(command[0], command[1:]...), ops: command}
	v.cmd.SysProcAttr = &syscall.SysProcAttr{Credential: as}
	v.cmd.Dir = os.TempDir()
	v.cmd.Env = append([]string{"PATH=" + os.Getenv("PATH"), "TMPDIR=/tmp"}, env...)
	v.start()
	return v
}

// postgresServer is a real server on a socket of its own.
type postgresServer struct {
	t       *testing.T
	cmd     *exec.Cmd
	socket  string
	version string
}

type postgresOptions struct {
	hugePages bool
	env       []string
}

// startPostgres makes a cluster and starts its postmaster, as the user postgres:
// it refuses to be root.
func startPostgres(t *testing.T, o postgresOptions) *postgresServer {
	t.Helper()
	hugePages := "off"
	if o.hugePages {
		hugePages = "on"
		want := sysctl(t, "nr_hugepages") + 160
		setSysctl(t, "nr_hugepages", want)
		if sysctl(t, "nr_hugepages") < want {
			t.Fatal("160 huge pages could not be had")
		}
	}
	binaries, _ := filepath.Glob("/usr/lib/postgresql/*/bin/postgres")
	if len(binaries) == 0 {
		t.Fatal("OVERCHECK_ORACLE=1 needs postgresql: .ci/run names the Debian packages")
	}
	bin := binaries[len(binaries)-1]
	as := &syscall.SysProcAttr{Credential: credential(t, "postgres")}
	dir, err := os.MkdirTemp("/tmp", "overcheck-pg-") // a socket's path is short
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	if err := os.Chown(dir, int(as.Credential.Uid), int(as.Credential.Gid)); err != nil {
		t.Fatal(err)
	}
	data := filepath.Join(dir, "data")
	command := func(args ...string) *exec.Cmd {
		cmd := exec.Command(args[0], args[1:]...)
		cmd.SysProcAttr, cmd.Dir = as, dir
		cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "LC_ALL=C"}
		return cmd
	}
	if out, err := command(filepath.Join(filepath.Dir(bin), "initdb"), "-D", data, "-A", "trust", "-N").CombinedOutput(); err != nil {
		t.Fatalf("initdb: %v\n%s", err, out)
	}
	s := &postgresServer{t: t, socket: filepath.Join(dir, ".s.PGSQL.5432"), version: "PostgreSQL " + versionOf(t, `[\d.]+`, bin, "--version")}
	s.cmd = command(bin, "-D", data, "-k", dir, "-c", "listen_addresses=", "-c", "shared_buffers=256MB", "-c", "huge_pages="+hugePages,
		"-c", "autovacuum=off", "-c", "logging_collector=off", "-c", "max_connections=50")
	s.cmd.Env = append(s.cmd.Env, o.env...)
	var log bytes.Buffer
	s.cmd.Stderr = &log
	if err := s.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = s.cmd.Process.Signal(syscall.SIGINT) // fast shutdown
		_ = s.cmd.Wait()
	})
	until(t, "postgres answers", func() bool {
		backend, refused := s.connect()
		switch {
		case backend != nil:
			backend.Close()
		case refused != "" && !strings.Contains(refused, "starting up"):
			t.Fatalf("%s\n%s", refused, log.String())
		}
		return backend != nil
	})
	return s
}

// connect makes a connection, which is a fork of the postmaster. Without a
// server, and where it refuses, there is no backend.
func (s *postgresServer) connect() (backend net.Conn, refused string) {
	s.t.Helper()
	conn, err := net.Dial("unix", s.socket)
	if err != nil {
		return nil, ""
	}
	// StartupMessage: length, protocol 3.0, names and values.
	body := append(binary.BigEndian.AppendUint32(nil, 3<<16), "user\x00postgres\x00database\x00postgres\x00\x00"...)
	// A postmaster that cannot fork has answered and closed already.
	_, _ = conn.Write(append(binary.BigEndian.AppendUint32(nil, uint32(len(body)+4)), body...))
	in := bufio.NewReader(conn)
	for {
		kind, err := in.ReadByte()
		switch {
		case err != nil:
			s.t.Fatalf("postgres: the connection ended: %v", err)
		case kind == 'Z': // ReadyForQuery
			return conn, ""
		case kind == 'E':
			// The postmaster speaks protocol 2 here: a text; a backend sends fields.
			text, _ := in.ReadString(0)
			rest := make([]byte, in.Buffered())
			_, _ = in.Read(rest)
			conn.Close()
			return nil, strings.TrimSpace(strings.Trim(text, "\x00") + string(rest))
		}
		var length [4]byte
		if _, err := io.ReadFull(in, length[:]); err != nil {
			s.t.Fatal(err)
		}
		if _, err := in.Discard(int(binary.BigEndian.Uint32(length[:])) - 4); err != nil {
			s.t.Fatal(err)
		}
	}
}

// children are the postmaster's.
func (s *postgresServer) children() (pids []int) {
	s.t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%[1]d/children", s.cmd.Process.Pid))
	if err != nil {
		s.t.Fatal(err)
	}
	for _, word := range strings.Fields(string(b)) {
		pid, _ := strconv.Atoi(word)
		pids = append(pids, pid)
	}
	return pids
}

// manyBackends: each connection that stays is charged as one more postmaster, and
// for what it then allocates. overcheck is asked before each.
func (s *postgresServer) manyBackends(t *testing.T, overcheck string) {
	t.Helper()
	v := &victim{t: t, cmd: s.cmd}
	first := v.judge(overcheck)
	charge := first.Process.Charge
	setSysctl(t, "overcommit_kbytes", kbytesFor(*first.Admission[kernel.Never].Need+charge*5/2, first.Host))
	// So many at a time are judged beforehand, too.
	for children, want := range map[int]kernel.Outcome{3: kernel.Succeeds, 4: kernel.Fails} {
		if got := v.judge(overcheck, "--children", strconv.Itoa(children)).Admission[kernel.Never].Outcome; got != want {
			t.Errorf("--children %d: %s, want %s", children, got, want)
		}
	}
	admitted := 0
	for refused := ""; refused == ""; {
		said := v.judge(overcheck).Admission[kernel.Never]
		var backend net.Conn
		setSysctl(t, "overcommit_memory", int64(kernel.Never))
		backend, refused = s.connect()
		setSysctl(t, "overcommit_memory", 0)
		if backend != nil {
			defer backend.Close()
			admitted++
		}
		if said.Outcome == kernel.Uncertain || (said.Outcome == kernel.Succeeds) != (refused == "") {
			t.Errorf("after %d connections overcheck said %s (headroom %s), refused: %q", admitted, said.Outcome, said.Headroom, refused)
		}
	}
	if admitted != 3 {
		t.Errorf("%d connections of %s each were admitted with room for 3.5", admitted, charge)
	}
	for _, pid := range s.children() {
		child := &victim{t: t, cmd: &exec.Cmd{Process: &os.Process{Pid: pid}}}
		if r := child.judge(overcheck); r.Spawn.How != verdict.WithoutFork {
			t.Errorf("a child of the postmaster: %s, %s", r.Spawn.How, r.Spawn.Detail)
		}
	}
}
