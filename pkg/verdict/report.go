// Package verdict judges facts: whether fork() will be admitted in each mode,
// and whether what follows will fit. It is pure; its Report is at once the JSON
// contract and all that a renderer may show.
package verdict

import (
	"fmt"

	"github.com/overcheck/overcheck/pkg/kernel"
	"github.com/overcheck/overcheck/pkg/size"
)

// Schema names the version of the JSON contract. Changes only add to it.
const Schema = "overcheck.v1"

// Report is everything overcheck says of one process on one host.
type Report struct {
	Schema string `json:"schema"`
	// Assumed are the changes that the facts went through before they were judged,
	// as --set spells them: with any, this is a what-if, not the host as it is.
	Assumed []string `json:"assumed"`
	Host    Host     `json:"host"`
	// Process is nil in a report on the host alone, which judges the fork of a
	// small shell.
	Process   *kernel.Process    `json:"process,omitempty"`
	Admission []kernel.Admission `json:"admission"` // one a mode, by its number
	Checks    []kernel.Check     `json:"checks"`    // in the kernel's order
	// Verdict is the outcome of fork() now: the current mode's admission and
	// every check together. Errno is what it would return; nil unless it fails.
	Verdict  kernel.Outcome `json:"verdict"`
	Errno    *kernel.Errno  `json:"errno"`
	Survival *Survival      `json:"survival,omitempty"`
	Spawn    *Spawn         `json:"spawn,omitempty"`
	Findings []Finding      `json:"findings"`
	Remedies []Remedy       `json:"remedies"`
}

// Reports is the JSON of several processes.
type Reports struct {
	Schema  string   `json:"schema"`
	Reports []Report `json:"reports"`
}

// Host is the host's facts, with the mode in words.
type Host struct {
	kernel.Host
	ModeName string `json:"mode_name"`
}

// Judge reports on the facts, after the changes that assumed names.
func Judge(f kernel.Facts, assumed ...string) Report {
	r := Report{
		Schema:   Schema,
		Assumed:  append([]string{}, assumed...),
		Host:     Host{Host: f.Host, ModeName: f.Host.Mode.String()},
		Findings: []Finding{}, Remedies: []Remedy{},
	}
	for _, m := range kernel.Modes() {
		r.Admission = append(r.Admission, f.Admit(m))
	}
	r.Checks = checks(f)
	r.Verdict, r.Errno = outcome(r.Checks)
	if f.Process.Source != kernel.Assumed {
		p := f.Process
		r.Process = &p
		r.Survival = new(survival(f))
		r.Spawn = new(spawn(f))
	}
	r.Findings = findings(f, r)
	return r
}

// checks are all obstacles to fork() now, in the kernel's order: the admission of
// the mode in force has its place among them.
func checks(f kernel.Facts) (all []kernel.Check) {
	for _, c := range f.Checks() {
		if c.ID == kernel.AfterCommit {
			all = append(all, commitCheck(f.Admit(f.Host.Mode)))
		}
		all = append(all, c)
	}
	return all
}

// Current returns the admission of the mode in force.
func (r Report) Current() kernel.Admission { return r.Admission[r.Host.Mode] }

// now is the verdict of fork() on these facts.
func now(f kernel.Facts) kernel.Outcome {
	verdict, _ := outcome(checks(f))
	return verdict
}

// outcome combines the checks. Where several fail, the errno is that of the first
// in the kernel's order.
func outcome(checks []kernel.Check) (kernel.Outcome, *kernel.Errno) {
	outcomes := make([]kernel.Outcome, 0, len(checks))
	for _, c := range checks {
		if c.Outcome == kernel.Fails {
			return kernel.Fails, c.Errno // nil where it is a kill
		}
		outcomes = append(outcomes, c.Outcome)
	}
	return kernel.Worst(outcomes...), nil
}

// CommitCheck is the id of the current mode's admission among the checks.
const CommitCheck = "commit"

// commitCheck puts the current mode's admission among the checks.
func commitCheck(a kernel.Admission) kernel.Check {
	return kernel.Check{
		ID: CommitCheck, Outcome: a.Outcome, Errno: a.Errno, NeedBytes: a.Need, LimitBytes: a.Limit,
		Where: fmt.Sprintf("vm.overcommit_memory=%d", a.Mode), Reason: a.Reason,
	}
}

// Resident memory up to which reading smaps is worth its price, about 10 ms of
// the process's mmap lock per GiB with 4 KiB pages.
const (
	cheapSmaps     = 1 * size.GiB // for exact numbers
	worthOtherMode = 4 * size.GiB // to decide a mode that is not in force
)

// SmapsIsCheap reports whether so little is resident that smaps may be read for
// the sake of exact numbers alone.
func SmapsIsCheap(p kernel.Process) bool { return p.RSS <= cheapSmaps }

// WorthSmaps reports whether reading smaps would tell something worth its price
// to the process, given bounds from maps: at any price where they leave the mode
// in force undecided; where they leave another mode undecided, up to a point.
func WorthSmaps(f kernel.Facts) bool {
	undecided := func(m kernel.Mode) bool {
		least, most := f, f
		least.Process.ChargeMax, least.Process.LargestMax = f.Process.ChargeMin, f.Process.LargestMin
		most.Process.ChargeMin, most.Process.LargestMin = f.Process.ChargeMax, f.Process.LargestMax
		return least.Admit(m).Outcome != most.Admit(m).Outcome
	}
	return undecided(f.Host.Mode) ||
		f.Process.RSS <= worthOtherMode && (undecided(kernel.Heuristic) || undecided(kernel.Never))
}
