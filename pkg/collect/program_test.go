package collect

import (
	"bufio"
	"debug/buildinfo"
	"encoding/binary"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/overcheck/overcheck/pkg/kernel"
)

// TestImportsOfLiveProcesses: this very test is a Go program; a shell imports
// fork, and sleep starts nothing.
func TestImportsOfLiveProcesses(t *testing.T) {
	c, h := live(t)
	read := func(pid int) kernel.Program {
		p, err := c.Process(pid, h)
		if err != nil {
			t.Fatal(err)
		}
		if err := c.Maps(&p); err != nil {
			t.Fatal(err)
		}
		c.Runtime(&p)
		c.Imports(&p)
		return p.Program
	}
	self := read(os.Getpid())
	if self.Go != runtime.Version() || self.GoArch != runtime.GOARCH || self.Exe == "" || self.PPID != os.Getppid() {
		t.Errorf("this test: %+v", self)
	}
	for name, forks := range map[string]bool{"sh": true, "cat": false} {
		cmd := exec.Command(name)
		in, err := cmd.StdinPipe()
		if err != nil {
			t.Fatal(err)
		}
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		// Once it answers, its libraries are mapped.
		fmt.Fprintln(in, "echo ready")
		if _, err := bufio.NewReader(out).ReadString('\n'); err != nil {
			t.Fatal(err)
		}
		got := read(cmd.Process.Pid)
		if got.Imports == nil || (len(got.Imports.Fork) > 0) != forks || got.Forked || got.Go != "" {
			t.Errorf("%s: %+v, %+v", name, got, got.Imports)
		}
		if !slices.ContainsFunc(got.Libraries, func(lib string) bool { return isLibc(filepath.Base(lib)) }) || slices.Contains(got.Libraries, got.Exe) {
			t.Errorf("%s: libraries %q", name, got.Libraries)
		}
		in.Close()
		_ = cmd.Wait()
	}
}

// TestStaticProgramIsUnknown: a static program has fork in itself, and imports
// nothing, even where it has a table of dynamic symbols (static-pie).
func TestStaticProgramIsUnknown(t *testing.T) {
	if _, err := exec.LookPath("gcc"); err != nil {
		t.Log("no gcc: not tried")
		return
	}
	dir := t.TempDir()
	write(t, filepath.Join(dir, "x.c"), "#include <unistd.h>\nint main(void) { write(1, \"ready\\n\", 6); pause(); return fork(); }\n")
	c, h := live(t)
	for _, how := range []string{"-static", "-static-pie"} {
		bin := filepath.Join(dir, "x"+how)
		if out, err := exec.Command("gcc", how, "-o", bin, filepath.Join(dir, "x.c")).CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		cmd := exec.Command(bin)
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		_, _ = bufio.NewReader(out).ReadString('\n')
		p, err := c.Process(cmd.Process.Pid, h)
		if err == nil {
			err = c.Maps(&p)
		}
		if err != nil {
			t.Fatal(err)
		}
		c.Imports(&p)
		if p.Program.Imports != nil {
			t.Errorf("%s: %+v", how, p.Program.Imports)
		}
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	}
}

