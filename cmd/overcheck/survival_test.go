package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/overcheck/overcheck/pkg/kernel"
	"github.com/overcheck/overcheck/pkg/size"
)

// TestOracleSurvival puts processes into real memory cgroups with a limit around
// what overcheck says may be rewritten while a child lives: five points less, and
// nobody dies; five points more, and the cgroup's OOM killer strikes, at one of
// both.
func TestOracleSurvival(t *testing.T) {
	needOracle(t)
	overcheck, victimBin := build(t, "."), build(t, "./testdata/victim")
	if ramAndSwap() < 450*size.MiB {
		t.Log("too little RAM for five points to be more than what the kernel charges in advance: not tried")
		return
	}
	withSwap := swapOn(t)
	cases, wrong := 0, 0
	victims := map[string]int{}
	for _, order := range []string{"pages", "hugepages"} {
		for _, swap := range []bool{false, true} {
			if swap && !withSwap {
				t.Log("no swap here")
				continue
			}
			for _, percent := range []int{15, 40, 65, 90} {
				t.Run(fmt.Sprintf("%s, swap %v, %d%%", order, swap, percent), func(t *testing.T) {
					cases++
					died := survivalCase(t, overcheck, victimBin, order, swap, percent)
					victims[died]++
					if died == "" || t.Failed() {
						wrong++
					}
				})
			}
		}
	}
	t.Logf("%d cases, %d wrong; killed: %v", cases, wrong, victims)
}

// survivalCase returns who was killed.
func survivalCase(t *testing.T, overcheck, victimBin, order string, swap bool, percent int) (killed string) {
	const memory = 96 * size.MiB
	dir, err := os.MkdirTemp(cgroupRoot(t, "memory"), "overcheck-test-")
	if err != nil {
		t.Fatal(err)
	}
	v := startVictim(t, victimBin, nil, "anon=4096")
	defer func() {
		_ = v.cmd.Process.Kill()
		v.stop()
		removeCgroup(t, dir)
	}()
	write := func(file string, value int64) error {
		return os.WriteFile(filepath.Join(dir, file), []byte(strconv.FormatInt(value, 10)), 0o644)
	}
	if err := write("cgroup.procs", int64(v.cmd.Process.Pid)); err != nil {
		t.Fatal(err)
	}
	limit, usage := "memory.max", "memory.current"
	v1 := false
	if _, err := os.Stat(filepath.Join(dir, limit)); err != nil {
		limit, usage, v1 = "memory.limit_in_bytes", "memory.usage_in_bytes", true
	}
	if errno := v.tell(order, int(memory)); errno != 0 {
		t.Fatal(errno)
	}
	// Limits that leave about that percentage: in RAM, or half of it in swap.
	room := int64(memory) * int64(percent) / 100
	usageNow := number(t, filepath.Join(dir, usage))
	ram, swapped := room, int64(0)
	if swap {
		ram, swapped = room/2, room/2
	}
	if err := write(limit, usageNow+ram); err != nil {
		t.Fatal(err)
	}
	file, value := "memory.swap.max", swapped
	if v1 {
		file, value = "memory.memsw.limit_in_bytes", usageNow+ram+swapped
	}
	if err := write(file, value); err != nil && (swap || !errors.Is(err, os.ErrNotExist)) {
		t.Fatal(err)
	}
	said := v.judge(overcheck)
	s := said.Survival
	if swap && *said.Process.CowHuge > 0 { // Linux 7.3 killed before the swap was used up
		if s.BreakEven != nil || s.Verdict != kernel.Uncertain || !strings.Contains(s.Reason, "huge pages") {
			t.Errorf("with huge pages and swap: %s, break-even %v (%s)", s.Verdict, s.BreakEven, s.Reason)
		}
		return "not tried: uncertain"
	}
	if s.BreakEven == nil || s.Tightest == "host" || s.Effect != kernel.CgroupOOM {
		t.Fatalf("break-even %v, tightest %s, effect %s (%s)", s.BreakEven, s.Tightest, s.Effect, s.Reason)
	}
	rewrite := func(points float64) syscall.Errno {
		return v.tell("rewrite", int(float64(s.CowWorst)*points/100)&^4095)
	}
	if errno := v.tell("forkhold", 0); errno != 0 {
		t.Fatal(errno)
	}
	if *s.BreakEven > 5 {
		rewrite(*s.BreakEven - 5)
	}
	if errno := v.tell("release", 0); errno != 0 {
		t.Errorf("break-even %.1f%%: at five points less the child was killed", *s.BreakEven)
	}
	if *s.BreakEven >= 95 {
		return "nobody, all fits"
	}
	if errno := v.tell("forkhold", 0); errno != 0 {
		t.Fatal(errno)
	}
	fmt.Fprintln(v.in, "rewrite", int(float64(s.CowWorst)*(*s.BreakEven+5)/100)&^4095)
	if !v.out.Scan() {
		if !strings.HasPrefix(s.Victim, "the process itself") {
			t.Errorf("the process itself was killed, overcheck says %q", s.Victim)
		}
		return "the process"
	}
	if errno := v.tell("release", 0); errno == syscall.ESRCH {
		t.Errorf("the child was killed, overcheck says %q", s.Victim)
		return "the child"
	}
	t.Errorf("break-even %.1f%%: at five points more nobody was killed", *s.BreakEven)
	return ""
}

// removeCgroup waits until the last process has left it.
func removeCgroup(t *testing.T, dir string) {
	t.Helper()
	until(t, dir+" can be removed", func() bool {
		err := os.Remove(dir)
		return err == nil || errors.Is(err, os.ErrNotExist)
	})
}

// swapOn makes sure that there is swap, by a file of its own where there is none;
// false: there is none, and no program that would make it.
func swapOn(t *testing.T) bool {
	t.Helper()
	if b, err := os.ReadFile("/proc/swaps"); err == nil && strings.Count(string(b), "\n") > 1 {
		return true
	}
	if _, err := exec.LookPath("mkswap"); err != nil {
		return false
	}
	file := filepath.Join(t.TempDir(), "swap")
	shell(t, "dd if=/dev/zero of="+file+" bs=1M count=256 status=none", "chmod 600 "+file, "mkswap "+file, "swapon "+file)
	t.Cleanup(func() { shell(t, "swapoff "+file) })
	return !t.Failed()
}
