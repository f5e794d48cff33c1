package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"runtime/debug"
	"strings"

	"github.com/mattn/go-isatty"
	"github.com/spf13/cobra"

	"github.com/overcheck/overcheck/pkg/collect"
	"github.com/overcheck/overcheck/pkg/kernel"
	"github.com/overcheck/overcheck/pkg/probe"
	"github.com/overcheck/overcheck/pkg/render"
	"github.com/overcheck/overcheck/pkg/verdict"
)

// common are the flags that mean the same in every command.
type common struct {
	output, color, procfs, sysfs string
	set                          []string
	probe                        bool
}

// add gives a command all of them.
func (o *common) add(c *cobra.Command) {
	o.addOutput(c)
	c.Flags().BoolVar(&o.probe, "probe", false, "where the release does not tell which mode-0 rule the kernel has, ask it (in mode 0, by a mapping that is gone at once)")
	c.Flags().StringArrayVar(&o.set, "set", nil, "judge as if `KEY=VALUE` held (repeatable, in order); keys:\n"+strings.Join(kernel.ChangeKeys(), "\n")+
		"\novercommit_ratio and overcommit_kbytes zero each other, as when they are written")
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
	old   bool
	probe bool
}

func (o common) parse(s streams) (settings, error) {
	p := settings{probe: o.probe}
	for _, text := range o.set {
		change, err := kernel.ParseChange(text)
		if err != nil {
			return p, fmt.Errorf("--set: %w", err)
		}
		p.changes, p.assumed = append(p.changes, change), append(p.assumed, text)
		p.old = p.old || strings.HasPrefix(text, "kernel=")
	}
	colored := false
	switch o.color {
	case "always":
		colored = true
	case "never":
	case "auto":
		colored = s.getenv("NO_COLOR") == "" && s.getenv("TERM") != "dumb" && s.terminal(s.out)
	default:
		return p, fmt.Errorf("--color: %q: want auto, always or never", o.color)
	}
	p.colored = colored
	switch o.output {
	case "text":
		p.format = render.Text(colored)
	case "json":
		p.format = render.JSON
	default:
		return p, fmt.Errorf("--output: %q: want text or json", o.output)
	}
	var err error
	p.collector, err = collect.New(o.procfs, o.sysfs, s.pageSize)
	return p, err
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

// judge reports on the facts after the changes that --set asks for.
func (p settings) judge(f kernel.Facts) verdict.Report {
	return verdict.Judge(p.apply(f), p.assumed...)
}

// apply makes the changes that --set asks for.
func (p settings) apply(f kernel.Facts) kernel.Facts {
	for _, change := range p.changes {
		f = change(f)
	}
	return f
}

// finish writes the reports; the exit code comes from the verdicts alone. list:
// several were asked for.
func (p settings) finish(s streams, reports []verdict.Report, list bool) error {
	if err := p.format(s.out, reports, list); err != nil {
		return err
	}
	for _, r := range reports {
		if r.Verdict != kernel.Succeeds {
			return errBad
		}
	}
	return nil
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
