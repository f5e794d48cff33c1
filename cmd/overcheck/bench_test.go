package main

import (
	"cmp"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/overcheck/overcheck/pkg/size"
)

// The benchmarks time whole commands, in turn with the cat that they are held
// against, so that a machine whose speed drifts spoils neither: the metric is
// the median of the ratios pair by pair.

// spent is what one run of a command took.
type spent struct {
	wall, cpu time.Duration
	peak      size.Bytes
}

func timed(b *testing.B, args ...string) spent {
	b.Helper()
	cmd := exec.Command(args[0], args[1:]...)
	start := time.Now()
	if err := cmd.Run(); err != nil {
		if exit, ok := err.(*exec.ExitError); !ok || exit.ExitCode() != exitBad {
			b.Fatalf("%q: %v", args, err)
		}
	}
	usage := cmd.ProcessState.SysUsage().(*syscall.Rusage)
	return spent{time.Since(start), cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime(), size.Bytes(usage.Maxrss) * size.KiB}
}

// against reports how long a takes as a multiple of b, and a's peak memory.
func against(b *testing.B, wall bool, command, reference []string) {
	b.Helper()
	var ratios []float64
	var peak size.Bytes
	timed(b, command...)
	timed(b, reference...)
	for b.Loop() {
		x, y := timed(b, command...), timed(b, reference...)
		peak = max(peak, x.peak)
		if wall {
			ratios = append(ratios, x.wall.Seconds()/y.wall.Seconds())
		} else {
			ratios = append(ratios, x.cpu.Seconds()/y.cpu.Seconds())
		}
	}
	slices.Sort(ratios)
	b.ReportMetric(ratios[len(ratios)/2], "x-of-cat")
	b.ReportMetric(float64(peak)/float64(size.MiB), "MiB-peak")
}

func startBenchVictim(b *testing.B, ops ...string) string {
	b.Helper()
	v := startVictim(b, build(b, "./testdata/victim"), nil, ops...)
	b.Cleanup(v.stop)
	return strconv.Itoa(v.cmd.Process.Pid)
}

// BenchmarkPidLarge: a process with 8 GiB of touched 4 KiB pages, in the mode in
// force. By default smaps is not read; CommitLimit does not matter to that.
func BenchmarkPidLarge(b *testing.B) {
	overcheck := build(b, ".")
	gib, err := strconv.Atoi(cmp.Or(os.Getenv("OVERCHECK_BENCH_GIB"), "8"))
	if err != nil {
		b.Fatal(err)
	}
	pid := startBenchVictim(b, fmt.Sprintf("touched=%d", size.Bytes(gib)*size.GiB))
	cat := []string{"cat", "/proc/" + pid + "/smaps"}
	b.Run("default", func(b *testing.B) { against(b, true, []string{overcheck, "pid", pid}, cat) })
	b.Run("smaps", func(b *testing.B) { against(b, true, []string{overcheck, "pid", pid, "--mappings", "smaps"}, cat) })
}

// BenchmarkPidManyMappings: a process with 60,000 mappings.
func BenchmarkPidManyMappings(b *testing.B) {
	overcheck := build(b, ".")
	pid := startBenchVictim(b, "many=60000")
	against(b, true, []string{overcheck, "pid", pid, "--mappings", "smaps"}, []string{"cat", "/proc/" + pid + "/smaps"})
}

// BenchmarkExplain: user and system time above the bare start of a Go program, as
// a multiple of cat /proc/meminfo.
func BenchmarkExplain(b *testing.B) {
	overcheck, bare := build(b, "."), build(b, "./testdata/bare")
	var above, cat []float64
	for b.Loop() {
		x, y, z := timed(b, overcheck, "explain"), timed(b, bare), timed(b, "cat", "/proc/meminfo")
		above = append(above, (x.cpu - y.cpu).Seconds())
		cat = append(cat, z.cpu.Seconds())
	}
	slices.Sort(above)
	slices.Sort(cat)
	b.ReportMetric(above[len(above)/2]/cat[len(cat)/2], "x-of-cat")
	info, err := os.Stat(overcheck)
	if err != nil {
		b.Fatal(err)
	}
	b.ReportMetric(float64(info.Size())/float64(size.MiB), "MiB-binary")
}

// BenchmarkPause: the pause that pid --calibrate estimates, as a multiple of what
// fork() then takes.
func BenchmarkPause(b *testing.B) {
	overcheck := build(b, ".")
	for _, order := range []string{"pages", "hugepages"} {
		for _, memory := range []size.Bytes{size.GiB / 4, size.GiB, 4 * size.GiB} {
			b.Run(fmt.Sprintf("%s/%s", order, memory), func(b *testing.B) {
				v := startVictim(b, build(b, "./testdata/victim"), nil, "anon=4096")
				b.Cleanup(v.stop)
				if errno := v.tell(order, int(memory)); errno != 0 {
					b.Fatal(errno)
				}
				var ratios []float64
				for b.Loop() {
					estimate := v.judge(overcheck, "--calibrate", "--mappings", "smaps").Survival.Pause
					ratios = append(ratios, estimate*1000/float64(v.tell("forktime", 0)))
				}
				slices.Sort(ratios)
				b.ReportMetric(ratios[0], "least-x-of-fork")
				b.ReportMetric(ratios[len(ratios)/2], "x-of-fork")
				b.ReportMetric(ratios[len(ratios)-1], "most-x-of-fork")
			})
		}
	}
}

// BenchmarkRedis: a Redis of some GiB under writes while it saves. The pause that
// pid --calibrate estimates as a multiple of latest_fork_usec, and what was copied
// (rdb_last_cow_size) as a percentage of what pid says may be, at most.
// OVERCHECK_BENCH_REDIS lists the sizes in MiB.
func BenchmarkRedis(b *testing.B) {
	overcheck := build(b, ".")
	for _, mib := range strings.Fields(cmp.Or(os.Getenv("OVERCHECK_BENCH_REDIS"), "256 1024")) {
		b.Run(mib+"MiB", func(b *testing.B) {
			n, err := strconv.Atoi(mib)
			if err != nil {
				b.Fatal(err)
			}
			keys := strconv.Itoa(n * 100)
			r := startRedis(b, redisOptions{server: "redis-server"})
			set := func(requests string) *exec.Cmd {
				return exec.Command("redis-benchmark", "-s", r.path("socket"), "-q", "-t", "set", "-r", keys, "-d", "10000", "-n", requests, "-P", "4")
			}
			if out, err := set(strconv.Itoa(n * 300)).CombinedOutput(); err != nil { // random keys: nearly all of them
				b.Fatalf("%v\n%s", err, out)
			}
			v := &victim{t: b, cmd: r.cmd}
			for b.Loop() {
				s := v.judge(overcheck, "--calibrate", "--mappings", "smaps").Survival
				load := set("1000000000")
				if err := load.Start(); err != nil {
					b.Fatal(err)
				}
				r.background("bgsave")
				r.finish()
				_ = load.Process.Kill()
				_ = load.Wait()
				b.ReportMetric(s.Pause*1000/r.info("latest_fork_usec"), "x-of-fork")
				b.ReportMetric(r.info("latest_fork_usec")/1000, "ms-fork")
				b.ReportMetric(100*r.info("rdb_last_cow_size")/float64(s.CowWorst), "percent-copied")
			}
		})
	}
}
