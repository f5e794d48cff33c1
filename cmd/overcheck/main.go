// Command overcheck tells whether fork() will succeed in a process, and whether
// the host will survive what follows.
package main

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime/debug"
	"strings"

	"github.com/spf13/cobra"
)

// Exit codes, the same for every command and format.
const (
	exitGood    = 0 // the answer is good
	exitBad     = 1 // it was checked, and it is not good: fails or uncertain
	exitUnknown = 2 // it could not be checked
)

// errBad is what a command returns when it printed an answer that is not good.
var errBad = errors.New("the answer is not good")

// hinted is an error with a line that says what to do next.
type hinted struct {
	error
	hint string
}

func (h hinted) Unwrap() error { return h.error }

// streams is what a command reads from and writes to, and what it asks of its
// environment.
type streams struct {
	in       io.Reader
	out, err io.Writer
	getenv   func(string) string
	terminal func(io.Writer) bool
	pageSize int
}

func main() {
	// A run is over in milliseconds: collecting garbage before there are 12 MiB of
	// it costs more than it frees.
	debug.SetGCPercent(300)
	os.Exit(run(os.Args[1:], streams{
		in: os.Stdin, out: os.Stdout, err: os.Stderr, getenv: os.Getenv, terminal: isTerminal, pageSize: os.Getpagesize(),
	}))
}

// run executes one command line and returns the exit code.
func run(args []string, s streams) int {
	out := &checkedWriter{Writer: s.out}
	root := newRoot(s)
	root.SetOut(out)
	root.SetArgs(args)
	err := root.Execute()
	if err == nil {
		err = out.err
	}
	switch {
	case err == nil:
		return exitGood
	case errors.Is(err, errBad):
		return exitBad
	}
	fmt.Fprintln(s.err, "overcheck:", oneLine(err))
	if h := (hinted{}); errors.As(err, &h) {
		fmt.Fprintln(s.err, "overcheck: hint:", h.hint)
	}
	return exitUnknown
}

// checkedWriter remembers that a write failed: cobra does not say so of its help.
type checkedWriter struct {
	io.Writer
	err error
}

func (w *checkedWriter) Write(b []byte) (int, error) {
	n, err := w.Writer.Write(b)
	w.err = cmp.Or(w.err, err)
	return n, err
}

func newRoot(s streams) *cobra.Command {
	root := &cobra.Command{
		Use:   "overcheck",
		Short: "Will fork() succeed, and will the host survive it?",
		Long: `overcheck tells whether fork() will succeed in a process under each setting of
vm.overcommit_memory, with the kernel's own arithmetic for the kernel that runs,
and whether the copy-on-write that follows will fit.

Nothing on the host is changed and none of its processes forked: explain and pid
only read, verify maps memory of its own for a moment.

Exit codes: 0 the answer is good, 1 it was checked and is not good (fails or
uncertain), 2 it could not be checked.`,
		Example: `  overcheck explain                 this host: its mode, and the largest fork
  overcheck pid 4127                one process
  overcheck pid --name redis        every process whose name matches
  overcheck pid 4127 -o shell       what turns a bad verdict, as a script
  overcheck explain mode-2          a chapter of the manual
  overcheck explain --log FILE      what the lines of a log mean here
  overcheck verify 4127             the kernel's own answer beside overcheck's`,
		Version:                    version(),
		SilenceErrors:              true,
		SilenceUsage:               true,
		Args:                       unknownCommand,
		RunE:                       func(c *cobra.Command, _ []string) error { return c.Help() },
		SuggestionsMinimumDistance: 2,
	}
	root.SetErr(s.err)
	root.SetUsageTemplate(strings.ReplaceAll(root.UsageTemplate(), "Flags.FlagUsages ", "Flags.FlagUsagesWrapped 80 "))
	root.SetVersionTemplate("overcheck {{.Version}}\n")
	root.SetFlagErrorFunc(func(c *cobra.Command, err error) error {
		return hinted{err, "see '" + c.CommandPath() + " --help'"}
	})
	root.AddCommand(newExplain(s), newPid(s), newVerify(s))
	return root
}

// unknownCommand refuses what is no command, naming those that are like it.
func unknownCommand(c *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	err := fmt.Errorf("unknown command %q", args[0])
	if like := c.SuggestionsFor(args[0]); len(like) > 0 {
		return hinted{err, fmt.Sprintf("did you mean '%s %s'?", c.CommandPath(), like[0])}
	}
	return hinted{err, "see 'overcheck --help'"}
}
