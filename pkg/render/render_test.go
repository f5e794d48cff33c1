package render

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"

	"github.com/overcheck/overcheck/pkg/kernel"
	"github.com/overcheck/overcheck/pkg/size"
	"github.com/overcheck/overcheck/pkg/verdict"
)

var update = flag.Bool("update", false, "rewrite the golden files")

// hostile is a name that a process may give itself.
const hostile = "\x1b[31mredis\u202e\n\a"

// base is a process with 1 GiB charged on a host of 16 GiB in mode 0.
func base() kernel.Facts {
	const charge = size.GiB
	return kernel.Facts{
		Host: kernel.Host{
			Release: "6.1.0-13-amd64", Version: "#1 SMP PREEMPT_DYNAMIC", PageSize: 4 * size.KiB, CPUsOnline: 4, CPUsPresent: 4,
			OvercommitRatio: 50, OvercommitKbytes: new(size.Bytes), AdminReserve: new(8 * size.MiB), UserReserve: new(128 * size.MiB),
			MemTotal: 16 * size.GiB, MemFree: 8 * size.GiB, MemAvailable: new(10 * size.GiB), CommitLimit: 8 * size.GiB,
			CommittedAS: 3*size.GiB + 40*size.MiB, OwnCharge: 40 * size.MiB, PresentRAM: 16 * size.GiB,
			Threads: new(int64(412)), ThreadsMax: new(int64(127000)), PidMax: new(int64(4194304)),
		},
		Process: kernel.Process{
			PID: 4127, Comm: "redis-server", UID: 999, Source: kernel.FromSmaps, Program: kernel.Program{Exe: "/usr/bin/redis-server"},
			Charge: charge, ChargeMin: charge, ChargeMax: charge, Largest: charge, LargestMin: charge, LargestMax: charge,
			Charged: 12, MappingCount: 40, Noreserve: new(size.Bytes), Dontfork: new(size.Bytes), TotalVM: 2 * size.GiB,
			RSS: 1100 * size.MiB, RSSAnon: new(size.GiB), PageTables: 2200 * size.KiB,
			CapSysAdmin: new(bool), NprocExempt: new(bool), InitialUserNS: new(true), PidNSInitDead: new(bool),
			NprocLimit: &kernel.Limit{Value: 63000}, UIDTasksMin: new(int64(7)), UIDTasksMax: new(int64(7)),
			Pids:   []kernel.PidsCgroup{{Path: "/system.slice/redis.service", Current: 6, Max: kernel.Limit{Value: 19000}}},
			Memory: []kernel.MemoryCgroup{{Path: "/system.slice/redis.service", Current: size.GiB, Max: kernel.Limit{Unlimited: true}}},
		},
		Mappings: []kernel.Mapping{{Start: 0x7f0000000000, End: 0x7f0000000000 + kernel.Address(charge), Resident: charge, Flags: "rd wr mr mw me ac"}},
	}
}

