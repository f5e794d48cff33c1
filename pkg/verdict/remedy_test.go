package verdict

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/overcheck/overcheck/pkg/kernel"
	"github.com/overcheck/overcheck/pkg/size"
)

// random is a process on a host, both of any kind.
func random(rng *rand.Rand) kernel.Facts {
	upTo := func(b size.Bytes) size.Bytes { return size.Bytes(rng.Int64N(int64(b/4096)+1)) * 4096 }
	maybe := func(b *bool) *bool {
		if rng.IntN(4) == 0 {
			return nil
		}
		return b
	}
	f := facts()
	h := &f.Host
	h.Release = []string{"6.1.0-13-amd64", "6.1.0-13-amd64", "3.10.0-1160.el7.x86_64", "4.19.0-27-amd64", "4.18.0-193.el8.x86_64", "2.6.32-642.el6.x86_64", "5.14.0-70.el9.x86_64"}[rng.IntN(7)]
	h.Mode = kernel.Mode(rng.IntN(3))
	h.MemTotal = size.GiB + upTo(63*size.GiB)
	h.MemFree = upTo(h.MemTotal)
	h.MemAvailable = new(h.MemFree)
	h.SwapTotal = upTo(8 * size.GiB)
	h.SwapFree = upTo(h.SwapTotal)
	h.HugePageSize = 2 * size.MiB
	h.HugePagesTotal = rng.Int64N(int64(h.MemTotal / (4 * size.MiB)))
	h.HugePagesFree = rng.Int64N(h.HugePagesTotal + 1)
	h.Hugetlb = size.Bytes(h.HugePagesTotal) * h.HugePageSize
	h.OvercommitRatio = rng.Int64N(120)
	h.OvercommitKbytes = new(size.Bytes)
	if rng.IntN(2) == 0 {
		h.OvercommitKbytes, h.OvercommitRatio = new(4096+upTo(h.MemTotal)), 0
	}
	h.AdminReserve, h.UserReserve = new(upTo(512*size.MiB)), new(upTo(4*size.GiB))
	h.Old = &kernel.OldInputs{FreePages: int64(h.MemFree / 4096), FilePages: int64(upTo(h.MemTotal-h.MemFree) / 4096), TotalReserve: 10000}
	f, _ = mustParse("SwapTotal=" + exact(h.SwapTotal))(f) // makes CommitLimit
	h, p := &f.Host, &f.Process
	h.CommittedAS = upTo(h.CommitLimit + h.CommitLimit/4 + size.GiB)
	h.PresentRAM = h.MemTotal

	f.Mappings = nil
	p.Charge, p.Largest = 0, 0
	at := kernel.Address(0x7f0000000000)
	for range 1 + rng.IntN(5) {
		length := 4096 + upTo(h.MemTotal/size.Bytes(1+rng.IntN(4)))
		m := kernel.Mapping{Start: at, End: at + kernel.Address(length), Flags: "rd wr ac", Path: []string{"", "[heap]", "/lib/x.so"}[rng.IntN(3)]}
		f.Mappings = append(f.Mappings, m)
		at = m.End + 4096
		p.Charge += length
		p.Largest = max(p.Largest, length)
	}
	p.ChargeMin, p.ChargeMax, p.LargestMin, p.LargestMax = p.Charge, p.Charge, p.Largest, p.Largest
	p.Charged = len(f.Mappings)
	h.CommittedAS += p.Charge
	if rng.IntN(4) == 0 { // it fits but for a reserve
		h.CommittedAS = max(h.CommitLimit-p.Charge-upTo(4*size.GiB), p.Charge)
	}
	p.Noreserve = new(upTo(4 * size.GiB))
	p.TotalVM = p.Charge + *p.Noreserve + upTo(256*size.GiB)
	p.PageTables = upTo(64 * size.MiB)
	p.CapSysAdmin = maybe(new(rng.IntN(2) == 0))
	if rng.IntN(4) == 0 {
		p.Source, p.ChargeMin, p.LargestMin, p.Noreserve, p.Dontfork, f.Mappings = kernel.FromMaps, 0, 0, nil, nil, nil
	}
	if rng.IntN(6) == 0 {
		f, _ = mustParse("grow=" + exact(p.Charge+upTo(h.MemTotal)))(f)
		h, p = &f.Host, &f.Process
	}
	p.Program.Exe = []string{"/usr/bin/redis-server", "/usr/bin/python3.9", "/usr/bin/python3.11", "/usr/bin/node", "/usr/sbin/x", ""}[rng.IntN(6)]
	limits := func(used int64) kernel.Limit {
		return kernel.Limit{Value: used + 1 + rng.Int64N(100) - rng.Int64N(4), Unlimited: rng.IntN(3) == 0}
	}
	for i := range max(rng.IntN(6)-3, 0) {
		used := rng.Int64N(100)
		p.Pids = append(p.Pids, kernel.PidsCgroup{Path: fmt.Sprintf("/%d.slice", i), LimitFile: "/sys/fs/cgroup/x/pids.max", Current: used, Max: limits(used)})
	}
	for i := range max(rng.IntN(6)-3, 0) {
		used := upTo(16 * size.GiB)
		p.Memory = append(p.Memory, kernel.MemoryCgroup{
			Path: fmt.Sprintf("/%d.slice", i), LimitFile: "/sys/fs/cgroup/x/memory.max", Current: used,
			Max: kernel.Limit{Value: int64(used + upTo(128*size.MiB)), Unlimited: rng.IntN(3) == 0}, File: upTo(size.MiB),
		})
	}
	if rng.IntN(3) == 0 {
		tasks := rng.Int64N(1000)
		p.NprocExempt, p.UID, p.UIDTasksMin, p.UIDTasksMax = new(bool), 1000, &tasks, &tasks
		p.NprocLimit, p.NprocHard = new(limits(tasks)), new(limits(tasks))
		p.NprocLimit.Value = tasks + rng.Int64N(5) - 1
	}
	if rng.IntN(8) == 0 {
		h.ThreadsMax = new(*h.Threads + rng.Int64N(3) - 1)
	}
	if rng.IntN(16) == 0 {
		h.PidMax = new(*h.Threads + rng.Int64N(500))
	}
	return f
}

