package verdict

import (
	"fmt"
	"slices"
	"strings"

	"github.com/overcheck/overcheck/pkg/kernel"
	"github.com/overcheck/overcheck/pkg/loglines"
)

// Explained is a line of a log, and what it means on this host.
type Explained struct {
	loglines.Match
	// PossibleHere: whether it can happen on this host now; nil: it is not known.
	PossibleHere *bool  `json:"possible_here"`
	Advice       string `json:"advice"`
}

// Here is a host, of which lines of a log are explained.
type Here struct {
	shell     kernel.Facts
	processes []kernel.Facts
	known     map[string]Possibility // by cause and whom the line names
}

// Possibility is whether, why, and what to do.
type Possibility struct {
	Possible *bool
	Advice   string
}

// PossibleHere judges the forks of a small shell and of the host's processes.
func PossibleHere(shell kernel.Facts, processes []kernel.Facts) Here {
	return Here{shell, processes, map[string]Possibility{}}
}

// Explain adds to a line what its cause may do here: to whom it names, if that
// lives; else to any process.
func (h Here) Explain(m loglines.Match) Explained {
	if p, decided := h.request(m); decided {
		return Explained{Match: m, PossibleHere: p.Possible, Advice: p.Advice}
	}
	of, who := h.meant(m)
	key := string(m.Cause) + " " + m.Kind + " " + who
	p, known := h.known[key]
	if !known {
		p = h.judge(m, of)
		if len(h.known) < 1000 { // a log may name any number of processes
			h.known[key] = p
		}
	}
	return Explained{Match: m, PossibleHere: p.Possible, Advice: p.Advice}
}

// request judges a line that tells of one request for memory, not of a fork.
func (h Here) request(m loglines.Match) (p Possibility, decided bool) {
	if !slices.Contains([]string{"kernel-commit-refused", "memory-refused", "jvm-memory"}, m.Kind) || h.shell.Host.Mode != kernel.Heuristic {
		return p, false
	}
	most := h.shell.Admit(kernel.Heuristic).LargestFork
	switch {
	case most == nil:
		return p, false
	case m.Bytes == nil:
		return Possibility{nil, fmt.Sprintf("mode 0 refuses a single request beyond %s: whether this was one, or another mode was in force, the line does not say", most)}, true
	case *m.Bytes > *most:
		return Possibility{new(true), fmt.Sprintf("mode 0 refuses a single request beyond %s, as this one of %s: 'overcheck explain mode-0'", most, m.Bytes)}, true
	}
	return Possibility{new(bool), fmt.Sprintf("mode 0 admits a request of %s (up to %s): another mode was in force then, or the host had less RAM or swap", m.Bytes, most)}, true
}

// meant are the processes that a line is about, by pid, name or cgroup; all, where
// it names none that lives.
func (h Here) meant(m loglines.Match) (of []kernel.Facts, who string) {
	for _, matches := range []func(p kernel.Process) bool{
		func(p kernel.Process) bool {
			return m.PID != nil && p.PID == *m.PID && (m.Comm == "" || p.Comm == m.Comm)
		},
		func(p kernel.Process) bool { return m.Comm != "" && p.Comm == m.Comm },
		func(p kernel.Process) bool {
			return strings.HasPrefix(m.Path, "/") && slices.ContainsFunc(p.Pids, func(g kernel.PidsCgroup) bool { return g.Path == m.Path })
		},
	} {
		for _, f := range h.processes {
			if matches(f.Process) {
				of = append(of, f)
				who += fmt.Sprint(f.Process.PID, " ")
			}
		}
		if of != nil {
			return of, who
		}
	}
	return append([]kernel.Facts{h.shell}, h.processes...), ""
}

func (h Here) judge(m loglines.Match, of []kernel.Facts) Possibility {
	switch m.Cause {
	case loglines.Commit:
		return commitPossible(h.shell.Host.Mode, of)
	case loglines.Tasks:
		return tasksPossible(of)
	case loglines.Memory:
		return memoryPossible(of, strings.Contains(m.Kind, "cgroup"))
	case loglines.Setting:
		return settingPossible(h.shell.Host)
	case loglines.THP:
		return thpPossible(h.shell.Host)
	}
	return Possibility{Advice: "ask 'overcheck pid' of the process, and see 'overcheck explain fork'"}
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
func commitPossible(mode kernel.Mode, of []kernel.Facts) Possibility {
	if mode == kernel.Always {
		return Possibility{new(bool), "mode 1 is in force: the commit check refuses nothing now. ENOMEM then had another cause, or another mode was in force: 'overcheck explain fork'"}
	}
	doubt := ""
	for _, f := range of {
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
	return Possibility{new(bool), fmt.Sprintf("in mode %d the fork of each process that it may be about succeeds now: another mode was in force then, less was free to commit, or the process was larger ('overcheck pid N --set grow=SIZE')", mode)}
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

// tasksPossible looks for the first process that has a limit on tasks reached, or
// near.
func tasksPossible(of []kernel.Facts) Possibility {
	doubt := ""
	for _, f := range of {
		all := checks(f)
		if found := tasksFull(Report{Checks: all}); found != nil {
			return Possibility{new(true), fmt.Sprintf("for %s: %s (%s). 'overcheck %s' has the remedy, 'overcheck explain %s' the chapter", named(f), found.Title, found.Detail, ask(f), found.ID)}
		}
		for _, c := range all {
			if c.Outcome == kernel.Uncertain && c.ID != CommitCheck && c.ID != kernel.AfterCommit && doubt == "" {
				doubt = fmt.Sprintf("%s of %s is uncertain: %s", c.ID, named(f), c.Reason)
			}
		}
	}
	if doubt != "" {
		return Possibility{nil, doubt}
	}
	return Possibility{new(bool), "no limit on tasks is reached now: one may have been, when more of them ran. 'overcheck explain fork'"}
}

// memoryPossible looks for a process after whose fork not all may be rewritten;
// cgroup: the line tells of a cgroup's limit, else of the host's or of either.
func memoryPossible(of []kernel.Facts, cgroup bool) Possibility {
	for _, f := range of {
		if s := survival(f); s.BreakEven != nil && !s.fits() && (s.Tightest == "host" || cgroup || len(of) == 1) {
			return Possibility{new(true), fmt.Sprintf("after a fork of %s only %.0f%% of its memory may be rewritten before %s runs out: 'overcheck pid %d', 'overcheck explain cow-may-oom'", named(f), *s.BreakEven, s.place(), f.Process.PID)}
		}
	}
	return Possibility{nil, "copy-on-write of each process that it may be about would fit now; what else was in use then is not known. 'overcheck explain copy-on-write'"}
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