func cases() map[string][]verdict.Report {
	sparse := base()
	sparse.Process.Comm = hostile
	sparse.Process.Largest, sparse.Process.LargestMin, sparse.Process.LargestMax = 72*size.GiB, 72*size.GiB, 72*size.GiB
	sparse.Process.Charge, sparse.Process.ChargeMin, sparse.Process.ChargeMax = 72*size.GiB, 72*size.GiB, 72*size.GiB
	sparse.Host.CommittedAS += 71 * size.GiB
	sparse.Mappings[0].End = sparse.Mappings[0].Start + kernel.Address(72*size.GiB)
	sparse.Mappings[0].Resident = 21 * size.MiB
	sparse.Mappings[0].Path = "/data/" + hostile + " (deleted)"

	bounds := base()
	p := &bounds.Process
	p.Source, p.ChargeMin, p.LargestMin, p.Noreserve, p.Dontfork = kernel.FromMaps, 0, 0, nil, nil
	p.ChargeMax, p.LargestMax, p.Charge, p.RSS = 7*size.GiB, 6*size.GiB, 6*size.GiB, 6*size.GiB
	p.RSSAnon, p.PageTables, p.CapSysAdmin = new(6*size.GiB), 12*size.MiB, nil
	bounds.Host.MeminfoRewritten, bounds.Host.LoadavgRewritten = true, true
	bounds.Mappings = nil

	jemalloc := base()
	jemalloc.Process.Noreserve, jemalloc.Process.Dontfork = new(6*size.GiB), new(16*size.MiB)
	jemalloc.Process.Pids[0].Max.Value = 6

	shell := base()
	shell.Process = kernel.Process{
		Comm: "sh", Source: kernel.Assumed, Charge: 4 * size.MiB, ChargeMin: 4 * size.MiB, ChargeMax: 4 * size.MiB,
		Largest: 2 * size.MiB, LargestMin: 2 * size.MiB, LargestMax: 2 * size.MiB, Charged: 12, TotalVM: 8 * size.MiB,
		CapSysAdmin: new(true), NprocExempt: new(true), InitialUserNS: new(true), PidNSInitDead: new(bool),
	}
	shell.Mappings = nil
	shell.Host.Mode = kernel.Never

	oldKernel := base()
	oldKernel.Host.Release = "4.18.0-193.el8.x86_64"
	oldKernel.Host.Old = &kernel.OldInputs{FreePages: 100000, FilePages: 200000, Shmem: 50000, SlabReclaimable: 20000, TotalReserve: 20000}

	jvm := base()
	jvm.Host.Mode, jvm.Host.CommitLimit = kernel.Never, 4*size.GiB
	jvm.Process.Comm, jvm.Process.Program = "java", kernel.Program{
		Exe: "/usr/lib/jvm/java-17/bin/java", Libraries: []string{"/usr/lib/jvm/java-17/lib/server/libjvm.so"}, Java: "17.0.15",
	}

	short := base()
	short.Host.Mode, short.Host.CommitLimit = kernel.Never, 4*size.GiB
	short.Host.OvercommitKbytes, short.Host.OvercommitRatio = new(4*size.GiB), 0
	short.Host.Boot = []kernel.BootSetting{{Key: "vm.overcommit_memory", Value: "2", File: "/etc/sysctl.d/99-site.conf"}, {Key: "vm.overcommit_kbytes", Value: "4194304", File: "/etc/sysctl.d/99-site.conf"}}
	short.Host.Neighbours = []string{"postgres", "redis-server"}

	return map[string][]verdict.Report{
		"jvm-in-mode-2":   {judge(jvm)},
		"redis-in-mode-2": {judge(short)},
		"succeeds":        {judge(base())},
		"sparse-mapping":  {judge(sparse)},
		"bounds-in-lxcfs": {judge(bounds)},
		"pids-limit":      {judge(jemalloc)},
		"host":            {judge(shell)},
		"rule-unknown":    {judge(oldKernel)},
		"two-processes":   {judge(base()), judge(sparse)},
		"what-if":         {judge(base(), "vm.overcommit_memory=0", "kernel=6.1.0-13-amd64")},
	}
}

// judge is what the commands do: a verdict, and what would turn it.
func judge(f kernel.Facts, assumed ...string) verdict.Report {
	r := verdict.Judge(f, assumed...)
	if r.Verdict != kernel.Succeeds {
		neighbour := base()
		neighbour.Host = f.Host
		neighbour.Process.PID, neighbour.Process.Comm = 99, hostile
		neighbour.Process.Largest, neighbour.Process.LargestMin, neighbour.Process.LargestMax = 20*size.GiB, 20*size.GiB, 20*size.GiB
		neighbour.Process.Charge, neighbour.Process.ChargeMin, neighbour.Process.ChargeMax = 0, 0, 0
		r.Remedies = verdict.Remedies(f, verdict.DefaultMargin, []kernel.Facts{neighbour})
	}
	return r
}

func TestGolden(t *testing.T) {
	for name, reports := range cases() {
		for suffix, format := range map[string]Format{".txt": Text(false, ""), ".color.txt": Text(true, ""), ".json": JSON, ".md": Markdown("")} {
			var got bytes.Buffer
			if err := format(&got, reports, len(reports) > 1); err != nil {
				t.Fatal(err)
			}
			golden(t, name+suffix, got.Bytes())
		}
	}
}

// TestShell: every remedy that is made of commands, as a script that a shell
// understands; the names in it stay data.
func TestShell(t *testing.T) {
	for name, reports := range cases() {
		r := reports[0]
		if len(r.Assumed) > 0 || len(reports) > 1 {
			if err := Shell("")(io.Discard, reports, false); !errors.Is(err, ErrWhatIf) && !errors.Is(err, ErrSeveral) {
				t.Errorf("%s: %v", name, err)
			}
			continue
		}
		for _, m := range append([]verdict.Remedy{{}}, r.Remedies...) {
			var script bytes.Buffer
			err := Shell(m.ID)(&script, reports, false)
			if possible := m.ID == "" && (r.Verdict == kernel.Succeeds || firstOfCommands(r) != nil) || len(m.Commands) > 0; possible != (err == nil) {
				t.Errorf("%s: %s: %v", name, m.ID, err)
			}
			if err != nil {
				continue
			}
			if m.ID == "" {
				golden(t, name+".sh", script.Bytes())
			}
			check := exec.Command("sh", "-n")
			check.Stdin = bytes.NewReader(script.Bytes())
			if out, err := check.CombinedOutput(); err != nil {
				t.Errorf("%s: %s: sh -n: %v\n%s\n%s", name, m.ID, err, out, script.String())
			}
			if strings.ContainsAny(script.String(), "\x1b\a") || strings.Contains(script.String(), "\u202e") {
				t.Errorf("%s: %s: a name reaches the script raw", name, m.ID)
			}
		}
	}
}

