package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/overcheck/overcheck/pkg/kernel"
	"github.com/overcheck/overcheck/pkg/size"
	"github.com/overcheck/overcheck/pkg/verdict"
)

// The oracle is the kernel that runs. These tests change vm.overcommit_* for
// milliseconds at a time, so they run only when asked to, as root.
func needOracle(t *testing.T) {
	t.Helper()
	if os.Getenv("OVERCHECK_ORACLE") != "1" {
		t.Skip("needs OVERCHECK_ORACLE=1, and root: it changes vm.overcommit_* on this machine for moments")
	}
	if os.Geteuid() != 0 {
		t.Fatal("OVERCHECK_ORACLE=1 needs root")
	}
}

// build compiles a program of this repository, without the race detector, whose
// shadow memory would be a shape of its own.
func build(t testing.TB, pkg string) string {
	t.Helper()
	if dir := os.Getenv("OVERCHECK_PREBUILT"); dir != "" { // in a guest, where there is no compiler
		return filepath.Join(dir, programs()[pkg])
	}
	out := filepath.Join(t.TempDir(), "program")
	cmd := exec.Command("go", "build", "-trimpath", "-ldflags=-s -w", "-o", out, pkg)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if b, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("go build %s: %v\n%s", pkg, err, b)
	}
	return out
}

// programs are what the tests build, with the names that they have in a guest.
func programs() map[string]string {
	return map[string]string{".": "overcheck", "./testdata/victim": "victim", "./testdata/guest": "init"}
}

// letOthersRead opens temporary files, and the directories they are in, to all.
func letOthersRead(t *testing.T, names ...string) {
	t.Helper()
	for _, name := range names {
		for ; len(name) > len(os.TempDir()); name = filepath.Dir(name) {
			if err := os.Chmod(name, 0o755); err != nil {
				t.Fatal(err)
			}
		}
	}
}

const vm = "/proc/sys/vm/"

func sysctl(t *testing.T, name string) int64 {
	t.Helper()
	b, err := os.ReadFile(vm + name)
	if err != nil {
		t.Fatal(err)
	}
	n, err := strconv.ParseInt(strings.TrimSpace(string(b)), 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func setSysctl(t testing.TB, name string, n int64) {
	t.Helper()
	if err := os.WriteFile(vm+name, []byte(strconv.FormatInt(n, 10)), 0o644); err != nil {
		t.Fatal(err)
	}
}

// guardSysctls restores vm.* when the test ends, however it ends: another process
// waits for the end of a pipe that only this one holds. The mode goes first;
// ratio and kbytes zero each other, so only one is written.
func guardSysctls(t *testing.T, victimBin string) {
	t.Helper()
	args := []string{"restore"}
	last := "overcommit_ratio"
	if sysctl(t, "overcommit_kbytes") != 0 {
		last = "overcommit_kbytes"
	}
	for _, name := range []string{"overcommit_memory", "user_reserve_kbytes", "admin_reserve_kbytes", "nr_hugepages", last} {
		args = append(args, fmt.Sprintf("%s%s=%d", vm, name, sysctl(t, name)))
	}
	guard := exec.Command(victimBin, args...)
	guard.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // Ctrl-C is not for it
	pipe, err := guard.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := guard.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		pipe.Close()
		if err := guard.Wait(); err != nil {
			t.Errorf("restoring vm.*: %v", err)
		}
	})
}

// victim is a process that forks on demand.
type victim struct {
	t   testing.TB
	cmd *exec.Cmd
	in  io.WriteCloser
	out *bufio.Scanner
	ops []string
}

func startVictim(t testing.TB, bin string, attr *syscall.SysProcAttr, ops ...string) *victim {
	t.Helper()
	v := &victim{t: t, cmd: exec.Command(bin, ops...), ops: ops}
	v.cmd.SysProcAttr = attr
	v.cmd.Env = append(os.Environ(), "TMPDIR="+os.TempDir())
	v.start()
	return v
}

