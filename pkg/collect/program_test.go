package collect

import (
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
	if self.Go != runtime.Version() || self.Imports != nil || self.Exe == "" || self.PPID != os.Getppid() {
		t.Errorf("this test: %+v", self)
	}
	for name, forks := range map[string]bool{"sh": true, "sleep": false} {
		// sh waits for its input.
		cmd := exec.Command(name, map[bool][]string{true: {"-s"}, false: {"1000"}}[forks]...)
		in, err := cmd.StdinPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
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
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
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
	if err := os.Symlink(root, m.path(filepath.Join("proc", strconv.Itoa(m.pid), "root"))); err != nil {
		t.Fatal(err)
	}
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
