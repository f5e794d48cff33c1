package collect

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/tools/txtar"

	"github.com/overcheck/overcheck/pkg/kernel"
	"github.com/overcheck/overcheck/pkg/size"
)

var update = flag.Bool("update", false, "write what was got as what is wanted")

// machine is a captured machine, laid out below a directory.
type machine struct {
	dir     string
	pid     int // the captured process: the first one
	archive *txtar.Archive
	file    string
}

func unpack(t *testing.T, name string) machine {
	t.Helper()
	m := machine{dir: t.TempDir(), file: filepath.Join("testdata", name)}
	var err error
	if m.archive, err = txtar.ParseFile(m.file); err != nil {
		t.Fatal(err)
	}
	for _, f := range m.archive.Files {
		if f.Name == "links" {
			for line := range strings.Lines(string(f.Data)) {
				from, to, _ := strings.Cut(strings.TrimSpace(line), " ")
				path := m.path(from)
				if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.Symlink(to, path)); err != nil {
					t.Fatal(err)
				}
			}
			continue
		}
		m.write(t, f.Name, string(f.Data))
		if parts := strings.Split(f.Name, "/"); m.pid == 0 && len(parts) == 3 && parts[2] == "stat" {
			m.pid, _ = strconv.Atoi(parts[1])
		}
	}
	return m
}

func (m machine) path(name string) string { return filepath.Join(m.dir, name) }

func (m machine) write(t *testing.T, name, text string) {
	t.Helper()
	if err := errors.Join(os.MkdirAll(filepath.Dir(m.path(name)), 0o755), os.WriteFile(m.path(name), []byte(text), 0o644)); err != nil {
		t.Fatal(err)
	}
}