// start starts the command and waits until it is ready to be told something.
func (v *victim) start() {
	v.t.Helper()
	var err error
	if v.in, err = v.cmd.StdinPipe(); err != nil {
		v.t.Fatal(err)
	}
	out, err := v.cmd.StdoutPipe()
	if err != nil {
		v.t.Fatal(err)
	}
	v.out = bufio.NewScanner(out)
	if v.cmd.Stderr == nil {
		v.cmd.Stderr = os.Stderr
	}
	if err := v.cmd.Start(); err != nil {
		v.t.Fatalf("victim %v: %v", v.ops, err)
	}
	if got := v.read(); got != "ready" {
		v.t.Fatalf("victim %v: %s", v.ops, got)
	}
}

func (v *victim) read() string {
	if !v.out.Scan() {
		v.t.Fatalf("victim %v died", v.ops)
	}
	return v.out.Text()
}

// fork has it fork once, and returns the kernel's answer.
func (v *victim) fork() syscall.Errno { return v.tell("fork", 0) }

// tell gives it an order, and returns the error number that it answers.
func (v *victim) tell(order string, n int) syscall.Errno {
	fmt.Fprintln(v.in, order, n)
	n, err := strconv.Atoi(v.read())
	if err != nil {
		v.t.Fatal(err)
	}
	return syscall.Errno(n)
}

// threads counts its threads, once it starts no more of them by itself.
func (v *victim) threads() int {
	v.t.Helper()
	for before := -1; ; {
		for range 3 {
			v.fork()
		}
		tasks, err := os.ReadDir(fmt.Sprintf("/proc/%d/task", v.cmd.Process.Pid))
		if err != nil {
			v.t.Fatal(err)
		}
		if len(tasks) == before {
			return before
		}
		before = len(tasks)
	}
}

func (v *victim) stop() {
	v.in.Close()
	_ = v.cmd.Wait()
}

// judge runs overcheck on the victim.
func (v *victim) judge(bin string, args ...string) verdict.Report {
	v.t.Helper()
	args = append([]string{"pid", strconv.Itoa(v.cmd.Process.Pid), "-o", "json"}, args...)
	out, err := exec.Command(bin, args...).Output()
	if exit := (*exec.ExitError)(nil); err != nil && (!errors.As(err, &exit) || exit.ExitCode() != exitBad) {
		v.t.Fatalf("overcheck %q: %v", args, err)
	}
	var r verdict.Report
	if err := json.Unmarshal(out, &r); err != nil {
		v.t.Fatalf("overcheck %q: %v\n%s", args, err, out)
	}
	return r
}

// verify has overcheck ask the kernel.
func (v *victim) verify(bin string) (got verdict.Verification) {
	v.t.Helper()
	args := []string{"verify", strconv.Itoa(v.cmd.Process.Pid), "--allow-transient-charge", "-o", "json"}
	out, err := exec.Command(bin, args...).Output()
	if exit := (*exec.ExitError)(nil); err != nil && (!errors.As(err, &exit) || exit.ExitCode() != exitBad) {
		v.t.Fatalf("overcheck %q: %v\n%s", args, err, out)
	}
	if err := json.Unmarshal(out, &got); err != nil {
		v.t.Fatalf("overcheck %q: %v\n%s", args, err, out)
	}
	return got
}

// tally counts predictions against forks.
type tally struct {
	forks, wrong, uncertain int
	otherwise               int    // verify got another answer than the fork, within E
	out                     string // where to record each fork as NDJSON; "": nowhere
}

// record is one prediction and what the kernel answered.
type record struct {
	Kernel  string            `json:"kernel"`
	RAM     size.Bytes        `json:"ram_bytes"`
	Swap    size.Bytes        `json:"swap_bytes"`
	CPUs    int               `json:"cpus"`
	Process []string          `json:"process"`
	Said    *kernel.Admission `json:"said"`
	Errno   int               `json:"errno"`
}

