package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/overcheck/overcheck/pkg/kernel"
	"github.com/overcheck/overcheck/pkg/size"
)

// redis is a real server on a socket of its own.
type redis struct {
	t   *testing.T
	dir string
	cmd *exec.Cmd
}

// startRedis starts one while the mode is what it is: jemalloc looks at
// vm.overcommit_memory once, when it starts.
func startRedis(t *testing.T) *redis {
	t.Helper()
	r := &redis{t: t, dir: t.TempDir()}
	r.cmd = exec.Command("redis-server", "--port", "0", "--unixsocket", r.path("socket"), "--dir", r.dir, "--logfile", r.path("log"),
		"--save", "", "--appendonly", "no", "--enable-debug-command", "local", "--daemonize", "no", "--rdbcompression", "no")
	if err := r.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = r.cmd.Process.Signal(syscall.SIGKILL)
		_ = r.cmd.Wait()
	})
	r.until("it answers", func() bool { return r.try("ping") == "PONG" })
	return r
}

func (r *redis) path(name string) string { return filepath.Join(r.dir, name) }

// try asks it something; what went wrong is in the answer.
func (r *redis) try(args ...string) string {
	out, _ := exec.Command("redis-cli", append([]string{"-s", r.path("socket")}, args...)...).CombinedOutput()
	return strings.TrimSpace(strings.ReplaceAll(string(out), "\r", ""))
}

// until polls; the bound is for a server that hangs, not a measure.
func (r *redis) until(what string, done func() bool) {
	r.t.Helper()
	for range 1200 {
		if done() {
			return
		}
		time.Sleep(50 * time.Millisecond)
	}
	r.t.Fatalf("redis: waited a minute until %s\n%s", what, r.log())
}

func (r *redis) log() string {
	b, _ := os.ReadFile(r.path("log"))
	return string(b)
}

// bgsave asks for a save in mode 2 and reports whether the fork was admitted: by
// the answer and by the server's log.
func (r *redis) bgsave() bool {
	r.t.Helper()
	logged := len(r.log())
	setSysctl(r.t, "overcommit_memory", int64(kernel.Never))
	answer := r.try("bgsave")
	setSysctl(r.t, "overcommit_memory", int64(kernel.Heuristic))
	r.until("the save ends", func() bool { return strings.Contains(r.try("info", "persistence"), "rdb_bgsave_in_progress:0") })
	refused := strings.Contains(r.log()[logged:], "Can't save in background: fork: Cannot allocate memory")
	if started := strings.Contains(answer, "Background saving started"); started == refused {
		r.t.Fatalf("BGSAVE answered %q, and the log says\n%s", answer, r.log()[logged:])
	}
	return !refused
}

// TestRedis: what overcheck says of mode 2, from mode 0, against what BGSAVE then
// meets there: with a limit that refuses and with one that admits, for a server
// that was started in mode 0 and one that was started in mode 2.
func TestRedis(t *testing.T) {
	needOracle(t)
	if _, err := exec.LookPath("redis-server"); err != nil {
		t.Fatal("OVERCHECK_ORACLE=1 needs redis-server (Debian: apt-get install redis-server)")
	}
	overcheck, victimBin := build(t, "."), build(t, "./testdata/victim")
	for _, startedIn := range []kernel.Mode{kernel.Heuristic, kernel.Never} {
		t.Run("started in mode "+startedIn.String(), func(t *testing.T) {
			guardSysctls(t, victimBin)
			setSysctl(t, "overcommit_kbytes", int64(ramAndSwap()/size.KiB))
			setSysctl(t, "overcommit_memory", int64(startedIn))
			r := startRedis(t)
			setSysctl(t, "overcommit_memory", int64(kernel.Heuristic))
			if got := r.try("debug", "populate", "100000", "key", "10000"); got != "OK" {
				t.Fatalf("populate: %s", got)
			}
			v := &victim{t: t, cmd: r.cmd}
			first := v.judge(overcheck, "--mappings", "smaps")
			never, charge := first.Admission[kernel.Never], first.Process.Charge

			for _, headroom := range []size.Bytes{-charge / 2, charge/2 + size.GiB} {
				if charge < 512*size.MiB && headroom < 0 {
					continue // so little is charged that a refusing limit would starve everybody
				}
				setSysctl(t, "overcommit_kbytes", kbytesFor(*never.Need+headroom, first.Host))
				said := v.judge(overcheck)
				if said.Verdict != kernel.Succeeds {
					t.Errorf("in mode 0: %s", said.Verdict)
				}
				a := said.Admission[kernel.Never]
				admitted := r.bgsave()
				t.Logf("charge %s, MAP_NORESERVE %s, headroom %s: overcheck says %s, the save is admitted: %v",
					said.Process.Charge, said.Process.Noreserve, a.Headroom, a.Outcome, admitted)
				if (a.Outcome == kernel.Succeeds) != admitted || a.Outcome == kernel.Uncertain {
					t.Errorf("headroom %s: overcheck said %s (%s), admitted: %v", a.Headroom, a.Outcome, a.Reason, admitted)
				}
			}

			// About 1 GiB is held: charged if it was mapped in mode 2, MAP_NORESERVE if
			// not, and then a restart in mode 2 would charge it.
			said := v.judge(overcheck)
			held := said.Process.Charge
			if startedIn == kernel.Heuristic {
				held = *said.Process.Noreserve
				setSysctl(t, "overcommit_kbytes", kbytesFor(*said.Admission[kernel.Never].Need+size.GiB/2, said.Host))
				a := v.judge(overcheck).Admission[kernel.Never]
				if a.Outcome != kernel.Succeeds || *a.AfterRestart != kernel.Fails {
					t.Errorf("with half a GiB of headroom: %s, after a restart %s", a.Outcome, *a.AfterRestart)
				}
				if !r.bgsave() {
					t.Error("a server started in mode 0 could not save in mode 2 with half a GiB of headroom")
				}
			}
			if held < 900*size.MiB {
				t.Errorf("holds %s: %s", held, fmt.Sprintf("charge %s, noreserve %s", said.Process.Charge, said.Process.Noreserve))
			}
		})
	}
}
