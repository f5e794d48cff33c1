package main

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/overcheck/overcheck/docs"
	"github.com/overcheck/overcheck/pkg/kernel"
	"github.com/overcheck/overcheck/pkg/render"
	"github.com/overcheck/overcheck/pkg/verdict"
)

// explainOptions are the flags of explain.
type explainOptions struct {
	common
	list      bool
	log       string
	kernelLog bool
}

func newExplain(s streams) *cobra.Command {
	var o explainOptions
	c := &cobra.Command{
		Use:   "explain [CHAPTER]",
		Short: "This host; a finding or a concept; lines of a log",
		Long: `explain shows what vm.overcommit_memory means on this host: which kernel rule
holds, the sum that it makes, and for each mode the largest fork that it would
admit now (in mode 0 the largest single mapping, in mode 2 all charged mappings
of the process together).

The verdict is for the fork of a small shell, started here by the same user: it
is charged 4 MiB. 'overcheck pid' judges a real process.

With the name of a finding or a concept it prints that chapter of the manual:
--list has them all. With --log it recognises the lines of a log that tell of a
refused fork, or of what came of one, says what each means, and whether it can
happen on this host now: the exit code is then 1 if one of them can, or may.`,
		Example: `  overcheck explain
  overcheck explain --set vm.overcommit_memory=2
  overcheck explain commit-limit-too-low
  overcheck explain --list
  journalctl -u redis | overcheck explain --log -
  overcheck explain --kernel-log
  overcheck explain --procfs /host/proc --sysfs /host/sys`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) > 1 {
				return hinted{fmt.Errorf("%q: one chapter at a time", args[1]), "see 'overcheck explain --list'"}
			}
			return nil
		},
		ValidArgsFunction: func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
			return chapterIDs(), cobra.ShellCompDirectiveNoFileComp
		},
		RunE: func(_ *cobra.Command, args []string) error { return runExplain(s, o, args) },
	}
	o.add(c)
	f := c.Flags()
	f.BoolVar(&o.list, "list", false, "list the chapters")
	f.StringVar(&o.log, "log", "", "explain the lines of the log `FILE` (- for standard input)")
	f.BoolVar(&o.kernelLog, "kernel-log", false, "explain the lines of the kernel's log")
	c.MarkFlagsMutuallyExclusive("list", "log", "kernel-log")
	return c
}

func runExplain(s streams, o explainOptions, args []string) error {
	if (o.log != "" || o.kernelLog || o.list) && len(args) > 0 {
		return errors.New("a chapter and --list, --log or --kernel-log are different questions")
	}
	if (o.list || len(args) > 0) && (o.output != "text" || len(o.set) > 0) {
		return errors.New("a chapter is text: -o and --set are for the report on the host")
	}
	switch colored, err := o.colored(s); {
	case err != nil:
		return err
	case o.list:
		return render.Contents(s.out, docs.Chapters(), colored)
	case len(args) > 0:
		return chapter(s, args[0], colored)
	}
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
	if o.log != "" || o.kernelLog {
		return explainLog(s, o, p, f)
	}
	r, err := p.judge(f)
	if err != nil {
		return err
	}
	return p.finish(s, []verdict.Report{r}, false)
}

// chapter prints what the manual has under an id.
func chapter(s streams, id string, colored bool) error {
	found := docs.Find(id)
	if len(found) == 0 {
		hint := "see 'overcheck explain --list'; 'overcheck pid' judges a process"
		if like := similar(id); like != "" {
			hint = fmt.Sprintf("did you mean 'overcheck explain %s'?", like)
		}
		return hinted{fmt.Errorf("no chapter %q", id), hint}
	}
	for i, c := range found {
		if i > 0 {
			fmt.Fprintln(s.out)
		}
		if err := render.Chapter(s.out, c, colored); err != nil {
			return err
		}
	}
	return nil
}

// similar is the chapter that a word most likely means: one that begins with it,
// or has it, or is in it; empty: none.
func similar(word string) string {
	for _, matches := range []func(id string) bool{
		func(id string) bool { return strings.HasPrefix(id, word) },
		func(id string) bool { return strings.Contains(id, word) },
		func(id string) bool { return strings.Contains(word, id) },
	} {
		if i := slices.IndexFunc(chapterIDs(), matches); i >= 0 && word != "" {
			return chapterIDs()[i]
		}
	}
	return ""
}

func chapterIDs() (ids []string) {
	for _, c := range docs.Chapters() {
		ids = append(ids, c.ID)
	}
	slices.Sort(ids)
	return slices.Compact(ids)
}
