package main

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strings"

	"github.com/mattn/go-isatty"
	"github.com/spf13/cobra"

	"github.com/overcheck/overcheck/pkg/collect"
	"github.com/overcheck/overcheck/pkg/kernel"
	"github.com/overcheck/overcheck/pkg/probe"
	"github.com/overcheck/overcheck/pkg/render"
	"github.com/overcheck/overcheck/pkg/size"
	"github.com/overcheck/overcheck/pkg/verdict"
)

// common are the flags that mean the same in every command.
type common struct {
	output, color, procfs, sysfs string
	set                          []string
	probe                        bool
	margin                       float64
	remedy                       string
	reports                      bool // the command writes reports: it has every format
}

// add gives a command all of them.
func (o *common) add(c *cobra.Command) {
	o.addOutput(c)
	o.reports = true
	c.Flags().BoolVar(&o.probe, "probe", false, "where the release does not tell which mode-0 rule the kernel has, ask it (in mode 0, by a mapping that is gone at once)")
	c.Flags().StringArrayVar(&o.set, "set", nil, "judge as if `KEY=VALUE` held (repeatable, in order); keys:\n"+strings.Join(kernel.ChangeKeys(), "\n")+
		"\novercommit_ratio and overcommit_kbytes zero each other, as when they are written")
	c.Flags().Float64Var(&o.margin, "margin", verdict.DefaultMargin, "headroom that a remedy must leave, in `PERCENT` of what is needed")
	c.Flags().StringVar(&o.remedy, "remedy", "", "show the remedy `ID` in full, or write it with -o shell and -o markdown (default: the first)")
	c.Flags().Lookup("output").Usage = "text, json, markdown (a step of a runbook) or shell (the remedy as a script)"
}

// addOutput gives it those that it has when it asks about the world as it is.
func (o *common) addOutput(c *cobra.Command) {
	f := c.Flags()
	f.StringVarP(&o.output, "output", "o", "text", "text or json")
	f.StringVar(&o.color, "color", "auto", "auto (on a terminal, unless NO_COLOR is set), always or never")
	f.StringVar(&o.procfs, "procfs", "/proc", "read /proc at `DIR`: in a container, the host's")
	f.StringVar(&o.sysfs, "sysfs", "/sys", "read /sys at `DIR`")
}

// settings are the common flags, parsed.
type settings struct {
	format    render.Format
	colored   bool
	collector *collect.Collector
	changes   []kernel.Change
	assumed   []string // the changes as they were spelt
	// old: a change names another kernel, which may need the inputs of the old rule.
	old    bool
	probe  bool
	margin float64
	remedy string
	// failOn is what the exit code is about; empty: admission.
	failOn string
	// pausePerGiB is what --calibrate measured; 0: it did not.
	pausePerGiB float64
	// host's own root: where its /etc is
	root    string
	scanned *scan
}

// scan is what was found out once a run: of all processes, and of sysctl.d.
type scan struct {
	done       bool
	processes  []kernel.Facts
	boot       []kernel.BootSetting
	neighbours []string // nil: not looked for
}

func (o common) parse(s streams) (settings, error) {
	p := settings{probe: o.probe, margin: o.margin, remedy: o.remedy, root: "/"}
	if o.procfs != "/proc" {
		p.root = filepath.Join(o.procfs, "1/root") // another's: where its init has its own
	}
	if o.margin < 0 || o.margin > 1000 {
		return p, fmt.Errorf("--margin: %g: want a percentage from 0 to 1000", o.margin)
	}
	for _, text := range o.set {
		change, err := kernel.ParseChange(text)
		if err != nil {
			return p, fmt.Errorf("--set: %w", err)
		}
		p.changes, p.assumed = append(p.changes, change), append(p.assumed, text)
		p.old = p.old || strings.HasPrefix(text, "kernel=")
	}
	colored, err := o.colored(s)
	if err != nil {
		return p, err
	}
	p.colored = colored
	formats := map[string]render.Format{"text": render.Text(colored, o.remedy), "json": render.JSON}
	words := "text or json"
	if o.reports {
		formats["markdown"], formats["shell"] = render.Markdown(o.remedy), render.Shell(o.remedy)
		words = "text, json, markdown or shell"
	}
	var known bool
	if p.format, known = formats[o.output]; !known {
		return p, fmt.Errorf("--output: %q: want %s", o.output, words)
	}
	if o.output == "shell" && (o.procfs != "/proc" || o.sysfs != "/sys") {
		return p, errors.New("-o shell: a script can only check the machine that it runs on: run overcheck there, without --procfs and --sysfs")
	}
	p.scanned = new(scan)
	p.collector, err = collect.New(o.procfs, o.sysfs, s.pageSize)
	return p, err
}

// colored tells whether to write colours.
func (o common) colored(s streams) (bool, error) {
	if !slices.Contains([]string{"always", "never", "auto"}, o.color) {
		return false, fmt.Errorf("--color: %q: want auto, always or never", o.color)
	}
	return o.color == "always" || o.color == "auto" && s.getenv("NO_COLOR") == "" && s.getenv("TERM") != "dumb" && s.terminal(s.out), nil
}

// host collects the facts about the host, and where --probe asks for it, what
// only the kernel itself can tell.
func (p settings) host() (kernel.Host, error) {
	h, err := p.collector.Host(p.old)
	if err != nil || !p.probe {
		return h, err
	}
	if families, _ := h.Families(); len(families) > 1 {
		newRule, err := probe.NewRule(h)
		switch {
		case err == nil:
			h.NewRule = &newRule
		case !errors.Is(err, probe.ErrCannotAsk): // then both rules are judged
			return h, err
		}
	}
	return h, nil
}

