package main

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/overcheck/overcheck/pkg/kernel"
	"github.com/overcheck/overcheck/pkg/size"
	"github.com/overcheck/overcheck/pkg/verdict"
)

// applied counts what became of the remedies.
type applied struct {
	tried, worked, lesser, minimal int
	ids                            map[string]int
}

// TestRemediesApplied makes forks fail, asks overcheck what to do, does it, by the
// commands that it prints: then the fork must succeed. One step less must not be
// enough, beyond what the kernel's counter may be off. What undoes it must.
func TestRemediesApplied(t *testing.T) {
	needOracle(t)
	needPrograms(t, "sysctl", "prlimit", "mkswap", "swapon")
	overcheck, victimBin := build(t, "."), build(t, "./testdata/victim")
	c := applied{ids: map[string]int{}}
	for _, tt := range []struct {
		name string
		run  func(*testing.T, string, string, *applied)
	}{
		{"mode 2, limit in kbytes", remediesInMode2},
		{"mode 2, ratio and huge pages", remediesOfRatio},
		{"mode 0, a mapping beyond RAM and swap", remediesInMode0},
		{"pids.max", remedyOfPidsMax},
		{"memory.max", remedyOfMemoryMax},
		{"RLIMIT_NPROC", remedyOfNproc},
		{"threads-max", remedyOfThreadsMax},
	} {
		t.Run(tt.name, func(t *testing.T) {
			guardSysctls(t, victimBin)
			tt.run(t, overcheck, victimBin, &c)
		})
	}
	t.Logf("%d remedies applied, %d worked; one step less tried of %d, %d were minimal; %v", c.tried, c.worked, c.lesser, c.minimal, c.ids)
	if c.tried == 0 || c.worked != c.tried || c.minimal != c.lesser {
		t.Error("not all")
	}
}

// remedies asks for those of a process, without margin.
func (v *victim) remedies(overcheck string, args ...string) verdict.Report {
	v.t.Helper()
	r := v.judge(overcheck, append(args, "--margin", "0")...)
	if r.Verdict != kernel.Fails {
		v.t.Fatalf("the verdict is %s", r.Verdict)
	}
	return r
}

// applyAll applies each remedy that is made of commands. lesser gives what is one
// step less than what was set, beyond uncertainty; "": there is none.
func (c *applied) applyAll(t *testing.T, v *victim, r verdict.Report, lesser func(verdict.Remedy) string) {
	t.Helper()
	fails := func() bool { return v.fork() != 0 }
	for _, m := range r.Remedies {
		if len(m.Commands) == 0 {
			continue
		}
		if !fails() {
			t.Fatalf("%s: the fork succeeds before", m.ID)
		}
		c.tried++
		c.ids[m.ID]++
		shell(t, m.Commands...)
		worked := !fails()
		less := lesser(m)
		if less != "" {
			c.lesser++
			shell(t, less)
			if fails() {
				c.minimal++
			} else {
				t.Errorf("%s: %s is enough, %q was found", m.ID, less, m.Commands)
			}
		}
		shell(t, m.Undo...)
		if worked {
			c.worked++
		} else {
			t.Errorf("%s: %q: the fork still fails", m.ID, m.Commands)
		}
		if !fails() {
			t.Errorf("%s: undone by %q, the fork succeeds", m.ID, m.Undo)
		}
	}
}

func shell(t *testing.T, commands ...string) {
	t.Helper()
	cmd := exec.Command("sh", "-e", "-c", strings.Join(commands, "\n"))
	cmd.Env = append(os.Environ(), "PATH="+os.Getenv("PATH")+":/usr/sbin:/sbin")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("%q: %v\n%s", commands, err, out)
	}
}

// lesserLimit is what sets the commit limit lower by more than the counter may be
// off in both directions.
func lesserLimit(r verdict.Report) func(verdict.Remedy) string {
	e := *r.Admission[kernel.Never].Uncertainty
	number := func(m verdict.Remedy, key string) int64 {
		n, _ := strconv.ParseInt(strings.TrimSuffix(m.Set[key], "B"), 10, 64)
		return n
	}
	return func(m verdict.Remedy) string {
		switch m.ID {
		case "overcommit-kbytes":
			return fmt.Sprintf("sysctl -w vm.overcommit_kbytes=%d", number(m, "vm.overcommit_kbytes")-int64(2*e/size.KiB)-4)
		case "user-reserve":
			return fmt.Sprintf("sysctl -w vm.user_reserve_kbytes=%d", number(m, "vm.user_reserve_kbytes")+int64(2*e/size.KiB)+4)
		case "overcommit-ratio": // the step before it, and as many more as make up the uncertainty
			percent := r.Host.MemTotal / 100
			steps := int64((2*e+percent-1)/percent) + 1
			return fmt.Sprintf("sysctl -w vm.overcommit_ratio=%d", number(m, "vm.overcommit_ratio")-steps)
		}
		return ""
	}
}