// note appends a record.
func (c *tally) note(t *testing.T, v *victim, h verdict.Host, a kernel.Admission, got syscall.Errno) {
	if c.out == "" {
		return
	}
	f, err := os.OpenFile(c.out, os.O_APPEND|os.O_WRONLY|os.O_CREATE, 0o644)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	b, err := json.Marshal(record{h.Release, h.MemTotal, h.SwapTotal, h.CPUsOnline, v.ops, &a, int(got)})
	if err != nil {
		t.Fatal(err)
	}
	fmt.Fprintf(f, "%s\n", b)
}

func (c *tally) compare(t *testing.T, what string, a kernel.Admission, got syscall.Errno) {
	t.Helper()
	c.forks++
	switch {
	case got != 0 && got != syscall.ENOMEM:
		c.wrong++
		t.Errorf("%s: fork() returned %v, which is not about memory", what, got)
	case a.Outcome == kernel.Uncertain:
		c.uncertain++
		if a.Headroom == nil || a.Headroom.Abs() > *a.Uncertainty+size.Bytes(os.Getpagesize()) {
			t.Errorf("%s: uncertain outside E: %s", what, a.Reason)
		}
	case (a.Outcome == kernel.Succeeds) != (got == 0):
		c.wrong++
		t.Errorf("%s: overcheck said %q (headroom %s, uncertainty %s), fork() returned %v",
			what, a.Outcome, a.Headroom, a.Uncertainty, got)
	}
}

// TestOracleRandomShapes makes processes of random shape, sets the commit limit
// around the boundary, and compares what overcheck says of each mode, from mode 0
// or 1, with what fork() does there.
func TestOracleRandomShapes(t *testing.T) {
	needOracle(t)
	overcheck, victimBin := build(t, "."), build(t, "./testdata/victim")
	guardSysctls(t, victimBin)
	t.Setenv("TMPDIR", "/tmp") // the unprivileged victim writes a file there
	letOthersRead(t, overcheck, victimBin)

	seed := uint64(os.Getpid())
	if s := os.Getenv("OVERCHECK_SEED"); s != "" {
		seed, _ = strconv.ParseUint(s, 10, 64)
	}
	rng := rand.New(rand.NewPCG(seed, 0))
	shapes := 200
	if n := os.Getenv("OVERCHECK_SHAPES"); n != "" {
		shapes, _ = strconv.Atoi(n)
	}
	c := tally{out: os.Getenv("OVERCHECK_NDJSON")}
	for i := range shapes {
		shape := randomShape(rng)
		t.Run(fmt.Sprintf("%d %s", i, shape.name), func(t *testing.T) {
			v := startVictim(t, victimBin, shape.attr, shape.ops...)
			defer v.stop()
			oracleCase(t, rng, overcheck, v, &c)
		})
	}
	setSysctl(t, "overcommit_memory", 0)
	t.Logf("seed %d: %d forks, %d wrong, %d uncertain; verify got another answer %d times, within E", seed, c.forks, c.wrong, c.uncertain, c.otherwise)
	if c.forks < 3*shapes {
		t.Errorf("%d forks of %d processes: want three each", c.forks, shapes)
	}
	if c.uncertain > c.forks/2 {
		t.Errorf("%d of %d uncertain: the test aims too close", c.uncertain, c.forks)
	}
}

// oracleCase sets a limit near the boundary of v's fork and tries each mode. A
// case during which the rest of the machine committed or released more than a
// fraction of E proves nothing: it is tried again.
func oracleCase(t *testing.T, rng *rand.Rand, overcheck string, v *victim, c *tally) {
	for range 100 {
		if oracleTry(t, rng, overcheck, v, c) {
			return
		}
	}
	t.Fatal("the machine is never quiet enough")
}

