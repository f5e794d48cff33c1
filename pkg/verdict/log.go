package verdict

import (
	"fmt"

	"github.com/overcheck/overcheck/pkg/kernel"
	"github.com/overcheck/overcheck/pkg/loglines"
)

// LogReport is the JSON of a log that was explained.
type LogReport struct {
	Schema    string      `json:"schema"`
	LinesRead int         `json:"lines_read"`
	Matches   []Explained `json:"matches"`
}

// Explained is a line of a log, and what it means on this host.
type Explained struct {
	loglines.Match
	// PossibleHere: whether it can happen on this host now; nil: it is not known.
	PossibleHere *bool  `json:"possible_here"`
	Advice       string `json:"advice"`
}

// Here is what can happen on a host now, by the cause that a line tells of.
type Here map[loglines.Cause]Possibility

// Possibility is whether, why, and what to do.
type Possibility struct {
	Possible *bool
	Advice   string
}

// PossibleHere judges the forks of a small shell and of the host's processes.
func PossibleHere(shell kernel.Facts, processes []kernel.Facts) Here {
	return Here{
		loglines.Commit:  commitPossible(shell, processes),
		loglines.Tasks:   checkPossible(shell, processes, tasksFull, "no limit on tasks is reached now: one may have been, when more of them ran", "pids-limit-near"),
		loglines.Memory:  memoryPossible(processes),
		loglines.Setting: settingPossible(shell.Host),
		loglines.THP:     thpPossible(shell.Host),
		loglines.Unknown: {Advice: "ask 'overcheck pid' of the process, and see 'overcheck explain fork'"},
	}
}

// Explain adds to a line what its cause may do here.
func (h Here) Explain(m loglines.Match) Explained {
	p := h[m.Cause]
	return Explained{Match: m, PossibleHere: p.Possible, Advice: p.Advice}
}

// named is a process for a sentence.
func named(f kernel.Facts) string {
	if f.Process.Source == kernel.Assumed {
		return "a small shell"
	}
	return fmt.Sprintf("%s (pid %d)", f.Process.Comm, f.Process.PID)
}

// commitPossible: in mode 1 nothing is refused; otherwise it is if it is for one of
// the processes.
func commitPossible(shell kernel.Facts, processes []kernel.Facts) Possibility {
	mode := shell.Host.Mode
	if mode == kernel.Always {
		return Possibility{new(bool), "mode 1 is in force: the commit check refuses nothing now. ENOMEM then had another cause, or another mode was in force: 'overcheck explain fork'"}
	}
	doubt := ""
	for _, f := range append([]kernel.Facts{shell}, processes...) {
		switch f.Admit(mode).Outcome {
		case kernel.Fails:
			return Possibility{new(true), fmt.Sprintf("in mode %d a fork of %s fails now: 'overcheck %s' has the sum and the remedies", mode, named(f), ask(f))}
		case kernel.Uncertain:
			doubt = fmt.Sprintf("in mode %d a fork of %s may fail, as far as maps tells: 'overcheck %s' says more", mode, named(f), ask(f))
		}
	}
	if doubt != "" {
		return Possibility{nil, doubt}
	}
	return Possibility{new(bool), fmt.Sprintf("in mode %d the fork of each large process succeeds now: less was free to commit then, or the process was larger. 'overcheck pid N --set grow=SIZE' says from which size on it fails", mode)}
}

// ask is the command that judges a process.
func ask(f kernel.Facts) string {
	if f.Process.Source == kernel.Assumed {
		return "explain"
	}
	return fmt.Sprintf("pid %d", f.Process.PID)
}

// tasksFull finds a limit on tasks that is reached, or near.
func tasksFull(r Report) *Finding {
	for _, near := range []func(kernel.Facts, Report) *Finding{pidsNear, nprocNear, threadsNear, pidMaxNear} {
		if found := near(kernel.Facts{}, r); found != nil {
			return found
		}
	}
	return nil
}

// checkPossible looks for the first process that a rule finds something of.
func checkPossible(shell kernel.Facts, processes []kernel.Facts, rule func(Report) *Finding, none, chapter string) Possibility {
	doubt := ""
	for _, f := range append([]kernel.Facts{shell}, processes...) {
		all := checks(f)
		if found := rule(Report{Checks: all}); found != nil {
			return Possibility{new(true), fmt.Sprintf("for %s %s (%s): 'overcheck %s' has the remedy, 'overcheck explain %s' the chapter", named(f), found.Title, found.Detail, ask(f), found.ID)}
		}
		for _, c := range all {
			if c.Outcome == kernel.Uncertain && c.ID != CommitCheck && c.ID != kernel.AfterCommit && doubt == "" {
				doubt = fmt.Sprintf("%s of %s is uncertain: %s", c.ID, named(f), c.Reason)
			}
		}
	}
	if doubt != "" {
		return Possibility{nil, doubt + ". 'overcheck explain " + chapter + "'"}
	}
	return Possibility{new(bool), none + ". 'overcheck explain " + chapter + "'"}
}

func memoryPossible(processes []kernel.Facts) Possibility {
	for _, f := range processes {
		if s := survival(f); s.BreakEven != nil && !s.fits() {
			return Possibility{new(true), fmt.Sprintf("after a fork of %s only %.0f%% of its memory may be rewritten before %s runs out: 'overcheck pid %d', 'overcheck explain cow-may-oom'", named(f), *s.BreakEven, s.place(), f.Process.PID)}
		}
	}
	return Possibility{nil, "copy-on-write of each large process alone would fit now; what else was in use then is not known. 'overcheck explain copy-on-write'"}
}

// settingPossible: Redis and Valkey warn of every mode but 1, and look at nothing
// else.
func settingPossible(h kernel.Host) Possibility {
	if h.Mode == kernel.Always {
		return Possibility{new(bool), "mode 1 is in force: the warning is not given now"}
	}
	return Possibility{new(true), fmt.Sprintf("it looks at vm.overcommit_memory=%d alone, not at what the process is charged: ask 'overcheck pid' of the server before you change the host. 'overcheck explain redis'", h.Mode)}
}

func thpPossible(h kernel.Host) Possibility {
	on := h.THP == "always"
	advice := "transparent huge pages are not on for everybody here: the warning is not given now"
	if release, err := kernel.ParseRelease(h.Release); on && err == nil && release.AtLeast(5, 8) {
		advice = "they are on; since Linux 5.8 copy-on-write does not copy more for them: 'overcheck explain thp-and-fork'"
	} else if on {
		advice = "they are on, and before Linux 5.8 a write after fork copies 2 MiB of them: 'overcheck explain thp-and-fork'"
	}
	return Possibility{&on, advice}
}