func remediesInMode2(t *testing.T, overcheck, victimBin string, c *applied) {
	setSysctl(t, "user_reserve_kbytes", 512*1024)
	v := startVictim(t, victimBin, nil, "anon=2147483648", "protnone=34359738368") // a large total_vm: all of the reserve
	defer v.stop()
	first := v.judge(overcheck)
	a := first.Admission[kernel.Never]
	setSysctl(t, "overcommit_kbytes", kbytesFor(*a.Need-*a.Uncertainty-128*size.MiB, first.Host))
	setSysctl(t, "overcommit_memory", int64(kernel.Never))
	defer setSysctl(t, "overcommit_memory", 0)
	r := v.remedies(overcheck)
	want(t, r, "overcommit-kbytes", "overcommit-ratio", "user-reserve", "add-swap", "overcommit-heuristic", "overcommit-always", "madvise-dontfork", "shrink-process")
	c.applyAll(t, v, r, lesserLimit(r))
}

func remediesOfRatio(t *testing.T, overcheck, victimBin string, c *applied) {
	before := sysctl(t, "nr_hugepages")
	setSysctl(t, "nr_hugepages", before+1500)
	v := startVictim(t, victimBin, nil, "anon=2147483648")
	defer v.stop()
	first := v.judge(overcheck)
	percent := (first.Host.MemTotal - first.Host.Hugetlb) / 100
	// The largest ratio that refuses, beyond the uncertainty.
	a := first.Admission[kernel.Never]
	ratio := int64((*a.Need - *a.Uncertainty - 8*size.MiB - first.Host.SwapTotal) / percent)
	setSysctl(t, "overcommit_ratio", ratio)
	setSysctl(t, "overcommit_memory", int64(kernel.Never))
	defer setSysctl(t, "overcommit_memory", 0)
	r := v.remedies(overcheck)
	want(t, r, "overcommit-ratio", "overcommit-kbytes")
	if ratio*1500*int64(2*size.MiB)/100 > int64(3**a.Uncertainty+percent) {
		want(t, r, "fewer-huge-pages")
	}
	c.applyAll(t, v, r, lesserLimit(r))
}

func remediesInMode0(t *testing.T, overcheck, victimBin string, c *applied) {
	v := startVictim(t, victimBin, nil, fmt.Sprintf("merged=%d", ramAndSwap()+200*size.MiB+4096))
	defer v.stop()
	r := v.remedies(overcheck)
	want(t, r, "add-swap", "overcommit-always", "madvise-dontfork", "split-mapping", "map-noreserve")
	// The swap file's size is in MiB: one less is not enough.
	c.applyAll(t, v, r, func(m verdict.Remedy) string {
		if m.ID != "add-swap" {
			return ""
		}
		less := strings.Join(m.Commands, "\n")
		for _, word := range strings.Fields(less) {
			if count, ok := strings.CutPrefix(word, "count="); ok {
				n, _ := strconv.Atoi(count)
				less = strings.ReplaceAll(less, word, fmt.Sprintf("count=%d", n-1))
			}
		}
		return strings.Join(m.Undo, "\n") + "\n" + less
	})
}

// inCgroup starts a victim in a cgroup of its own, whose path is dir.
func inCgroup(t *testing.T, victimBin, controller string, ops ...string) (v *victim, dir string) {
	t.Helper()
	dir, err := os.MkdirTemp(cgroupRoot(t, controller), "overcheck-test-")
	if err != nil {
		t.Fatal(err)
	}
	v = startVictim(t, victimBin, nil, ops...)
	t.Cleanup(func() {
		v.stop()
		removeCgroup(t, dir)
	})
	if err := os.WriteFile(filepath.Join(dir, "cgroup.procs"), []byte(strconv.Itoa(v.cmd.Process.Pid)), 0o644); err != nil {
		t.Fatal(err)
	}
	return v, dir
}