func oracleTry(t *testing.T, rng *rand.Rand, overcheck string, v *victim, c *tally) (quiet bool) {
	setSysctl(t, "user_reserve_kbytes", rng.Int64N(1<<20))
	setSysctl(t, "admin_reserve_kbytes", rng.Int64N(1<<19))
	first := v.judge(overcheck)
	never := first.Admission[kernel.Never]
	// Headroom from -3E to 3E; with a page of it, or none, now and then.
	delta := size.Bytes(rng.Int64N(int64(6**never.Uncertainty))) - 3**never.Uncertainty
	limit := *never.Need + delta
	// Everybody else must live with it too: the fork alone may be refused.
	limit = max(limit, first.Host.CommittedAS+baseCharge()/4)
	kbytes := kbytesFor(limit, first.Host)
	whatIf := v.judge(overcheck, "--set", fmt.Sprintf("vm.overcommit_kbytes=%d", kbytes), "--set", "vm.overcommit_memory=2")
	setSysctl(t, "overcommit_kbytes", kbytes)
	defer setSysctl(t, "overcommit_memory", 0)
	setSysctl(t, "overcommit_memory", rng.Int64N(2))
	said := v.judge(overcheck)
	bounds := v.judge(overcheck, "--mappings", "maps")
	var answers []syscall.Errno
	var asked []verdict.Verification
	for _, m := range kernel.Modes() {
		setSysctl(t, "overcommit_memory", int64(m))
		answers = append(answers, v.fork())
		asked = append(asked, v.verify(overcheck))
		setSysctl(t, "overcommit_memory", 0)
	}
	after := v.judge(overcheck).Host.Committed()
	for _, before := range []size.Bytes{whatIf.Host.Committed(), said.Host.Committed(), bounds.Host.Committed()} {
		if (after - before).Abs() > *never.Uncertainty/8 {
			return false
		}
	}
	for m, got := range answers {
		m := kernel.Mode(m)
		c.note(t, v, said.Host, said.Admission[m], got)
		c.compare(t, fmt.Sprintf("%v in mode %d", v.ops, m), said.Admission[m], got)
		if !asked[m].Agrees {
			t.Errorf("%v in mode %d: the model disagrees with what verify got: %+v", v.ops, m, asked[m].Asked)
		}
		if (asked[m].Kernel == kernel.Succeeds) != (got == 0) {
			c.otherwise++
			if h := said.Admission[m].Headroom; h == nil || h.Abs() > *said.Admission[m].Uncertainty {
				t.Errorf("%v in mode %d: verify got %s, fork() returned %v, headroom %s", v.ops, m, asked[m].Kernel, got, h)
			}
		}
		// Bounds may leave it open, but not be wrong. Nor may a what-if be.
		if o := bounds.Admission[m].Outcome; o != kernel.Uncertain && (o == kernel.Succeeds) != (got == 0) {
			t.Errorf("%v in mode %d: from maps overcheck said %q, fork() returned %v", v.ops, m, o, got)
		}
		if m == kernel.Never {
			again := new(tally) // the same fork, not counted twice
			again.compare(t, fmt.Sprintf("%v with --set vm.overcommit_memory=2", v.ops), whatIf.Current(), got)
		}
		if got != 0 && said.Admission[m].Outcome == kernel.Fails && said.Admission[m].Blocking == nil {
			t.Errorf("mode %d: no mapping named", m)
		}
	}
	return true
}

// kbytesFor is the vm.overcommit_kbytes that makes CommitLimit this, swap being
// added to it.
func kbytesFor(limit size.Bytes, h verdict.Host) int64 {
	return max(int64((limit-h.SwapTotal)/size.KiB), 4)
}

// shape is a process to make.
type shape struct {
	name string
	ops  []string
	attr *syscall.SysProcAttr
}