// hugeTables are ELF files that claim tables of hundreds of GiB, in sparse files
// that have them: the bytes past the end are zeroes.
func hugeTables() map[string][]byte {
	le := binary.LittleEndian
	const sectionSize = 64
	header := func(shnum, shstrndx uint16) []byte {
		h := make([]byte, 64)
		copy(h, "\x7fELF\x02\x01\x01")
		le.PutUint16(h[16:], 3)
		le.PutUint16(h[18:], 62)
		le.PutUint32(h[20:], 1)
		le.PutUint64(h[40:], 64)
		le.PutUint16(h[52:], 64)
		le.PutUint16(h[58:], sectionSize)
		le.PutUint16(h[60:], shnum)
		le.PutUint16(h[62:], shstrndx)
		return h
	}
	section := func(kind uint32, offset, length uint64, link uint32, entry uint64) []byte {
		s := make([]byte, sectionSize)
		le.PutUint32(s[4:], kind)
		le.PutUint64(s[24:], offset)
		le.PutUint64(s[32:], length)
		le.PutUint32(s[40:], link)
		le.PutUint64(s[56:], entry)
		return s
	}
	const huge = 1 << 38
	strings := section(3, 4096, huge, 0, 0)
	return map[string][]byte{
		"2^31 sections":   slices.Concat(header(0, 0), section(0, 0, 1<<31, 0, 0)),
		"section names":   slices.Concat(header(2, 1), section(0, 0, 0, 0, 0), strings),
		"dynamic symbols": slices.Concat(header(4, 3), section(0, 0, 0, 0, 0), section(11, 4096, huge, 2, 24), strings, section(3, 4096, 1, 0, 0)),
		"symbol versions": slices.Concat(header(5, 3), section(0, 0, 0, 0, 0), section(11, 4096, 48, 2, 24), section(3, 4096, 16, 0, 0), section(3, 4096, 1, 0, 0), section(0x6fffffff, 4096, huge, 0, 2)),
	}
}

// TestHugeTables: what a file claims is not read without bound.
func TestHugeTables(t *testing.T) {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	defer func() {
		runtime.ReadMemStats(&after)
		if after.TotalAlloc-before.TotalAlloc > 32*mostRead {
			t.Errorf("%d bytes were allocated", after.TotalAlloc-before.TotalAlloc)
		}
	}()
	for name, b := range hugeTables() {
		file := filepath.Join(t.TempDir(), "elf")
		write(t, file, string(b))
		if err := os.Truncate(file, 1<<40); err != nil {
			t.Log("no file of 1 TiB here: the bytes behind its end are not there")
		}
		f, err := os.Open(file)
		if err != nil {
			t.Fatal(err)
		}
		reader := &budget{f, mostRead}
		var found kernel.Imports
		_ = importsOf(&found, f, name)
		if _, err := buildinfo.Read(reader); err == nil {
			t.Errorf("%s: has build information", name)
		}
		_ = f.Close()
	}
	if _, err := (&budget{strings.NewReader("0123456789"), 4}).ReadAt(make([]byte, 5), 0); err == nil {
		t.Error("a budget of 4 bytes let 5 be read")
	}
}

func TestIsLibc(t *testing.T) {
	for name, want := range map[string]bool{
		"libc.so.6": true, "libc-2.31.so": true, "libpthread-2.31.so": true, "ld-linux-x86-64.so.2": true, "ld-2.31.so": true,
		"ld-musl-x86_64.so.1": true, "libc.musl-x86_64.so.1": true,
		"libcrypto.so.3": false, "libcap.so.2": false, "libc++.so.1": false, "libldap-2.5.so.0": false,
	} {
		if got := isLibc(name); got != want {
			t.Errorf("%s: %v", name, got)
		}
	}
}

// jvm is a made-up process that has mapped a libjvm.so, its root in root.
func jvm(t *testing.T, root string) (machine, *kernel.Process) {
	t.Helper()
	m := unpack(t, "linux-6.18-cgroup-v1.txtar")
	proc := filepath.Join("proc", strconv.Itoa(m.pid))
	if err := os.Symlink(root, m.path(filepath.Join(proc, "root"))); err != nil {
		t.Fatal(err)
	}
	m.write(t, filepath.Join(proc, "cmdline"), "java\x00Main\x00")
	m.write(t, filepath.Join(proc, "environ"), "")
	return m, &kernel.Process{PID: m.pid, Program: kernel.Program{Libraries: []string{"/usr/lib/libz.so.1", "/opt/jdk/lib/server/libjvm.so"}}}
}

func TestJavaVersion(t *testing.T) {
	root := t.TempDir()
	write(t, filepath.Join(root, "opt/jdk/release"), "IMPLEMENTOR=\"x\"\nJAVA_VERSION=\"17.0.15\"\nJAVA_VERSION_DATE=\"2025-04-15\"\n")
	m, p := jvm(t, root)
	m.collector(t).Runtime(p)
	if p.Program.Java != "17.0.15" {
		t.Errorf("%+v", p.Program)
	}
}