// golden compares with a file of testdata, or writes it.
func golden(t *testing.T, name string, got []byte) {
	t.Helper()
	file := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(file, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(string(want), string(got)); d != "" {
		t.Errorf("%s (-want +got):\n%s", file, d)
	}
}

func TestTextKeepsTo80ColumnsAndHostileNamesStayOut(t *testing.T) {
	for name, reports := range cases() {
		for _, colored := range []bool{false, true} {
			var b bytes.Buffer
			if err := Text(colored, "")(&b, reports, true); err != nil {
				t.Fatal(err)
			}
			for line := range strings.Lines(b.String()) {
				line = strings.TrimSuffix(line, "\n")
				if n := columns(line); n > width && !strings.Contains(line, Printable(hostile)) && !isCommand(line, reports) { // these are not cut
					t.Errorf("%s: %d columns: %s", name, n, line)
				}
				if line != strings.TrimRight(line, " ") {
					t.Errorf("%s: blanks at the end: %q", name, line)
				}
			}
			for _, bad := range []string{"\x1b[31mredis", "\u202e", "\a"} {
				if strings.Contains(b.String(), bad) {
					t.Errorf("%s: %q reaches the terminal", name, bad)
				}
			}
			if !colored && strings.Contains(b.String(), "\x1b") {
				t.Errorf("%s: an escape sequence without colour", name)
			}
		}
	}
}

// isCommand reports whether a line ends in a command of a remedy.
func isCommand(line string, reports []verdict.Report) bool {
	for _, r := range reports {
		for _, m := range r.Remedies {
			for _, c := range append(m.Commands, m.Undo...) {
				if strings.HasSuffix(line, c) {
					return true
				}
			}
			if m.Persist != nil && strings.Contains(m.Persist.Content, strings.TrimSpace(line)) {
				return true
			}
		}
	}
	return false
}

// TestTextAndJSONAgree on the verdict and on every number of the sum.
func TestTextAndJSONAgree(t *testing.T) {
	for name, reports := range cases() {
		var text, object bytes.Buffer
		if err := Text(false, "")(&text, reports[:1], false); err != nil {
			t.Fatal(err)
		}
		if err := JSON(&object, reports[:1], false); err != nil {
			t.Fatal(err)
		}
		var back verdict.Report
		if err := json.Unmarshal(object.Bytes(), &back); err != nil {
			t.Fatal(err)
		}
		first, _, _ := strings.Cut(text.String(), "\n")
		words := map[kernel.Outcome]string{kernel.Succeeds: "fork succeeds", kernel.Fails: "fork FAILS", kernel.Uncertain: "fork is uncertain"}
		if name == "what-if" {
			words[kernel.Succeeds] = "fork would succeed"
		}
		if !strings.Contains(first, words[back.Verdict]) {
			t.Errorf("%s: JSON says %s, text says %q", name, back.Verdict, first)
		}
		for _, a := range back.Admission {
			for _, term := range append(append([]kernel.Term{}, a.Terms...), a.LimitTerms...) {
				if !strings.Contains(text.String(), term.Name) || !strings.Contains(strings.Join(strings.Fields(text.String()), " "), term.Note) {
					t.Errorf("%s: the text lacks %q %q", name, term.Name, term.Note)
				}
			}
		}
		if back.Verdict == kernel.Fails && !strings.Contains(text.String(), "\nfails ") {
			t.Errorf("%s: grep '^fail' finds nothing", name)
		}
	}
}

func TestPrintable(t *testing.T) {
	for in, want := range map[string]string{
		"redis-server":    "redis-server",
		"größe 数":         "größe 数",
		"a\nb\tc":         `a\nb\tc`,
		"\x1b]0;title\a":  `\x1b]0;title\a`,
		"\u202egnp.exe":   `\u202egnp.exe`,
		"\xff\xfe":        `\xff\xfe`,
		"\u0085\u200b":    `\u0085\u200b`,
		`C:\012`:          `C:\012`,
		"\x00":            `\x00`,
		"\U000e0001hello": `\U000e0001hello`,
	} {
		if got := Printable(in); got != want {
			t.Errorf("%q: %q, want %q", in, got, want)
		}
	}
}

func FuzzPrintable(f *testing.F) {
	f.Add(hostile)
	f.Fuzz(func(t *testing.T, s string) {
		got := Printable(s)
		if !utf8.ValidString(got) || strings.ContainsFunc(got, func(r rune) bool { return r < 0x20 || r == 0x7f }) {
			t.Errorf("%q: %q", s, got)
		}
	})
}