func randomShape(rng *rand.Rand) (s shape) {
	kinds := []string{
		"anon", "noreserve", "protnone", "protnone-then-writable", "writable-then-readonly", "touched-then-readonly",
		"dontfork", "wipeonfork", "shared", "memfd-shared", "memfd-private", "file-private", "growsdown", "split", "touched",
	}
	op := func(kind string, b size.Bytes) { s.ops = append(s.ops, fmt.Sprintf("%s=%d", kind, b)) }
	// Enough charge that refusing it leaves everybody else plenty.
	base := int64(baseCharge() / (4 * size.KiB)) // pages
	op("anon", size.Bytes(base+rng.Int64N(base/2))*4*size.KiB)
	for range 1 + rng.IntN(8) {
		kind := kinds[rng.IntN(len(kinds))]
		most := base / 10
		if strings.HasPrefix(kind, "touched") {
			most = min(8<<8, base/100)
		}
		op(kind, size.Bytes(3+rng.Int64N(most))*4*size.KiB)
	}
	switch rng.IntN(6) {
	case 0: // beyond RAM, from 90 % of it to 130 %
		op("merged", size.Bytes(float64(ramAndSwap())*(0.9+0.4*rng.Float64()))&^4095)
	case 1: // a large total_vm makes the reserve large
		op("protnone", 8*ramAndSwap()&^4095)
	}
	switch rng.IntN(4) {
	case 0:
		s.name, s.attr = "nobody", &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	case 1:
		s.name = "root without CAP_SYS_ADMIN"
		s.ops = append(s.ops, "drop-cap-sys-admin=0")
	case 2:
		s.name = "root of a user namespace"
		ids := []syscall.SysProcIDMap{{ContainerID: 0, HostID: 65534, Size: 1}}
		s.attr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWUSER, UidMappings: ids, GidMappings: ids}
	default:
		s.name = "root"
	}
	return s
}

// baseCharge is what each process of random shape is charged at least.
func baseCharge() size.Bytes { return min(2*size.GiB, ramAndSwap()/4) }

func ramAndSwap() size.Bytes {
	b, _ := os.ReadFile("/proc/meminfo")
	var total size.Bytes
	for line := range strings.Lines(string(b)) {
		f := strings.Fields(line)
		if f[0] == "MemTotal:" || f[0] == "SwapTotal:" {
			n, _ := strconv.ParseInt(f[1], 10, 64)
			total += size.Bytes(n) * size.KiB
		}
	}
	return total
}

// TestOracleMode0Boundary: a mapping of exactly RAM plus swap forks in mode 0, a
// page more does not; overcheck says so of both.
func TestOracleMode0Boundary(t *testing.T) {
	needOracle(t)
	overcheck, victimBin := build(t, "."), build(t, "./testdata/victim")
	guardSysctls(t, victimBin)
	for _, extra := range []size.Bytes{-4096, 0, 4096} {
		v := startVictim(t, victimBin, nil, fmt.Sprintf("merged=%d", ramAndSwap()+extra))
		a := v.judge(overcheck).Admission[kernel.Heuristic]
		got := v.fork()
		v.stop()
		want := kernel.Succeeds
		if extra > 0 {
			want = kernel.Fails
		}
		if a.Outcome != want || (got == 0) != (want == kernel.Succeeds) {
			t.Errorf("RAM + swap %+d bytes: overcheck said %q, fork() returned %v", extra, a.Outcome, got)
		}
		if want == kernel.Fails && (a.Blocking == nil || a.Blocking.Length != ramAndSwap()+extra) {
			t.Errorf("blocking mapping %+v", a.Blocking)
		}
	}
}