// TestHostileRelease: what another process's file system holds under that name
// must neither block, nor lead out of it, nor take much.
func TestHostileRelease(t *testing.T) {
	outside := filepath.Join(t.TempDir(), "release")
	write(t, outside, "JAVA_VERSION=\"outside\"\n")
	for name, make := range map[string]func(path string) error{
		"a fifo":            func(path string) error { return syscall.Mkfifo(path, 0o644) },
		"a link outside":    func(path string) error { return os.Symlink(outside, path) },
		"a link up":         func(path string) error { return os.Symlink(strings.Repeat("../", 40)+outside, path) },
		"a directory":       func(path string) error { return os.Mkdir(path, 0o755) },
		"huge, on one line": func(path string) error { return os.WriteFile(path, []byte(strings.Repeat("x", 1<<20)), 0o644) },
		"absent":            func(string) error { return nil },
	} {
		root := t.TempDir()
		write(t, filepath.Join(root, "opt/jdk/lib/server/libjvm.so"), "")
		if err := make(filepath.Join(root, "opt/jdk/release")); err != nil {
			t.Fatal(err)
		}
		m, p := jvm(t, root)
		m.collector(t).Runtime(p)
		if p.Program.Java != "" {
			t.Errorf("%s: %q", name, p.Program.Java)
		}
	}
}

func TestLaunchMechanism(t *testing.T) {
	const property = "-Djdk.lang.Process.launchMechanism="
	for _, tt := range []struct{ cmdline, environ, want string }{
		{"java\x00-Xmx1g\x00Main\x00", "PATH=/bin\x00", ""},
		{"java\x00" + property + "FORK\x00Main\x00", "", "FORK"},
		{"java\x00" + property + "FORK\x00" + property + "posix_spawn\x00", "", "POSIX_SPAWN"},
		{"java\x00Main\x00", "JAVA_TOOL_OPTIONS=-Xmx1g " + property + "FORK\x00", "FORK"},
		{"java\x00Main\x00", "JDK_JAVA_OPTIONS=" + property + "VFORK\x00JAVA_TOOL_OPTIONS=" + property + "FORK\x00", "VFORK"},
		{"java\x00" + property + "FORK\x00", "JAVA_TOOL_OPTIONS=" + property + "VFORK\x00", "FORK"},
		{"java\x00Main\x00", "OTHER=" + property + "FORK\x00", ""},
		{"java\x00" + property + "VFORK\x00Main\x00", "_JAVA_OPTIONS=" + property + "FORK\x00", "FORK"},
		{"java\x00" + property + "FORK\x00-cp\x00.\x00Main\x00" + property + "VFORK\x00", "", "FORK"},
		{"java\x00-jar\x00x.jar\x00" + property + "FORK\x00", "", ""},
		{"java\x00@args\x00Main\x00", "", "?"},
		{"java\x00-XX:VMOptionsFile=f\x00Main\x00", "", "?"},
		{"java\x00-XX:Flags=f\x00" + property + "FORK\x00Main\x00", "", "FORK"},
		{"java\x00Main\x00", "JDK_JAVA_OPTIONS=@f\x00", "?"},
	} {
		m, p := jvm(t, t.TempDir())
		proc := "proc/" + strconv.Itoa(m.pid) + "/"
		m.write(t, proc+"cmdline", tt.cmdline)
		m.write(t, proc+"environ", tt.environ)
		m.collector(t).Runtime(p)
		if p.Program.JavaLaunch != tt.want {
			t.Errorf("%q, %q: got %q, want %q", tt.cmdline, tt.environ, p.Program.JavaLaunch, tt.want)
		}
	}
}

func write(t *testing.T, name, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(name, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

// FuzzImports: another process's file may say anything.
func FuzzImports(f *testing.F) {
	for _, name := range []string{"/bin/true", "/bin/sh"} {
		if b, err := os.ReadFile(name); err == nil {
			f.Add(b)
		}
	}
	f.Add([]byte("\x7fELF"))
	f.Fuzz(func(_ *testing.T, b []byte) {
		var found kernel.Imports
		_ = importsOf(&found, strings.NewReader(string(b)), "x")
	})
}
