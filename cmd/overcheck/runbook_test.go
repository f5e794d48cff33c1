package main

import (
	"bufio"
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/overcheck/overcheck/docs"
	"github.com/overcheck/overcheck/pkg/kernel"
	"github.com/overcheck/overcheck/pkg/size"
)

// TestRunbook is docs/runbook.md's first story, on a real Redis: a save fails, the
// log is explained, the cause found, the printed script run, and the save
// succeeds.
func TestRunbook(t *testing.T) {
	needOracle(t)
	needPrograms(t, "redis-server", "redis-cli", "sysctl")
	overcheck, victimBin := build(t, "."), build(t, "./testdata/victim")
	guardSysctls(t, victimBin)
	setSysctl(t, "admin_reserve_kbytes", int64(adminReserve/size.KiB)) // only the server is to suffer
	setSysctl(t, "overcommit_kbytes", int64(ramAndSwap()/size.KiB))
	setSysctl(t, "overcommit_memory", int64(kernel.Never))
	defer setSysctl(t, "overcommit_memory", 0)
	r := startRedis(t, redisOptions{server: "redis-server", as: credential(t, "nobody")})
	if got := r.try("debug", "populate", "30000", "key", "10000"); got != "OK" {
		t.Fatalf("populate: %s", got)
	}
	v := &victim{t: t, cmd: r.cmd}
	first := v.judge(overcheck)
	a := first.Admission[kernel.Never]
	setSysctl(t, "overcommit_kbytes", kbytesFor(*a.Need-*a.Uncertainty-margin, first.Host))

	refused := r.background("bgsave")
	if refused == "" {
		t.Fatal("the save succeeds")
	}
	run := func(want int, args ...string) string {
		t.Helper()
		cmd := exec.Command(overcheck, args...)
		out, err := cmd.CombinedOutput()
		if got := cmd.ProcessState.ExitCode(); got != want {
			t.Fatalf("overcheck %q: exit code %d, want %d (%v)\n%s", args, got, want, err, out)
		}
		return string(out)
	}
	pid := strconv.Itoa(r.cmd.Process.Pid)
	if out := run(exitBad, "explain", "--log", r.path("log")); !strings.Contains(out, "redis-save-fork") || !strings.Contains(out, "ENOMEM") || !strings.Contains(out, "possible here now") {
		t.Errorf("the log is explained as\n%s", out)
	}
	said := run(exitBad, "pid", pid)
	for _, want := range []string{"fork FAILS with ENOMEM", "commit-limit-too-low", "sysctl -w vm.overcommit_kbytes="} {
		if !strings.Contains(said, want) {
			t.Errorf("no %q in\n%s", want, said)
		}
	}
	run(exitGood, "explain", "commit-limit-too-low")
	script := filepath.Join(t.TempDir(), "remedy.sh")
	if err := os.WriteFile(script, []byte(run(exitBad, "pid", pid, "-o", "shell")), 0o644); err != nil {
		t.Fatal(err)
	}
	remedy := func() string {
		t.Helper()
		cmd := exec.Command("sh", script)
		cmd.Env = append(os.Environ(), "OVERCHECK="+overcheck, "PATH="+os.Getenv("PATH")+":/usr/sbin")
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		return string(out)
	}
	if out := remedy(); !strings.Contains(out, "fork succeeds now") {
		t.Errorf("the script says\n%s", out)
	}
	if refused := r.background("bgsave"); refused != "" {
		t.Errorf("after the remedy: %s", refused)
	}
	r.finish()
	run(exitGood, "pid", pid)
	if out := remedy(); !strings.Contains(out, "succeeds already: nothing is changed") {
		t.Errorf("run again, the script says\n%s", out)
	}
}

// TestShellThatCannotFork is docs/runbook.md's second story: a root shell without
// CAP_SYS_ADMIN, from which the admin reserve is kept, and with it everything; all
// other processes have that reserve.
func TestShellThatCannotFork(t *testing.T) {
	needOracle(t)
	needPrograms(t, "bash", "setpriv")
	overcheck, victimBin := build(t, "."), build(t, "./testdata/victim")
	guardSysctls(t, victimBin)
	setSysctl(t, "admin_reserve_kbytes", int64(adminReserve/size.KiB))
	v := startVictim(t, victimBin, nil, "anon=4096")
	defer v.stop()
	host := v.judge(overcheck).Host

	// The loop that the chapter prints, as it stands there.
	chapter := docs.Find("commit-exhausted")[0].Text
	_, rest, found := strings.Cut(chapter, "    while read -r k v u; do\n")
	loop, _, closed := strings.Cut(rest, "/proc/meminfo\n")
	if !found || !closed {
		t.Fatal("the chapter has no loop over /proc/meminfo")
	}
	loop = "while read -r k v u; do\n" + loop + "/proc/meminfo\n"

	// Nothing is left for it, beyond what the counter may be off.
	setSysctl(t, "overcommit_kbytes", kbytesFor(host.Committed()+adminReserve-host.MemTotal/128, host))
	out := poorShell(t, fmt.Sprintf(`
/bin/true || echo refused
%s
echo %d > /proc/sys/vm/overcommit_kbytes
/bin/true && echo forks
exec %s explain -o json
`, loop, int64((host.CommittedAS+adminReserve+size.GiB)/size.KiB), overcheck))
	for _, want := range []string{"Cannot allocate memory", "refused", "CommitLimit: ", "Committed_AS: ", "forks", `"schema"`} {
		if !strings.Contains(out, want) {
			t.Errorf("no %q in\n%s", want, out)
		}
	}

	// exec needs no fork, but what is executed needs memory: overcheck more than is
	// left here.
	setSysctl(t, "overcommit_kbytes", kbytesFor(host.Committed()+adminReserve-host.MemTotal/128, host))
	out = poorShell(t, "exec "+overcheck+" explain\necho still here\n")
	if !strings.Contains(out, "Cannot allocate memory") || !strings.Contains(out, "still here\n") {
		t.Errorf("with nothing left exec overcheck says\n%s", out)
	}
}

// poorShell has a root shell without CAP_SYS_ADMIN, which was started in mode 0, run
// commands in mode 2, and returns what it says.
func poorShell(t *testing.T, commands string) string {
	t.Helper()
	cmd := exec.Command("setpriv", "--inh-caps=-sys_admin", "--bounding-set=-sys_admin", "bash", "--norc", "-i") // as at a terminal: another shell ends when it cannot fork
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	read, write, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stdout, cmd.Stderr = write, write
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	write.Close()
	lines := bufio.NewReader(read)
	// A shell that was in use has room in its heap; one that has none dies of its
	// own next line ("xmalloc: cannot allocate").
	fmt.Fprintln(in, "for i in {1..20000}; do used[i]=$i; done; unset used; echo ready")
	for line := ""; line != "ready\n"; {
		if line, err = lines.ReadString('\n'); err != nil {
			t.Fatal(err)
		}
	}
	setSysctl(t, "overcommit_memory", int64(kernel.Never))
	defer setSysctl(t, "overcommit_memory", 0)
	fmt.Fprint(in, commands)
	in.Close()
	_, _ = lines.WriteTo(&out)
	_ = cmd.Wait()
	return out.String()
}