func mustParse(s string) kernel.Change {
	c, err := kernel.ParseChange(s)
	if err != nil {
		panic(err)
	}
	return c
}

// TestRemediesTurnTheVerdict: over random facts, each remedy applied as --set
// takes it turns the verdict; where the verdict is not good there is one; where
// it is good there is none; and the smallest value is the smallest.
func TestRemediesTurnTheVerdict(t *testing.T) {
	rng := rand.New(rand.NewPCG(4, 2))
	seen := map[string]int{}
	bad := 0
	for i := range 1000 {
		f := random(rng)
		r := Judge(f)
		remedies := Remedies(f, DefaultMargin, nil)
		if r.Verdict == kernel.Succeeds {
			if len(remedies) > 0 {
				t.Fatalf("%d: succeeds, and has remedies %+v", i, remedies)
			}
			continue
		}
		bad++
		if len(remedies) == 0 {
			t.Errorf("%d: %s, %+v: no remedy", i, r.Verdict, search{facts: f}.obstacles())
		}
		for j, m := range remedies {
			for id := range strings.SplitSeq(m.ID, "+") {
				seen[id]++
			}
			after := f
			for key, value := range m.Set {
				var err error
				if after, err = mustParse(key + "=" + value)(after); err != nil {
					t.Fatalf("%d: %s: %v", i, m.ID, err)
				}
			}
			if got := Judge(after); got.Verdict != kernel.Succeeds || m.VerdictAfter != kernel.Succeeds {
				t.Errorf("%d: %s %v: the verdict is %s", i, m.ID, m.Set, got.Verdict)
			}
			if !m.Code && (len(m.Commands) == 0 || len(m.Undo) == 0 || m.Persist == nil && !strings.Contains(m.Risk, "is not known") && !strings.Contains(m.Risk, "kubelet")) || m.Title == "" || m.Risk == "" {
				t.Errorf("%d: %+v: incomplete", i, m)
			}
			if j > 0 && remedies[j-1].Code && !m.Code {
				t.Errorf("%d: %s, which takes another program, before %s", i, remedies[j-1].ID, m.ID)
			}
		}
	}
	t.Logf("%d of 1000 not good; %v", bad, seen)
	for _, id := range []string{
		"overcommit-kbytes", "overcommit-ratio", "add-swap", "user-reserve", "fewer-huge-pages", "overcommit-heuristic", "overcommit-always",
		"shrink-process", "madvise-dontfork", "split-mapping", "map-noreserve", "spawn-without-fork",
		"pids-max", "memory-max", "rlimit-nproc", "threads-max", "pid-max",
	} {
		if seen[id] == 0 {
			t.Errorf("%s was never found", id)
		}
	}
}