// judge reports on the facts after the changes that --set asks for, with what
// would turn a verdict that is not good.
func (p settings) judge(f kernel.Facts) (verdict.Report, error) {
	f, err := p.apply(f)
	if err != nil {
		return verdict.Report{}, err
	}
	p.surroundings(&f)
	r := verdict.Judge(f, p.assumed...)
	if r.Verdict != kernel.Succeeds {
		r.Remedies = verdict.Remedies(f, p.margin, p.others(f))
		if p.remedy != "" && !slices.ContainsFunc(r.Remedies, func(m verdict.Remedy) bool { return m.ID == p.remedy }) {
			return r, fmt.Errorf("--remedy: %q: %w", p.remedy, noRemedy(r))
		}
	}
	return r, nil
}

// surroundings adds what sysctl.d sets and who else lives on the host: read once a
// run, however many processes are judged.
func (p settings) surroundings(f *kernel.Facts) {
	if f.Host.Container == "" && p.scanned.boot == nil {
		p.scanned.boot = p.collector.Boot(p.root)
	}
	// A look at every process is dear for explain: in mode 0 nobody has got the mode
	// that it is advised to want, but a kubelet will.
	_, kubelet := os.Stat(filepath.Join(p.root, "var/lib/kubelet"))
	wanted := f.Process.Source != kernel.Assumed || f.Host.Mode != kernel.Heuristic || kubelet == nil
	if wanted && p.scanned.neighbours == nil {
		p.scanned.neighbours = p.collector.Neighbours(verdict.Opinionated()...)
	}
	f.Host.Boot, f.Host.Neighbours = p.scanned.boot, p.scanned.neighbours
}

// noRemedy says which remedies there are.
func noRemedy(r verdict.Report) error {
	ids := make([]string, 0, len(r.Remedies))
	for _, m := range r.Remedies {
		ids = append(ids, m.ID)
	}
	if len(ids) == 0 {
		return errors.New("there is no remedy for this")
	}
	return fmt.Errorf("the remedies are %s", strings.Join(ids, ", "))
}

// others are the largest of the other processes: a remedy must say whom it harms.
func (p settings) others(f kernel.Facts) []kernel.Facts {
	const large, most = 256 * size.MiB, 32
	others := p.processes(f, large)
	others = slices.DeleteFunc(others, func(o kernel.Facts) bool { return o.Process.ChargeMax < large })
	return others[:min(len(others), most)]
}

// processes are the facts about all processes but f's, the largest first; with
// bounds from maps where they may be charged more than large.
func (p settings) processes(f kernel.Facts, large size.Bytes) []kernel.Facts {
	if !p.scanned.done {
		p.scanned.done, p.scanned.processes = true, p.scan(f.Host, large)
	}
	others := slices.DeleteFunc(slices.Clone(p.scanned.processes), func(o kernel.Facts) bool { return o.Process.PID == f.Process.PID })
	for i := range others {
		others[i].Host = f.Host
	}
	return others
}

func (p settings) scan(h kernel.Host, large size.Bytes) (all []kernel.Facts) {
	pids, _ := p.collector.Find(func(string, []string) bool { return true }) // what cannot be listed is not seen
	for _, pid := range pids {
		f := kernel.Facts{Host: h}
		var err error
		if f.Process, err = p.collector.Process(pid, h); err != nil {
			continue // a kernel thread, or it exited
		}
		if f.Process.ChargeMax >= large && p.collector.Maps(&f.Process) != nil {
			continue
		}
		all = append(all, f)
	}
	slices.SortFunc(all, func(a, b kernel.Facts) int { return cmp.Compare(b.Process.ChargeMax, a.Process.ChargeMax) })
	return all
}

// apply makes the changes that --set asks for.
func (p settings) apply(f kernel.Facts) (kernel.Facts, error) {
	for _, change := range p.changes {
		var err error
		if f, err = change(f); err != nil {
			return f, fmt.Errorf("--set: %w", err)
		}
	}
	return f, nil
}

// finish writes the reports; the exit code comes from the verdicts alone. list:
// several were asked for.
func (p settings) finish(s streams, reports []verdict.Report, list bool) error {
	if err := p.format(s.out, reports, list); err != nil {
		return err
	}
	for _, r := range reports {
		if !p.good(r) {
			return errBad
		}
	}
	return nil
}

// good reports whether what the exit code is about is good.
func (p settings) good(r verdict.Report) bool {
	admitted := r.Verdict == kernel.Succeeds
	survives := r.Survival == nil || r.Survival.Verdict == kernel.Succeeds
	switch p.failOn {
	case "survival":
		return survives
	case "both":
		return admitted && survives
	}
	return admitted
}

func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	return ok && isatty.IsTerminal(f.Fd())
}

// oneLine keeps names from outside that an error quotes from reaching the
// terminal raw, and lists joined errors on one line.
func oneLine(err error) string {
	return render.Printable(strings.ReplaceAll(err.Error(), "\n", "; "))
}

// version is the module's, as the Go toolchain recorded it.
func version() string {
	if info, ok := debug.ReadBuildInfo(); ok && info.Main.Version != "" {
		return info.Main.Version
	}
	return "(unknown)"
}
