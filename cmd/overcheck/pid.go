package main

import (
	"errors"
	"fmt"
	"os"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/overcheck/overcheck/pkg/collect"
	"github.com/overcheck/overcheck/pkg/kernel"
	"github.com/overcheck/overcheck/pkg/verdict"
)

// pidOptions are the flags of pid.
type pidOptions struct {
	common
	name, pidfile, unit, cgroup, mappings string
}

func newPid(s streams) *cobra.Command {
	var o pidOptions
	c := &cobra.Command{
		Use:   "pid [PID...]",
		Short: "A process: will its fork() succeed in each mode, and why",
		Long: `pid judges what fork() would do in a process: in each mode of
vm.overcommit_memory, with the sum that the kernel would make and the mapping
that it would refuse, and every other obstacle in the kernel's order.

Reading a process's smaps holds up its memory mapping for about 10 ms per GiB
resident. So by default maps is read first, which costs nothing, and smaps only
where the process is small (up to 1 GiB resident), where the bounds from maps
leave the verdict of the mode in force open, or (up to 4 GiB) that of another
mode. --mappings smaps always reads it, --mappings maps never.`,
		Example: `  overcheck pid 4127
  overcheck pid --name '^redis'
  overcheck pid --unit postgresql@15-main.service
  overcheck pid 4127 --mappings smaps -o json
  overcheck pid 4127 --set grow=12GiB --set restart=true`,
		RunE: func(_ *cobra.Command, args []string) error { return runPid(s, o, args) },
	}
	o.add(c)
	f := c.Flags()
	f.StringVar(&o.name, "name", "", "processes whose name (comm) matches `REGEX`")
	f.StringVar(&o.pidfile, "pidfile", "", "the process whose pid is in `FILE`")
	f.StringVar(&o.unit, "unit", "", "processes of the systemd unit `UNIT`, as in redis.service")
	f.StringVar(&o.cgroup, "cgroup", "", "processes in the cgroup `PATH` or below it")
	f.StringVar(&o.mappings, "mappings", "auto", "what to read about mappings: auto, smaps (exact) or maps (no burden on the process)")
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
	pids, err := o.pids(p.collector, args)
	if err != nil {
		return err
	}
	var (
		reports []verdict.Report
		errs    []error
	)
	for _, pid := range pids {
		f, err := facts(p, pid, o.mappings)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		reports = append(reports, verdict.Judge(p.apply(f)))
	}
	if len(reports) > 0 {
		err = p.finish(s, reports)
	}
	if len(errs) > 0 { // what could not be checked outweighs what could
		return errors.Join(errs...)
	}
	return err
}

// facts collects what is known of one process, at the least burden to it that
// decides the verdict.
func facts(p settings, pid int, mappings string) (f kernel.Facts, err error) {
	if f.Host, err = p.collector.Host(p.old); err != nil {
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
	if mappings == "auto" && f.Process.Source == kernel.FromMaps && verdict.WorthSmaps(p.apply(f)) {
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
			return hinted{err, "run as root, or as the owner of the process; --mappings auto makes do with bounds"}
		}
		return err
	}
	// overcheck's own charge has grown with what it read.
	f.Host, err = p.collector.Host(p.old)
	return err
}

// pids returns the processes that the arguments and flags name, each once.
func (o pidOptions) pids(c *collect.Collector, args []string) (pids []int, err error) {
	var named []string
	for _, arg := range args {
		pid, err := strconv.Atoi(arg)
		if err != nil || pid <= 0 {
			return nil, hinted{fmt.Errorf("%q: want a process id", arg), "find a process by its name with 'overcheck pid --name REGEX'"}
		}
		pids = append(pids, pid)
	}
	if o.pidfile != "" {
		b, err := os.ReadFile(o.pidfile)
		if err != nil {
			return nil, err
		}
		pid, err := strconv.Atoi(strings.TrimSpace(string(b)))
		if err != nil || pid <= 0 {
			return nil, fmt.Errorf("%s: %q: want a process id", o.pidfile, strings.TrimSpace(string(b)))
		}
		pids = append(pids, pid)
	}
	find := func(flag string, match func(comm string, cgroups []string) bool) error {
		found, err := c.Find(match)
		pids = append(pids, found...)
		named = append(named, flag)
		return err
	}
	if o.name != "" {
		re, err := regexp.Compile(o.name)
		if err != nil {
			return nil, fmt.Errorf("--name: %w", err)
		}
		if err := find("--name "+o.name, func(comm string, _ []string) bool { return re.MatchString(comm) }); err != nil {
			return nil, err
		}
	}
	inCgroup := func(in func(string) bool) func(string, []string) bool {
		return func(_ string, cgroups []string) bool { return slices.ContainsFunc(cgroups, in) }
	}
	if o.unit != "" {
		in := func(cg string) bool { return slices.Contains(strings.Split(cg, "/"), o.unit) }
		if err := find("--unit "+o.unit, inCgroup(in)); err != nil {
			return nil, err
		}
	}
	if o.cgroup != "" {
		top := path.Clean("/" + o.cgroup)
		in := func(cg string) bool { return cg == top || strings.HasPrefix(cg, strings.TrimSuffix(top, "/")+"/") }
		if err := find("--cgroup "+o.cgroup, inCgroup(in)); err != nil {
			return nil, err
		}
	}
	if len(pids) == 0 {
		if len(named) > 0 {
			return nil, hinted{fmt.Errorf("%s: no process matches", strings.Join(named, ", ")), "--name matches the name in /proc/PID/comm: 15 characters, no path"}
		}
		return nil, hinted{errors.New("no process named"), "give a pid, or --name, --pidfile, --unit or --cgroup; see 'overcheck pid --help'"}
	}
	slices.Sort(pids)
	return slices.Compact(pids), nil
}
