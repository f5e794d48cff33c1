package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/overcheck/overcheck/pkg/kernel"
	"github.com/overcheck/overcheck/pkg/verdict"
)

func newExplain(s streams) *cobra.Command {
	var o common
	c := &cobra.Command{
		Use:   "explain",
		Short: "This host: the commit sum, the largest fork of each mode",
		Long: `explain shows what vm.overcommit_memory means on this host: which kernel rule
holds, the sum that it makes, and for each mode the largest fork that it would
admit now (in mode 0 the largest single mapping, in mode 2 all charged mappings
of the process together).

The verdict is for the fork of a small shell, started here by the same user: it
is charged 4 MiB. 'overcheck pid' judges a real process.`,
		Example: `  overcheck explain
  overcheck explain -o json
  overcheck explain --set vm.overcommit_memory=2
  overcheck explain --procfs /host/proc --sysfs /host/sys`,
		Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			p, err := o.parse(s)
			if err != nil {
				return err
			}
			for _, change := range p.assumed {
				if kernel.OfProcess(change) {
					return hinted{fmt.Errorf("--set %s: explain has no process to change", change), "use it with 'overcheck pid'"}
				}
			}
			var f kernel.Facts
			if f.Host, err = p.host(); err != nil {
				return err
			}
			if f.Process, err = p.collector.Shell(f.Host); err != nil {
				return err
			}
			return p.finish(s, []verdict.Report{p.judge(f)}, false)
		},
	}
	o.add(c)
	return c
}