// TestOracleHugePages: reserved huge pages shrink the limit, and mappings of them
// are charged nothing.
func TestOracleHugePages(t *testing.T) {
	needOracle(t)
	overcheck, victimBin := build(t, "."), build(t, "./testdata/victim")
	guardSysctls(t, victimBin)
	before := sysctl(t, "nr_hugepages")
	more := min(64, int64(ramAndSwap()/size.GiB*16+4))
	setSysctl(t, "nr_hugepages", before+more)
	if sysctl(t, "nr_hugepages") < before+more {
		t.Fatalf("%d huge pages could not be had", more)
	}
	huge := size.Bytes(more) * 2 * size.MiB
	v := startVictim(t, victimBin, nil, fmt.Sprintf("anon=%d", baseCharge()), fmt.Sprintf("hugetlb=%d", huge))
	defer v.stop()
	said := v.judge(overcheck)
	if said.Host.Hugetlb < huge {
		t.Errorf("huge pages: %s, want %s at least", said.Host.Hugetlb, huge)
	}
	var c tally
	oracleCase(t, rand.New(rand.NewPCG(1, 2)), overcheck, v, &c)
	// What --set HugePages_Total predicts is what the kernel then has.
	setSysctl(t, "overcommit_ratio", 50)
	predicted := v.judge(overcheck, "--set", fmt.Sprintf("HugePages_Total=%d", before)).Host.CommitLimit
	v.stop()
	setSysctl(t, "nr_hugepages", before)
	w := startVictim(t, victimBin, nil)
	defer w.stop()
	if got := w.judge(overcheck).Host.CommitLimit; got != predicted {
		t.Errorf("CommitLimit without the huge pages: predicted %s, is %s", predicted, got)
	}
}

// TestOracleOtherObstacles: each errno that is not about memory.
func TestOracleOtherObstacles(t *testing.T) {
	needOracle(t)
	overcheck, victimBin := build(t, "."), build(t, "./testdata/victim")

	t.Run("pids.max", func(t *testing.T) {
		root := cgroupRoot(t, "pids")
		dir, err := os.MkdirTemp(root, "overcheck-test-")
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = os.Remove(dir) })
		v := startVictim(t, victimBin, nil)
		defer v.stop()
		write := func(file string, n int) {
			if err := os.WriteFile(filepath.Join(dir, file), []byte(strconv.Itoa(n)), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		write("cgroup.procs", v.cmd.Process.Pid)
		b, err := os.ReadFile(filepath.Join(dir, "pids.current"))
		if err != nil {
			t.Fatal(err)
		}
		current, _ := strconv.Atoi(strings.TrimSpace(string(b)))
		for _, room := range []int{0, 1} {
			write("pids.max", current+room)
			v.expect(overcheck, "pids-cgroup", room > 0)
		}
	})

	t.Run("RLIMIT_NPROC", func(t *testing.T) {
		const uid = 64123 // nobody else's
		letOthersRead(t, victimBin)
		v := startVictim(t, victimBin, &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uid, Gid: uid}})
		defer v.stop()
		threads := v.threads()
		for _, room := range []int{0, 1} {
			if got := v.tell("nproc", threads+room); got != 0 {
				t.Fatalf("setrlimit: %v", got)
			}
			v.expect(overcheck, "rlimit-nproc", room > 0)
		}
	})
}

// expect compares one check, and the verdict, with a fork that must give EAGAIN
// or succeed.
func (v *victim) expect(overcheck, id string, succeeds bool) {
	v.t.Helper()
	r := v.judge(overcheck)
	got := v.fork()
	if (got == 0) != succeeds || got != 0 && got != syscall.EAGAIN {
		v.t.Fatalf("fork() returned %v", got)
	}
	want := kernel.Succeeds
	if !succeeds {
		want = kernel.Fails
	}
	for _, c := range r.Checks {
		if c.ID == id && c.Outcome != want {
			v.t.Errorf("%s: %+v, fork() returned %v", id, c, got)
		}
	}
	if r.Verdict != want || !succeeds && (r.Errno == nil || *r.Errno != kernel.EAGAIN) {
		v.t.Errorf("verdict %v, errno %v; fork() returned %v", r.Verdict, r.Errno, got)
	}
}

func cgroupRoot(t *testing.T, controller string) string {
	for _, dir := range []string{"/sys/fs/cgroup/" + controller, "/sys/fs/cgroup"} {
		if b, err := os.ReadFile(filepath.Join(dir, "cgroup.subtree_control")); err == nil && strings.Contains(string(b), controller) {
			return dir
		}
		if _, err := os.Stat(filepath.Join(dir, "tasks")); err == nil {
			return dir
		}
	}
	t.Fatalf("no %s cgroup controller is mounted", controller)
	return ""
}
