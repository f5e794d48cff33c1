package main

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/overcheck/overcheck/pkg/collect"
	"github.com/overcheck/overcheck/pkg/kernel"
	"github.com/overcheck/overcheck/pkg/probe"
	"github.com/overcheck/overcheck/pkg/size"
	"github.com/overcheck/overcheck/pkg/verdict"
)

// pidOptions are the flags of pid.
type pidOptions struct {
	common
	name, pidfile, unit, cgroup, mappings string
	children                              int64
	writeRate, cowObserved, failOn        string
	childTime                             time.Duration
	calibrate                             bool
}

func newPid(s streams) *cobra.Command {
	var o pidOptions
	c := &cobra.Command{
		Use:   "pid [PID...]",
		Short: "A process: will its fork() succeed in each mode",
		Long: `pid judges what fork() would do in a process: in each mode of
vm.overcommit_memory, with the sum that the kernel would make and the mapping
that it would refuse, and every other obstacle in the kernel's order. Programs
that start others without fork (vfork, posix_spawn) are not charged for it: a
finding says so where the executable and its libraries tell, but the verdict and
the exit code are about fork().

Where the verdict is not good, remedies follow: changes that the model has
judged, with the smallest value that works. Nothing is changed; -o shell writes
one as a script. survival says what may be rewritten while a child lives before
the host or a memory cgroup is out of memory; --fail-on makes the exit code's
business of it.

Reading a process's smaps holds up its memory mapping for about 10 ms per GiB
resident. So by default maps is read first, which costs nothing, and smaps only
where the process is small (up to 1 GiB resident), where the bounds from maps
leave the verdict of the mode in force open, or (up to 4 GiB) that of another
mode. --mappings smaps always reads it, --mappings maps never.`,
		Example: `  overcheck pid 4127
  overcheck pid --name '^redis'
  overcheck pid --unit postgresql@15-main.service
  overcheck pid 4127 --mappings smaps -o json
  overcheck pid 4127 --set grow=12GiB --set restart=true
  overcheck pid 4127 -o shell > remedy.sh
  overcheck pid 4127 --write-rate 50MiB/s --child-time 120s --fail-on both`,
		RunE: func(c *cobra.Command, args []string) error {
			for _, name := range []string{"name", "pidfile", "unit", "cgroup"} {
				if f := c.Flags().Lookup(name); f.Changed && f.Value.String() == "" {
					return fmt.Errorf("--%s: empty", name)
				}
			}
			return runPid(s, o, args)
		},
	}
	o.add(c)
	f := c.Flags()
	f.StringVar(&o.name, "name", "", "processes whose name (comm) matches `REGEX`")
	f.StringVar(&o.pidfile, "pidfile", "", "the process whose pid is in `FILE`")
	f.StringVar(&o.unit, "unit", "", "processes of the systemd unit `UNIT`, as in redis.service")
	f.StringVar(&o.cgroup, "cgroup", "", "processes in the cgroup `PATH` or below it")
	f.Int64Var(&o.children, "children", 1, "judge `K` forked children that live at a time: each keeps its charge and its page tables")
	f.StringVar(&o.writeRate, "write-rate", "", "expect `SIZE/s` to be rewritten, as in 50MiB/s, for --child-time")
	f.DurationVar(&o.childTime, "child-time", 0, "how long a child lives, as in 120s")
	f.StringVar(&o.cowObserved, "cow-observed", "", "expect `SIZE` to be rewritten while a child lives, as Redis's rdb_last_cow_size says")
	f.BoolVar(&o.calibrate, "calibrate", false, "measure what a fork of 256 MiB takes on this host, for the pause (a few hundred milliseconds)")
	f.StringVar(&o.failOn, "fail-on", "admission", "what the exit code is about: admission, survival or both")
	f.StringVar(&o.mappings, "mappings", "auto", "auto, smaps (exact) or maps (no burden on the process)")
	return c
}

