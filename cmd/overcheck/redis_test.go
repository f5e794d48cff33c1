package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/overcheck/overcheck/pkg/kernel"
	"github.com/overcheck/overcheck/pkg/size"
)

// redis is a real server on a socket of its own.
type redis struct {
	t   testing.TB
	dir string
	cmd *exec.Cmd
}

type redisOptions struct {
	server string // redis-server or valkey-server
	env    []string
	as     *syscall.Credential // nil: as the test
}

// startRedis starts one while the mode is what it is: jemalloc looks at
// vm.overcommit_memory once, when it starts.
func startRedis(t testing.TB, o redisOptions) *redis {
	t.Helper()
	dir, err := os.MkdirTemp("/tmp", "overcheck-redis-") // a socket's path is short
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	r := &redis{t: t, dir: dir}
	r.cmd = exec.Command(o.server, "--port", "0", "--unixsocket", r.path("socket"), "--dir", r.dir, "--logfile", r.path("log"),
		"--save", "", "--appendonly", "no", "--enable-debug-command", "local", "--daemonize", "no", "--rdbcompression", "no")
	r.cmd.Env = append(os.Environ(), o.env...)
	if o.as != nil {
		r.cmd.SysProcAttr = &syscall.SysProcAttr{Credential: o.as}
		if err := os.Chown(dir, int(o.as.Uid), int(o.as.Gid)); err != nil {
			t.Fatal(err)
		}
	}
	if err := r.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = r.cmd.Process.Signal(syscall.SIGKILL)
		_ = r.cmd.Wait()
	})
	until(t, "redis answers", func() bool { return r.try("ping") == "PONG" })
	return r
}

func (r *redis) path(name string) string { return filepath.Join(r.dir, name) }

// try asks it something; what went wrong is in the answer.
func (r *redis) try(args ...string) string {
	out, _ := exec.Command("redis-cli", append([]string{"-s", r.path("socket")}, args...)...).CombinedOutput()
	return strings.TrimSpace(strings.ReplaceAll(string(out), "\r", ""))
}

// until polls; the bound is for a server that hangs, not a measure.
func until(t testing.TB, what string, done func() bool) {
	t.Helper()
	for range 1200 {
		if done() {
			return
		}
		time.Sleep(50 * time.Millisecond)
	}
	t.Fatalf("waited a minute until %s", what)
}

func (r *redis) log() string {
	b, _ := os.ReadFile(r.path("log"))
	return string(b)
}

// background gives an order that forks, and returns why that could not be done;
// empty: it was.
func (r *redis) background(command string) (refused string) {
	r.t.Helper()
	logged := len(r.log())
	answer := r.try(command)
	refused = regexp.MustCompile(`Can't .* in background: fork: .*`).FindString(r.log()[logged:])
	if started := strings.Contains(answer, "started"); started == (refused != "") {
		r.t.Fatalf("%s answered %q, and the log says\n%s", command, answer, r.log()[logged:])
	}
	return refused
}

// info is a number of INFO.
func (r *redis) info(field string) float64 {
	r.t.Helper()
	for line := range strings.Lines(r.try("info")) {
		if value, ok := strings.CutPrefix(strings.TrimSpace(line), field+":"); ok {
			n, err := strconv.ParseFloat(value, 64)
			if err != nil {
				r.t.Fatal(err)
			}
			return n
		}
	}
	r.t.Fatalf("INFO has no %s", field)
	return 0
}

// finish waits until what was started in the background has ended.
func (r *redis) finish() {
	r.t.Helper()
	until(r.t, "redis has done its work", func() bool {
		info := r.try("info", "persistence")
		return strings.Contains(info, "rdb_bgsave_in_progress:0") && strings.Contains(info, "aof_rewrite_in_progress:0")
	})
}

// bgsave asks for a save in mode 2 and reports whether the fork was admitted.
func (r *redis) bgsave() bool {
	r.t.Helper()
	setSysctl(r.t, "overcommit_memory", int64(kernel.Never))
	refused := r.background("bgsave")
	setSysctl(r.t, "overcommit_memory", int64(kernel.Heuristic))
	r.finish()
	return refused == ""
}

// TestRedis: what overcheck says of mode 2, from mode 0, against what BGSAVE then
// meets there: with a limit that refuses and with one that admits, for a server
// that was started in mode 0 and one that was started in mode 2.
func TestRedis(t *testing.T) {
	needOracle(t)
	needPrograms(t, "redis-server", "redis-cli")
	overcheck, victimBin := build(t, "."), build(t, "./testdata/victim")
	for _, startedIn := range []kernel.Mode{kernel.Heuristic, kernel.Never} {
		t.Run("started in mode "+startedIn.String(), func(t *testing.T) {
			guardSysctls(t, victimBin)
			setSysctl(t, "overcommit_kbytes", int64(ramAndSwap()/size.KiB))
			setSysctl(t, "overcommit_memory", int64(startedIn))
			r := startRedis(t, redisOptions{server: "redis-server"})
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
