package kernel

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/overcheck/overcheck/pkg/size"
)

func set(t *testing.T, f Facts, changes ...string) Facts {
	t.Helper()
	for _, s := range changes {
		change, err := ParseChange(s)
		if err != nil {
			t.Fatal(err)
		}
		if f, err = change(f); err != nil {
			t.Fatal(err)
		}
	}
	return f
}

func TestSettingsThatMakeTheLimit(t *testing.T) {
	g := guest("6.1.0-13-amd64")
	if got := g.Host.commitLimit(); got != g.Host.CommitLimit {
		t.Fatalf("commitLimit() = %s, the guest's CommitLimit is %s", got, g.Host.CommitLimit)
	}
	g.Host.HugePageSize = 2 * size.MiB
	for _, tt := range []struct {
		changes []string
		want    size.Bytes // kB
	}{
		{[]string{"vm.overcommit_ratio=100"}, 480284},
		{[]string{"vm.overcommit_kbytes=100000"}, 100000},
		{[]string{"vm.overcommit_kbytes=100003"}, 100000}, // floored to pages
		{[]string{"vm.overcommit_kbytes=97MiB"}, 97 * 1024},
		{[]string{"vm.overcommit_kbytes=0"}, 0}, // writing it zeroes the ratio, whatever is written
		{[]string{"vm.overcommit_kbytes=100000", "vm.overcommit_ratio=50"}, 240140},
		{[]string{"SwapTotal=100MiB"}, 240140 + 102400},
		{[]string{"MemTotal=1GiB"}, 524288},
		{[]string{"HugePages_Total=10"}, 229900},
		{[]string{"vm.overcommit_ratio=2147483647", "MemTotal=1TiB"}, limitless / size.KiB},
		{[]string{"HugePages_Total=10", "vm.overcommit_kbytes=100000"}, 100000}, // subtracted from the ratio's part only
	} {
		if got := set(t, g, tt.changes...).Host.CommitLimit / size.KiB; got != tt.want {
			t.Errorf("%v: CommitLimit %d kB, want %d kB", tt.changes, got, tt.want)
		}
	}
}

func TestChangesLeaveTheirInputAlone(t *testing.T) {
	f := guest("4.4.155").with(old).charged(page)
	f.Host.MemAvailable, f.Process.RSSAnon = new(size.GiB), new(size.MiB)
	f.Process.Memory = []MemoryCgroup{{Path: "/a", Max: Limit{Unlimited: true}}}
	before, err := json.Marshal(f)
	if err != nil {
		t.Fatal(err)
	}
	set(t, f, "vm.overcommit_memory=2", "vm.overcommit_ratio=80", "vm.admin_reserve_kbytes=1", "vm.user_reserve_kbytes=1", "MemTotal=1GiB",
		"SwapTotal=1GiB", "Committed_AS=1GiB", "HugePages_Total=3", "kernel=6.1.0", "grow=1GiB", "restart=true", "memory.max=1GiB")
	if after, _ := json.Marshal(f); string(after) != string(before) {
		t.Errorf("before %s\nafter  %s", before, after)
	}
}

func TestGrow(t *testing.T) {
	f := guest("6.1.0").charged(10 * size.MiB)
	f.Process.RSSAnon = new(10 * size.MiB)
	g := set(t, f, "grow=110MiB")
	p := g.Process
	if p.Charge != 110*size.MiB || p.ChargeMin != p.Charge || p.LargestMin != 10*size.MiB || p.LargestMax != 110*size.MiB ||
		g.Host.CommittedAS != f.Host.CommittedAS+100*size.MiB || *p.RSSAnon != 110*size.MiB || p.PageTables != 200*size.KiB {
		t.Errorf("charged process: %+v", p)
	}
	if a := set(t, f, "grow=600MiB").Admit(Heuristic); a.Outcome != Uncertain {
		t.Errorf("one mapping of 600 MiB would fail, several pass: %s", a.Outcome)
	}
	f.Process.Noreserve = new(50 * size.MiB)
	g = set(t, f, "grow=2110MiB")
	if p := g.Process; p.Charge != 10*size.MiB || p.MayBeCharged != 2050*size.MiB || g.Host.CommittedAS != f.Host.CommittedAS {
		t.Errorf("process with MAP_NORESERVE memory: %+v", p)
	}
	if a := g.Admit(Never); a.Outcome != Uncertain || *a.AfterRestart != Fails {
		t.Errorf("it may grow by either kind: %s, after a restart %s", a.Outcome, *a.AfterRestart)
	}
	if g := set(t, f, "grow=1MiB"); g.Process.Charge != f.Process.Charge {
		t.Errorf("shrunk to %s", g.Process.Charge)
	}
}

func TestMemoryMax(t *testing.T) {
	f := guest("6.1.0").charged(page)
	f.Process.RSS, f.Process.PageTables = size.GiB, 4*size.MiB
	f.Mappings[0].Resident = size.GiB
	if c := find(t, set(t, f, "memory.max=1GiB"), "memory-cgroup"); c.Outcome != Uncertain {
		t.Errorf("no room, but what can be reclaimed is not known: %s", c.Outcome)
	}
	f.Process.Memory = []MemoryCgroup{{Path: "/a", Current: size.GiB, Max: Limit{Value: int64(2 * size.GiB)}}}
	if c := find(t, set(t, f, "memory.max=1GiB"), "memory-cgroup"); c.Outcome != Fails {
		t.Errorf("no room at all: %s", c.Outcome)
	}
	if c := find(t, set(t, f, "memory.max=2GiB"), "memory-cgroup"); c.Outcome != Succeeds {
		t.Errorf("room: %s", c.Outcome)
	}
}

func TestParseChangeRefuses(t *testing.T) {
	for in, want := range map[string]string{
		"vm.overcommit_memory":     "want KEY=VALUE",
		"vm.overcommit_memory=3":   "want a whole number from 0 to 2",
		"vm.overcommit_memory=":    "want a whole number",
		"vm.overcommit_ratio=-1":   "want a whole number",
		"vm.overcommit_ratio=50%":  "want a whole number",
		"MemTotal=12":              "one of the units",
		"MemTotal=-1GiB":           "out of range",
		"SwapTotal=900PiB":         "out of range",
		"kernel=linux":             "want MAJOR.MINOR",
		"restart=maybe":            "want true or false",
		"vm.overcomit_memory=2":    "the keys are vm.overcommit_memory=",
		"vm.overcommit_kbytes=1GB": "one of the units",
	} {
		if _, err := ParseChange(in); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", in, err, want)
		}
	}
}

// TestFactsEncodeWithoutLoss: they will be snapshots.
func TestFactsEncodeWithoutLoss(t *testing.T) {
	f := guest("4.19.222").with(old).charged(page, 3*page)
	f.Mappings[0].Path = "/a \u202e\x1b[31m\uFFFD"
	f.Host.MemAvailable = new(size.Bytes) // zero is not absent
	f.Process.NprocLimit = &Limit{Unlimited: true}
	f.Process.Pids = []PidsCgroup{{Path: "/a", Max: Limit{Value: 0}}, {Path: "/", Max: Limit{Unlimited: true}}}
	f.Process.Memory = []MemoryCgroup{{Path: "/a", Max: Limit{Value: 7}, SwapMax: &Limit{}}}
	b, err := json.Marshal(f)
	if err != nil {
		t.Fatal(err)
	}
	var back Facts
	if err := json.Unmarshal(b, &back); err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(f, back); d != "" {
		t.Errorf("(-before +after)\n%s\n%s", d, b)
	}
}