// TestRemediesAreMinimal: with no margin, one step less does not turn the check.
func TestRemediesAreMinimal(t *testing.T) {
	rng := rand.New(rand.NewPCG(7, 7))
	tried := 0
	for i := range 400 {
		f := random(rng)
		s := search{facts: f}
		obstacles := s.obstacles()
		if len(obstacles) != 1 {
			continue
		}
		for _, m := range Remedies(f, 0, nil) {
			for _, key := range []string{"vm.overcommit_kbytes", "vm.overcommit_ratio", "RLIMIT_NPROC", "kernel.threads-max", "kernel.pid_max"} {
				value, ok := m.Set[key]
				if !ok {
					continue
				}
				var n int64
				fmt.Sscan(value, &n)
				less, err := mustParse(fmt.Sprintf("%s=%d", key, n-1))(f)
				if err != nil {
					t.Fatal(err)
				}
				if o, _ := outcome(checks(less)); n > 0 && o == kernel.Succeeds {
					t.Errorf("%d: %s=%d would do, %s was found", i, key, n-1, value)
				}
				tried++
			}
		}
	}
	if tried < 100 {
		t.Errorf("only %d tried", tried)
	}
}

// TestRemedyNamesWhoItHarms: from mode 2 to mode 0, a neighbour with a sparse
// mapping fails.
func TestRemedyNamesWhoItHarms(t *testing.T) {
	f := facts()
	f.Host.Mode, f.Host.CommittedAS = kernel.Never, f.Host.CommitLimit
	neighbour := facts()
	neighbour.Host = f.Host
	neighbour.Process.PID, neighbour.Process.Comm = 9, "sparse"
	neighbour.Process.Charge, neighbour.Process.ChargeMin, neighbour.Process.ChargeMax = 0, 0, 0
	neighbour.Process.Largest, neighbour.Process.LargestMin, neighbour.Process.LargestMax = 5*size.GiB, 5*size.GiB, 5*size.GiB
	for _, r := range Remedies(f, DefaultMargin, []kernel.Facts{neighbour}) {
		harms := slices.ContainsFunc(r.Harms(), func(o Other) bool { return o.PID == 9 && o.After == kernel.Fails })
		if harms != (r.ID == "overcommit-heuristic") {
			t.Errorf("%s: harms %+v", r.ID, r.Harms())
		}
	}
}

func TestPlaced(t *testing.T) {
	id := strings.Repeat("0123456789abcdef", 4)
	for cgroup, want := range map[string]placement{
		"/system.slice/redis.service":                                         {inSystemd, "redis.service"},
		"/redis.slice":                                                        {inSystemd, "redis.slice"},
		"/user.slice/user-1000.slice/session-3.scope":                         {inSystemd, "session-3.scope"},
		"/docker/" + id:                                                       {inDocker, id[:12]},
		"/system.slice/docker-" + id + ".scope":                               {inDocker, id[:12]},
		"/kubepods.slice/kubepods-pod1.slice/x.scope":                         {inKubernetes, ""},
		"/docker/" + id + "/system.slice/redis.service":                       {inNothing, ""},
		"/lxc.payload.web/system.slice/redis.service":                         {inNothing, ""},
		"/machine.slice/libpod-" + id + ".scope":                              {inNothing, ""},
		"/user.slice/user-1000.slice/user@1000.service/app.slice/foo.service": {inNothing, ""},
		"/":        {inNothing, ""},
		"/app/web": {inNothing, ""},
	} {
		if got := placed(cgroup); got != want {
			t.Errorf("%s: %+v", cgroup, got)
		}
	}
}

func TestQuote(t *testing.T) {
	for name, want := range map[string]string{"/sys/a.b": "/sys/a.b", "a b": "'a b'", "it's": `'it'\''s'`, "$(x)": "'$(x)'", "": "''", "a\nb": "'a\nb'"} {
		if got := Quote(name); got != want {
			t.Errorf("%q: %s", name, got)
		}
	}
}