func runPid(s streams, o pidOptions, args []string) error {
	if !slices.Contains([]string{"auto", "smaps", "maps"}, o.mappings) {
		return fmt.Errorf("--mappings: %q: want auto, smaps or maps", o.mappings)
	}
	p, err := o.parse(s)
	if err != nil {
		return err
	}
	if err := o.load(&p); err != nil {
		return err
	}
	pids, err := o.pids(p.collector, args)
	if err != nil {
		return err
	}
	var (
		reports []verdict.Report
		errs    []error
	)
	for _, pid := range pids {
		f, err := facts(p, pid.id, o.mappings)
		switch {
		case pid.found && (errors.Is(err, collect.ErrCannotFork) || errors.Is(err, collect.ErrExited) || errors.Is(err, collect.ErrNoProcess)):
			// Nobody named this one, and there is nothing to judge.
		case err != nil:
			errs = append(errs, err)
		default:
			r, err := p.judge(f)
			if err != nil {
				return err
			}
			reports = append(reports, r)
		}
	}
	if len(reports) > 0 {
		err = p.finish(s, reports, len(pids) > 1)
	} else if len(errs) == 0 {
		return errors.New("none of the processes that match can fork: kernel threads, zombies or gone")
	}
	if len(errs) > 0 { // what could not be checked outweighs what could
		return errors.Join(errs...)
	}
	return err
}

// load parses what is said of the children, and of what the exit code is about.
func (o pidOptions) load(p *settings) (err error) {
	if !slices.Contains([]string{"admission", "survival", "both"}, o.failOn) {
		return fmt.Errorf("--fail-on: %q: want admission, survival or both", o.failOn)
	}
	p.failOn = o.failOn
	if o.children < 1 || o.children > 1_000_000 {
		return fmt.Errorf("--children: %d: want a count from 1 on", o.children)
	}
	changes := []string{fmt.Sprintf("children=%d", o.children)}
	switch expected, err := o.expected(); {
	case err != nil:
		return err
	case expected != nil:
		changes = append(changes, fmt.Sprintf("rewritten=%dB", *expected))
	}
	for _, text := range changes {
		change, err := kernel.ParseChange(text)
		if err != nil {
			return err
		}
		p.changes = append(p.changes, change)
	}
	if o.calibrate {
		p.pausePerGiB, err = probe.PausePerGiB()
	}
	return err
}

// expected is how much will be rewritten while a child lives; nil: it was not said.
func (o pidOptions) expected() (*size.Bytes, error) {
	switch {
	case o.cowObserved != "" && (o.writeRate != "" || o.childTime != 0):
		return nil, errors.New("--cow-observed and --write-rate both say what is rewritten: give one")
	case o.cowObserved != "":
		text := o.cowObserved
		if _, err := strconv.ParseInt(text, 10, 64); err == nil {
			text += "B" // as Redis gives it
		}
		b, err := size.Parse(text)
		if err != nil || b < 0 {
			return nil, fmt.Errorf("--cow-observed: %q: want a size such as 736MiB", o.cowObserved)
		}
		return &b, nil
	case (o.writeRate == "") != (o.childTime == 0):
		return nil, errors.New("--write-rate and --child-time are given together, as in --write-rate 50MiB/s --child-time 120s")
	case o.writeRate == "":
		return nil, nil
	}
	rate, perSecond := strings.CutSuffix(o.writeRate, "/s")
	b, err := size.Parse(rate)
	if err != nil || !perSecond || b < 0 || o.childTime < 0 {
		return nil, fmt.Errorf("--write-rate: %q: want a size a second, as in 50MiB/s", o.writeRate)
	}
	total := float64(b) * o.childTime.Seconds()
	return new(size.Bytes(min(total, float64(1<<60)))), nil
}

// facts collects what is known of one process, at the least burden to it that
// decides the verdict.
func facts(p settings, pid int, mappings string) (kernel.Facts, error) {
	f, err := memory(p, pid, mappings)
	if err != nil {
		return f, err
	}
	if err := p.collector.OutOfMemory(&f.Host); err != nil {
		return f, err
	}
	f.Host.PausePerGiB = p.pausePerGiB
	p.collector.Runtime(&f.Process)
	if verdict.NeedsImports(f.Process) {
		p.collector.Imports(&f.Process)
	}
	return f, nil
}

// memory collects the facts but for how the program starts others.
func memory(p settings, pid int, mappings string) (f kernel.Facts, err error) {
	if f.Host, err = p.host(); err != nil {
		return f, err
	}
	if f.Process, err = p.collector.Process(pid, f.Host); err != nil {
		return f, err
	}
	if mappings == "smaps" || mappings == "auto" && verdict.SmapsIsCheap(f.Process) {
		err := smaps(p, &f)
		if mappings == "smaps" || !errors.Is(err, os.ErrPermission) {
			return f, err
		}
	}
	if err := p.collector.Maps(&f.Process); err != nil {
		return f, err
	}
	if mappings != "auto" || f.Process.Source != kernel.FromMaps {
		return f, nil
	}
	changed, err := p.apply(f)
	if err != nil || verdict.WorthSmaps(changed) { // a change of one mapping needs to know them
		if err := smaps(p, &f); err != nil && !errors.Is(err, os.ErrPermission) {
			return f, err
		}
	}
	return f, nil
}