func number(t *testing.T, name string) int64 {
	t.Helper()
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	n, err := strconv.ParseInt(strings.TrimSpace(string(b)), 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func remedyOfPidsMax(t *testing.T, overcheck, victimBin string, c *applied) {
	v, dir := inCgroup(t, victimBin, "pids")
	current := number(t, filepath.Join(dir, "pids.current"))
	shell(t, fmt.Sprintf("echo %d > %s/pids.max", current, dir))
	r := v.remedies(overcheck)
	want(t, r, "pids-max")
	c.applyAll(t, v, r, func(verdict.Remedy) string { return fmt.Sprintf("echo %d > %s/pids.max", current, dir) })
}

// remedyOfMemoryMax: without the remedy the fork is killed, so it is not tried.
func remedyOfMemoryMax(t *testing.T, overcheck, victimBin string, c *applied) {
	dir, err := os.MkdirTemp(cgroupRoot(t, "memory"), "overcheck-test-")
	if err != nil {
		t.Fatal(err)
	}
	v := startVictim(t, victimBin, nil, "anon=4096")
	defer func() {
		v.stop()
		removeCgroup(t, dir)
	}()
	if err := os.WriteFile(filepath.Join(dir, "cgroup.procs"), []byte(strconv.Itoa(v.cmd.Process.Pid)), 0o644); err != nil {
		t.Fatal(err)
	}
	if errno := v.tell("touch", int(512*size.MiB)); errno != 0 {
		t.Fatal(errno)
	}
	limit, usage := "memory.max", "memory.current"
	if _, err := os.Stat(filepath.Join(dir, limit)); err != nil {
		limit, usage = "memory.limit_in_bytes", "memory.usage_in_bytes"
	}
	shell(t, fmt.Sprintf("echo %d > %s/%s", number(t, filepath.Join(dir, usage))+65536, dir, limit))
	r := v.remedies(overcheck)
	want(t, r, "memory-max")
	for _, m := range r.Remedies {
		if m.ID != "memory-max" {
			continue
		}
		c.tried++
		c.ids[m.ID]++
		shell(t, m.Commands...)
		if errno := v.fork(); errno == 0 {
			c.worked++
		}
	}
}

func remedyOfNproc(t *testing.T, overcheck, victimBin string, c *applied) {
	const uid = 64124 // nobody else's
	letOthersRead(t, victimBin)
	v := startVictim(t, victimBin, &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uid, Gid: uid}})
	defer v.stop()
	threads := v.threads()
	if errno := v.tell("nproc", threads); errno != 0 {
		t.Fatal(errno)
	}
	r := v.remedies(overcheck)
	want(t, r, "rlimit-nproc")
	// Root needs CAP_SYS_RESOURCE for it, which a virtual machine may lack; the user
	// may do it, too.
	as := fmt.Sprintf("setpriv --reuid=%d --regid=%d --clear-groups ", uid, uid)
	for i := range r.Remedies {
		m := &r.Remedies[i]
		for _, commands := range [][]string{m.Commands, m.Undo} {
			for j := range commands {
				commands[j] = as + commands[j]
			}
		}
	}
	c.applyAll(t, v, r, func(verdict.Remedy) string {
		return as + fmt.Sprintf("prlimit --pid %d --nproc=%d:", v.cmd.Process.Pid, threads)
	})
}

// remedyOfThreadsMax: the limit is the host's, and reached only while the victim
// forks; overcheck is asked beforehand, of a what-if. Its own threads are among
// those that it sees, so one less may be enough.
func remedyOfThreadsMax(t *testing.T, overcheck, victimBin string, c *applied) {
	const file = "/proc/sys/kernel/threads-max"
	v := startVictim(t, victimBin, nil)
	defer v.stop()
	before := number(t, file)
	defer shell(t, fmt.Sprintf("echo %d > %s", before, file))
	r := v.remedies(overcheck, "--set", "kernel.threads-max=20")
	want(t, r, "threads-max")
	i := slices.IndexFunc(r.Remedies, func(m verdict.Remedy) bool { return m.ID == "threads-max" })
	n := r.Remedies[i].Set["kernel.threads-max"]
	value, _ := strconv.ParseInt(n, 10, 64)
	try := func(limit int64) syscall.Errno {
		if err := os.WriteFile(file, []byte(strconv.FormatInt(limit, 10)), 0o644); err != nil {
			t.Fatal(err)
		}
		errno := v.fork()
		if err := os.WriteFile(file, []byte(strconv.FormatInt(before, 10)), 0o644); err != nil {
			t.Fatal(err)
		}
		return errno
	}
	c.tried++
	c.ids["threads-max"]++
	if errno := try(value + 8); errno == 0 { // and what else may have started
		c.worked++
	} else {
		t.Errorf("threads-max=%d: %v", value, errno)
	}
	c.lesser++
	if errno := try(value - 1 - r.Host.OwnThreads - 8); errno == syscall.EAGAIN { // and what else may have ended
		c.minimal++
	} else {
		t.Errorf("threads-max=%d less %d: %v", value, r.Host.OwnThreads+9, errno)
	}
}

// want makes sure that these remedies are among those found.
func want(t *testing.T, r verdict.Report, ids ...string) {
	t.Helper()
	for _, id := range ids {
		if !slices.ContainsFunc(r.Remedies, func(m verdict.Remedy) bool { return m.ID == id }) {
			b, _ := json.MarshalIndent(r.Remedies, "", " ")
			t.Errorf("no remedy %s among %s", id, b)
		}
	}
}