func (m machine) collector(t *testing.T) *Collector {
	t.Helper()
	c, err := New(m.path("proc"), m.path("sys"), 4096)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// live reads the machine that the test runs on.
func live(t testing.TB) (*Collector, kernel.Host) {
	t.Helper()
	c, err := New("/proc", "/sys", os.Getpagesize())
	if err != nil {
		t.Fatal(err)
	}
	h, err := c.Host(false)
	if err != nil {
		t.Fatal(err)
	}
	return c, h
}

// facts reads everything.
func (m machine) facts(t *testing.T) (f kernel.Facts, err error) {
	t.Helper()
	c := m.collector(t)
	if f.Host, err = c.Host(true); err != nil {
		return f, err
	}
	if f.Process, err = c.Process(m.pid, f.Host); err != nil {
		return f, err
	}
	if err = c.Maps(&f.Process); err != nil {
		return f, err
	}
	f.Mappings, err = c.Smaps(&f.Process)
	return f, err
}

func TestCapturedMachines(t *testing.T) {
	names, err := filepath.Glob("testdata/*.txtar")
	if err != nil || len(names) == 0 {
		t.Fatalf("no captured machines: %v", err)
	}
	for _, name := range names {
		t.Run(filepath.Base(name), func(t *testing.T) {
			m := unpack(t, filepath.Base(name))
			got, err := m.facts(t)
			if err != nil {
				t.Fatal(err)
			}
			// Setting what is set already changes nothing: the limit is computed as
			// that kernel computed it.
			same, err := kernel.ParseChange(fmt.Sprintf("vm.overcommit_ratio=%d", got.Host.OvercommitRatio))
			if err != nil {
				t.Fatal(err)
			}
			changed, err := same(got)
			if err != nil || changed.Host.CommitLimit != got.Host.CommitLimit {
				t.Errorf("CommitLimit is %d, computed %d (%v)", got.Host.CommitLimit, changed.Host.CommitLimit, err)
			}
			var want kernel.Facts
			for i, f := range m.archive.Files {
				if f.Name != "want.json" {
					continue
				}
				if *update {
					m.archive.Files[i].Data, _ = json.MarshalIndent(got, "", " ")
					if err := os.WriteFile(m.file, txtar.Format(m.archive), 0o644); err != nil {
						t.Fatal(err)
					}
					return
				}
				if err := json.Unmarshal(f.Data, &want); err != nil {
					t.Fatal(err)
				}
			}
			if d := cmp.Diff(want, got); d != "" {
				t.Errorf("(-want +got)\n%s", d)
			}
		})
	}
}

// TestSpoiled takes a good capture and breaks one thing: the error names the file
// and what is wrong with it, or the facts say what is not known. Never a number.
func TestSpoiled(t *testing.T) {
	const capture = "linux-6.18-cgroup-v1.txtar"
	pid := strconv.Itoa(unpack(t, capture).pid)
	proc := "proc/" + pid + "/"
	drop := func(name string) func(*testing.T, machine) {
		return func(t *testing.T, m machine) {
			if err := os.RemoveAll(m.path(name)); err != nil {
				t.Fatal(err)
			}
		}
	}
	put := func(name, text string) func(*testing.T, machine) {
		return func(t *testing.T, m machine) { m.write(t, name, text) }
	}
	replace := func(name, from, to string) func(*testing.T, machine) {
		return func(t *testing.T, m machine) {
			b, err := os.ReadFile(m.path(name))
			if err != nil || !strings.Contains(string(b), from) {
				t.Fatalf("%s: no %q (%v)", name, from, err)
			}
			m.write(t, name, strings.Replace(string(b), from, to, 1))
		}
	}
	half := func(name string) func(*testing.T, machine) {
		return func(t *testing.T, m machine) {
			b, err := os.ReadFile(m.path(name))
			if err != nil {
				t.Fatal(err)
			}
			m.write(t, name, string(b[:len(b)/2+3]))
		}
	}
	for _, tt := range []struct {
		name  string
		spoil func(*testing.T, machine)
		want  string // of the error; "" where the facts must come, as check says
		check func(kernel.Facts) bool
	}{
		{"no mode", drop("proc/sys/vm/overcommit_memory"), "vm.overcommit_memory: not there", nil},
		{"mode abc", put("proc/sys/vm/overcommit_memory", "abc\n"), "vm.overcommit_memory", nil},
		{"mode 7", put("proc/sys/vm/overcommit_memory", "7\n"), "vm.overcommit_memory: 7: want 0, 1 or 2", nil},
		{"mode empty", put("proc/sys/vm/overcommit_memory", ""), "vm.overcommit_memory: []: want one number", nil},
		{"no user_reserve: an older kernel", drop("proc/sys/vm/user_reserve_kbytes"), "", func(f kernel.Facts) bool { return f.Host.UserReserve == nil }},
		{"user_reserve 0 is not absent", put("proc/sys/vm/user_reserve_kbytes", "0\n"), "", func(f kernel.Facts) bool { return f.Host.UserReserve != nil && *f.Host.UserReserve == 0 }},
		{"no CommitLimit", replace("proc/meminfo", "CommitLimit:", "CommitLimbo:"), "meminfo: CommitLimit: not there", nil},
		{"Committed_AS abc", replace("proc/meminfo", "Committed_AS:", "Committed_AS: abc"), "meminfo", nil},
		{"meminfo cut off", half("proc/meminfo"), "meminfo", nil},
		{"no MemAvailable: an older kernel", replace("proc/meminfo", "MemAvailable:", "MemAvoidable:"), "", func(f kernel.Facts) bool { return f.Host.MemAvailable == nil }},
		{"loadavg cut off", put("proc/loadavg", "0.00 0.01\n"), `loadavg: "0.00 0.01": want five fields`, nil},
		{"vmstat without nr_shmem", replace("proc/vmstat", "nr_shmem ", "nr_shlem "), "vmstat: want nr_free_pages", nil},
		{"zoneinfo without managed pages, as before 3.10", replace("proc/zoneinfo", "managed", "mangled"), "", func(f kernel.Facts) bool { return f.Host.Old.TotalReserve > 0 }},
		{"zoneinfo empty", put("proc/zoneinfo", ""), "zoneinfo: no zones", nil},
		{"cpu list abc", put("sys/devices/system/cpu/online", "abc\n"), `online: cpu list "abc"`, nil},
		{"no sysfs: counted in /proc/stat", func(t *testing.T, m machine) {
			drop("sys/devices")(t, m)
			put("proc/stat", "cpu 1\ncpu0 1\ncpu1 1\ncpu2 1\nintr 1\n")(t, m)
		}, "", func(f kernel.Facts) bool { return f.Host.CPUsOnline == 3 }},

		{"no such process", drop("proc/" + pid), "process " + pid + ": no such process", nil},
		{"a zombie", replace(proc+"stat", ") S ", ") Z "), "is a zombie", nil},
		{"dying: no memory any more", replace(proc+"status", "VmSize:", "NoSize:"), "process " + pid + " exited", nil},
		{"a kernel thread", replace(proc+"stat", " 4194304 ", " 2097216 "), "is a kernel thread", nil},
		{"a thread", replace(proc+"status", "Tgid:\t"+pid, "Tgid:\t7"), "it is a thread of process 7", nil},
		{"status cut off", half(proc + "status"), "status: ", nil},
		{"Uid abc", replace(proc+"status", "Uid:\t0", "Uid:\tabc"), `status: field Uid: "abc`, nil},
		{"VmRSS without unit", replace(proc+"status", "VmRSS:\t", "VmRSS:\t7 furlongs"), "status: field VmRSS: ", nil},
		{"statm empty", put(proc+"statm", ""), "statm: ", nil},
		{"statm abc", put(proc+"statm", "abc 1 2\n"), `statm: "abc 1 2": want pages`, nil},
		{"smaps cut off", half(proc + "smaps"), "smaps: line ", nil},
		{"smaps empty: an old kernel's refusal", put(proc+"smaps", ""), "smaps: empty: permission denied", nil},
		{"smaps short: the process called execve", put(proc+"smaps", "1000-2000 rw-p 00000000 00:00 0 \nVmFlags: rd wr ac \n"), "changed while they were read", nil},
		{"maps empty: an old kernel's refusal", put(proc+"maps", ""), "", func(f kernel.Facts) bool { return f.Process.Source == kernel.FromSmaps }},
		{"maps short", put(proc+"maps", "1000-2000 rw-p 00000000 00:00 0 \n"), "changed while they were read", nil},
		{"no vmstat: mode 0 alone cannot be judged", drop("proc/vmstat"), "", func(f kernel.Facts) bool { return f.Host.Old == nil }},
		{"cgroup directory gone", drop("sys/fs/cgroup/pids"), "", func(f kernel.Facts) bool { return f.Process.PidsUnseen != "" }},
		{"overcommit_kbytes too large for any machine", put("proc/sys/vm/overcommit_kbytes", "9223372036854775807\n"), "", func(f kernel.Facts) bool {
			return *f.Host.OvercommitKbytes > size.PiB
		}},
		{"maps abc", put(proc+"maps", "abc\n"), `maps: line 1: "abc"`, nil},
		{"a limit of no tasks at all is not no limit", func(t *testing.T, m machine) {
			replace(proc+"status", "CapEff:\t", "CapEff:\t0000000000000000 ")(t, m)
		}, "CapEff", nil},
		{"pids.max abc", put("sys/fs/cgroup/pids/app/pids.max", "abc\n"), `pids.max: "abc": want a number or max`, nil},
		{"pids.max 0 is a limit", put("sys/fs/cgroup/pids/app/pids.max", "0\n"), "", func(f kernel.Facts) bool {
			return len(f.Process.Pids) == 2 && f.Process.Pids[1].Max == kernel.Limit{Value: 0}
		}},
		{"pids.max gone: not limited there", drop("sys/fs/cgroup/pids/app/pids.max"), "", func(f kernel.Facts) bool { return len(f.Process.Pids) == 1 && f.Process.PidsUnseen == "" }},
		{"memory limit cut off", put("sys/fs/cgroup/memory/app/memory.limit_in_bytes", "\n"), "memory.limit_in_bytes", nil},
		{"memory.stat abc", put("sys/fs/cgroup/memory/app/memory.stat", "total_inactive_file abc\n"), "memory.stat: inactive_file", nil},
		{"cgroup line without a path", put(proc+"cgroup", "8:pids\n"), `cgroup: "8:pids": want ID:CONTROLLERS:/PATH`, nil},
		{"cgroup outside of what is mounted", put(proc+"cgroup", "8:pids:/../other\n4:memory:/../other\n"), "", func(f kernel.Facts) bool {
			return f.Process.PidsUnseen != "" && f.Process.MemoryUnseen != "" && f.Process.Pids == nil
		}},
		{"overcheck in a container: ancestors unseen", func(t *testing.T, m machine) {
			self, err := os.Readlink(m.path("proc/self"))
			if err != nil {
				t.Fatal(err)
			}
			link := "proc/" + self + "/ns/cgroup"
			drop(link)(t, m)
			if err := os.Symlink("cgroup:[4026532999]", m.path(link)); err != nil {
				t.Fatal(err)
			}
		}, "", func(f kernel.Facts) bool { return strings.Contains(f.Process.PidsUnseen, "run on the host") }},
		{"no mountinfo: cgroups not found", func(t *testing.T, m machine) {
			self, _ := os.Readlink(m.path("proc/self"))
			drop("proc/"+self+"/mountinfo")(t, m)
		}, "", func(f kernel.Facts) bool { return strings.Contains(f.Process.PidsUnseen, "not mounted") }},
		{"an identity uid_map proves nothing", drop(proc + "ns/user"), "", func(f kernel.Facts) bool { return f.Process.CapSysAdmin == nil }},
		{"another user namespace", func(t *testing.T, m machine) {
			drop(proc+"ns/user")(t, m)
			put(proc+"uid_map", "0 1000 1\n")(t, m)
		}, "", func(f kernel.Facts) bool { return f.Process.CapSysAdmin != nil && !*f.Process.CapSysAdmin }},
		{"children in a pid namespace without a live init", func(t *testing.T, m machine) {
			drop(proc+"ns/pid_for_children")(t, m)
			if err := os.Symlink("pid:[4026532999]", m.path(proc+"ns/pid_for_children")); err != nil {
				t.Fatal(err)
			}
		}, "", func(f kernel.Facts) bool { return f.Process.PidNSInitDead != nil && *f.Process.PidNSInitDead }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			m := unpack(t, capture)
			tt.spoil(t, m)
			f, err := m.facts(t)
			switch {
			case tt.want == "" && err != nil:
				t.Error(err)
			case tt.want == "" && !tt.check(f):
				t.Errorf("%+v", f)
			case tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)):
				t.Errorf("%v, want %q", err, tt.want)
			}
		})
	}
}