// smaps reads the exact charge into f.
func smaps(p settings, f *kernel.Facts) (err error) {
	if f.Mappings, err = p.collector.Smaps(&f.Process); err != nil {
		if errors.Is(err, os.ErrPermission) {
			return hinted{err, "run as root with all capabilities that the process has, or as its owner; 'overcheck pid' makes do with bounds by default"}
		}
		return err
	}
	// overcheck's own charge has grown with what it read, and time has passed.
	return p.collector.Commit(&f.Host)
}

// target is a process to judge. found: by a search, not by its pid.
type target struct {
	id    int
	found bool
}

// pids returns the processes that the arguments and flags name, each once.
func (o pidOptions) pids(c *collect.Collector, args []string) (pids []target, err error) {
	for _, arg := range args {
		pid, err := parsePid(arg)
		if err != nil {
			return nil, hinted{err, "find a process by its name with 'overcheck pid --name REGEX'"}
		}
		pids = append(pids, target{id: pid})
	}
	if o.pidfile != "" {
		b, err := os.ReadFile(o.pidfile)
		if err != nil {
			return nil, err
		}
		pid, err := parsePid(strings.TrimSpace(string(b)))
		if err != nil {
			return nil, fmt.Errorf("%s: %w", o.pidfile, err)
		}
		pids = append(pids, target{id: pid})
	}
	for _, search := range []struct {
		flag, value, hint string
		match             func() (matcher, error)
	}{
		{"--name", o.name, "it is matched against /proc/PID/comm: 15 characters, no path", o.byName},
		{"--unit", o.unit, "a unit's name ends in .service, .scope or .slice; 'systemctl status' shows whether it runs", o.byUnit},
		{"--cgroup", o.cgroup, "the path is as in /proc/PID/cgroup, without /sys/fs/cgroup", o.byCgroup},
	} {
		if search.value == "" {
			continue
		}
		match, err := search.match()
		if err != nil {
			return nil, err
		}
		found, err := c.Find(match)
		if err != nil {
			return nil, err
		}
		if len(found) == 0 {
			return nil, hinted{fmt.Errorf("%s %s: no process matches", search.flag, search.value), search.hint}
		}
		for _, id := range found {
			pids = append(pids, target{id, true})
		}
	}
	if len(pids) == 0 {
		return nil, hinted{errors.New("no process given"), "give a pid, or --name, --pidfile, --unit or --cgroup; see 'overcheck pid --help'"}
	}
	slices.SortStableFunc(pids, func(a, b target) int { return cmp.Compare(a.id, b.id) })
	return slices.CompactFunc(pids, func(a, b target) bool { return a.id == b.id }), nil
}

func parsePid(s string) (int, error) {
	pid, err := strconv.Atoi(s)
	if err != nil || pid <= 0 {
		return 0, fmt.Errorf("%q: want a process id", s)
	}
	return pid, nil
}

// matcher says whether a process is meant, by its comm and its cgroup paths.
type matcher = func(comm string, cgroups []string) bool

func (o pidOptions) byName() (matcher, error) {
	re, err := regexp.Compile(o.name)
	if err != nil {
		return nil, fmt.Errorf("--name: %w", err)
	}
	return func(comm string, _ []string) bool { return re.MatchString(comm) }, nil
}

func (o pidOptions) byUnit() (matcher, error) {
	in := func(cgroup string) bool { return slices.Contains(strings.Split(cgroup, "/"), o.unit) }
	return func(_ string, cgroups []string) bool { return slices.ContainsFunc(cgroups, in) }, nil
}

func (o pidOptions) byCgroup() (matcher, error) {
	top := path.Clean("/" + o.cgroup)
	in := func(cgroup string) bool {
		return cgroup == top || strings.HasPrefix(cgroup, strings.TrimSuffix(top, "/")+"/")
	}
	return func(_ string, cgroups []string) bool { return slices.ContainsFunc(cgroups, in) }, nil
}