// TestProcessReplaced: the pid is another process's when it is read again.
func TestProcessReplaced(t *testing.T) {
	m := unpack(t, "linux-6.18-cgroup-v1.txtar")
	c := m.collector(t)
	h, err := c.Host(false)
	if err != nil {
		t.Fatal(err)
	}
	p, err := c.Process(m.pid, h)
	if err != nil {
		t.Fatal(err)
	}
	before := p
	stat := fmt.Sprintf("proc/%d/stat", m.pid)
	b, err := os.ReadFile(m.path(stat))
	if err != nil {
		t.Fatal(err)
	}
	m.write(t, stat, strings.Replace(string(b), strconv.FormatUint(p.StartTime, 10), "77", 1))
	want := fmt.Sprintf("process %d exited", m.pid)
	if _, err := c.Smaps(&p); !errors.Is(err, ErrExited) || err.Error() != want {
		t.Errorf("replaced: %v, want %s", err, want)
	}
	if err := os.RemoveAll(filepath.Dir(m.path(stat))); err != nil {
		t.Fatal(err)
	}
	if err := c.Maps(&p); !errors.Is(err, ErrExited) {
		t.Errorf("gone: %v, want %s", err, want)
	}
	if d := cmp.Diff(before, p); d != "" {
		t.Errorf("numbers of two processes in one:\n%s", d)
	}
}

// TestUnprivileged: another user's process gives bounds, not an error.
func TestUnprivileged(t *testing.T) {
	if os.Getenv("OVERCHECK_TEST_AS_NOBODY") == "" {
		if os.Geteuid() != 0 {
			t.Skip("needs root, to become another user")
		}
		exe, err := os.Executable()
		if err != nil {
			t.Fatal(err)
		}
		b, err := os.ReadFile(exe)
		if err != nil {
			t.Fatal(err)
		}
		dir, err := os.MkdirTemp("", "overcheck")
		if err != nil {
			t.Fatal(err)
		}
		defer os.RemoveAll(dir)
		copied := filepath.Join(dir, "test")
		if err := errors.Join(os.Chmod(dir, 0o755), os.WriteFile(copied, b, 0o755)); err != nil {
			t.Fatal(err)
		}
		cmd := exec.Command(copied, "-test.run=^TestUnprivileged$", "-test.v")
		cmd.Env = append(os.Environ(), "OVERCHECK_TEST_AS_NOBODY=1")
		cmd.Dir = "/"
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("%v\n%s", err, out)
		}
		return
	}
	c, h := live(t)
	p, err := c.Process(os.Getppid(), h) // root's
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Maps(&p); err != nil {
		t.Fatal(err)
	}
	if p.Source != kernel.FromStatus || p.ChargeMin != 0 || p.ChargeMax != p.TotalVM || p.Charge == 0 {
		t.Errorf("bounds: %+v", p)
	}
	if _, err := c.Smaps(&p); !errors.Is(err, os.ErrPermission) {
		t.Errorf("smaps: %v, want permission denied", err)
	}
}

func TestOwnChargeIsTakenOut(t *testing.T) {
	c, h := live(t)
	s, err := c.summary("self", "smaps")
	if err != nil {
		t.Fatal(err)
	}
	if diff := (s.Charge + s.Dontfork - h.OwnCharge).Abs(); h.OwnCharge == 0 || diff > 64*size.MiB {
		t.Errorf("own charge %s, smaps says %s", h.OwnCharge, s.Charge)
	}
}

func TestAncestorPaths(t *testing.T) {
	for _, tt := range []struct {
		name, root, want string
		ok               bool
	}{
		{"/", "/", "/", true},
		{"/a/b", "/", "/a/b", true},
		{"/a/b", "/a", "/b", true},
		{"/a", "/a", "/", true},
		{"/ab", "/a", "", false},
		{"/../x", "/", "", false},          // beside overcheck's own namespace
		{"/../../x", "/../..", "/x", true}, // mounted from above it
		{"/../y", "/../..", "", false},
		{"/..", "/", "", false},
		{"/..hidden", "/", "/..hidden", true},
	} {
		if got, ok := below(tt.name, tt.root); got != tt.want || ok != tt.ok {
			t.Errorf("below(%q, %q) = %q, %v, want %q, %v", tt.name, tt.root, got, ok, tt.want, tt.ok)
		}
	}
}

func TestParseCPUList(t *testing.T) {
	for in, want := range map[string]int{"0": 1, "0-3": 4, "0-3,8": 5, "0,2,4-5": 4} {
		if got, err := parseCPUList(in); err != nil || got != want {
			t.Errorf("%q: %d, %v, want %d", in, got, err, want)
		}
	}
	for _, in := range []string{"", "a", "3-1", "0-", "1,,2"} {
		if got, err := parseCPUList(in); err == nil {
			t.Errorf("%q: %d, want an error", in, got)
		}
	}
}

func FuzzParsers(f *testing.F) {
	f.Add("Uid:\t0\t0\nCapEff:\t0000\nVmRSS:\t 12 kB\n")
	f.Add("nr_free_pages 12\n")
	f.Add("Max processes   unlimited  unlimited processes\n")
	f.Add("0::/a\n")
	f.Fuzz(func(t *testing.T, s string) {
		// None of them may panic, or make a negative quantity of a positive one.
		if st, err := parseStatus(s); err == nil && (st.rss < 0 || st.pageTables < 0) {
			t.Errorf("%+v", st)
		}
		_, _ = parseVmstat(s)
		_, _ = parseLoadavgThreads(s)
		_, _, _ = parseNprocLimit(s)
		if l, err := parseLimit(s); err == nil && l.Value < 0 {
			t.Errorf("limit %+v", l)
		}
		_ = parseMemoryStat(s, &kernel.MemoryCgroup{})
		_, _, _ = (&Collector{}).ancestors(s, "pids")
		_ = isInit(s)
	})
}
