package verdict

import (
	"cmp"
	"maps"
	"math"
	"slices"

	"github.com/overcheck/overcheck/pkg/kernel"
	"github.com/overcheck/overcheck/pkg/size"
)

// Remedy is a change of the facts that the model has judged, and how to make it.
type Remedy struct {
	ID    string `json:"id"`
	Title string `json:"title"`
	Scope string `json:"scope"` // process, cgroup or host
	// Code: it takes a change of the program, or of how it is configured.
	Code bool              `json:"code"`
	Set  map[string]string `json:"set"` // as --set takes it
	// Commands make the change, and Undo takes it back, a shell command each.
	Commands []string `json:"commands"`
	// Persist is the file that makes it last, PersistMore are further ones; nil: it
	// does not last.
	Persist     *Persist  `json:"persist"`
	PersistMore []Persist `json:"persist_more,omitempty"`
	Undo        []string  `json:"undo"`
	// Where is where the commands must be run, if not here.
	Where        string         `json:"where"`
	VerdictAfter kernel.Outcome `json:"verdict_after"`
	// AfterRestart is the verdict once the process was started anew; nil: there is
	// none to restart.
	AfterRestart *kernel.Outcome `json:"verdict_after_restart"`
	// SurvivalAfter is whether what may be rewritten after the fork fits then, and
	// BreakEvenAfter the percentage that does; nil: there is no process.
	SurvivalAfter  *kernel.Outcome `json:"survival_after"`
	BreakEvenAfter *float64        `json:"break_even_after_percent"`
	// Others are the other large processes whose verdict it changes.
	Others []Other `json:"others"`
	Risk   string  `json:"risk"`

	rank int // smallest change first
}

// Persist is the file that makes a remedy last, or the part of it to add, and the
// command that takes it away.
type Persist struct {
	Path    string `json:"path"`
	Content string `json:"content"`
	Undo    string `json:"undo"`
}

// Persists are all files that make it last.
func (r Remedy) Persists() []Persist {
	if r.Persist == nil {
		return nil
	}
	return append([]Persist{*r.Persist}, r.PersistMore...)
}

// persist adds a file; nil: nothing.
func (r *Remedy) persist(p *Persist) {
	switch {
	case p == nil:
	case r.Persist == nil:
		r.Persist = p
	default:
		r.PersistMore = append(r.PersistMore, *p)
	}
}

// Other is what a remedy does to another process.
type Other struct {
	PID    int            `json:"pid"`
	Comm   string         `json:"comm"`
	Before kernel.Outcome `json:"verdict_before"`
	After  kernel.Outcome `json:"verdict_after"`
}

// DefaultMargin is how much headroom a remedy leaves, in percent of what is
// needed.
const DefaultMargin = 5.0

// Remedies searches for changes that turn a verdict that is not good, and returns
// those that do, by the model: the smallest scope and the smallest change first,
// those that take another program after those that do not. A setting gets the
// smallest value that leaves margin percent of what is needed as headroom,
// beyond what the kernel's counters may be off. others are the other large
// processes of the host.
//
// Where several checks stand in the way, each remedy has a change for every one
// of them.
func Remedies(f kernel.Facts, margin float64, others []kernel.Facts) []Remedy {
	s := search{facts: f, margin: margin / 100, spawn: spawn(f), exhausted: exhausted(f)}
	var each [][]Remedy // for each obstacle, the best first
	for _, c := range s.obstacles() {
		found := s.against(c)
		if len(found) == 0 {
			return []Remedy{}
		}
		each = append(each, found)
	}
	remedies := []Remedy{}
	if len(each) == 0 {
		return remedies
	}
	for _, r := range each[0] {
		after, err := r.apply(f)
		for _, more := range each[1:] {
			// What stood in the way may not any more.
			if err == nil && now(after) != kernel.Succeeds {
				r = r.and(more[0])
				after, err = r.apply(f)
			}
		}
		if err != nil {
			continue
		}
		if r.VerdictAfter = now(after); r.VerdictAfter != kernel.Succeeds {
			continue
		}
		if f.Process.Source != kernel.Assumed {
			survives := survival(after)
			r.SurvivalAfter, r.BreakEvenAfter = &survives.Verdict, survives.BreakEven
			after.Process.Restart = true
			r.AfterRestart = new(now(after))
		}
		r.Others = r.effect(others)
		r.Where = s.where(r)
		remedies = append(remedies, r)
	}
	return remedies
}

// search looks for remedies for one report.
type search struct {
	facts  kernel.Facts
	margin float64
	spawn  Spawn
	// exhausted: no command can be started; builtins of a shell must do.
	exhausted bool
}

// obstacles are the checks that do not succeed.
func (s search) obstacles() []kernel.Check {
	return slices.DeleteFunc(checks(s.facts), func(c kernel.Check) bool { return c.Outcome == kernel.Succeeds })
}

// against returns what turns one check, the best first.
func (s search) against(c kernel.Check) (found []Remedy) {
	turns := func(f kernel.Facts) bool { return s.turns(c.ID, f) }
	var candidates []candidate
	switch c.ID {
	case CommitCheck:
		candidates = s.forCommit()
	case "rlimit-nproc":
		candidates = []candidate{s.nproc()}
	case "threads-max", "pid-max":
		candidates = []candidate{s.counter(c)}
	case "pids-cgroup":
		candidates = []candidate{s.pidsMax()}
	case kernel.AfterCommit:
		candidates = []candidate{s.memoryMax()}
		if s.mayAvoidFork() {
			candidates = append(candidates, s.withoutFork())
		}
	}
	for rank, candidate := range candidates {
		if candidate.make == nil {
			continue
		}
		n, ok := candidate.smallest(func(n int64) bool {
			r := candidate.make(n)
			f, err := r.apply(s.facts)
			return err == nil && turns(f)
		})
		if !ok {
			continue
		}
		r := candidate.make(n)
		r.rank = rank
		found = append(found, r)
	}
	slices.SortStableFunc(found, func(a, b Remedy) int {
		return cmp.Or(cmp.Compare(a.place(), b.place()), cmp.Compare(a.rank, b.rank))
	})
	return found
}

func scopes() map[string]int { return map[string]int{"process": 0, "cgroup": 1, "host": 2} }

// place is where a remedy stands among others: those that are made of commands
// first, of each kind the smallest scope.
func (r Remedy) place() int {
	if r.Code {
		return len(scopes()) + scopes()[r.Scope]
	}
	return scopes()[r.Scope]
}

// turns reports whether a check succeeds with the margin to spare.
func (s search) turns(id string, f kernel.Facts) bool {
	for _, c := range checks(f) {
		if c.ID != id {
			continue
		}
		if c.Outcome != kernel.Succeeds {
			return false
		}
		switch {
		case id == CommitCheck:
			a := f.Admit(f.Host.Mode)
			return a.Headroom == nil || f.Process.WithoutFork || *a.Headroom >= *a.Uncertainty+s.share(*a.Need)
		case c.Used != nil && c.Limit != nil:
			need := size.Bytes(*c.Used + f.Process.Living())
			return size.Bytes(*c.Limit) >= need+s.share(need)
		case c.NeedBytes != nil && c.LimitBytes != nil && *c.LimitBytes < *c.NeedBytes+s.share(*c.NeedBytes):
			return false
		case id == kernel.AfterCommit:
			return cgroupsSurvive(f)
		}
		return true
	}
	return false
}

// cgroupsSurvive reports whether no memory cgroup has less room for copy-on-write
// than it may take, or the host has: to admit a fork that is killed later is none.
func cgroupsSurvive(f kernel.Facts) bool {
	limits := f.MemoryLimits()
	shared, _ := f.Process.Shared()
	need := min(shared*size.Bytes(f.Process.Living()), limits[0].Available)
	return f.Process.WithoutFork || !slices.ContainsFunc(limits, func(l kernel.MemoryLimit) bool {
		return l.Effect == kernel.CgroupOOM && l.WithoutSwap < need
	})
}

// share is the margin of a need.
func (s search) share(need size.Bytes) size.Bytes {
	return size.Bytes(math.Ceil(float64(need) * s.margin))
}

// candidate is a kind of change, with a number to choose: the smallest n from 0 to
// most for which it works. Where more makes it worse, make counts down.
type candidate struct {
	make func(n int64) Remedy
	most int64
}

func (c candidate) smallest(works func(int64) bool) (n int64, ok bool) {
	if !works(c.most) {
		return 0, false
	}
	low, high := int64(-1), c.most // low does not work, high does
	for high-low > 1 {
		if middle := low + (high-low)/2; works(middle) {
			high = middle
		} else {
			low = middle
		}
	}
	return high, true
}

// one is a candidate without a number.
func one(r Remedy) candidate { return candidate{make: func(int64) Remedy { return r }} }

// apply makes the changes.
func (r Remedy) apply(f kernel.Facts) (kernel.Facts, error) {
	for _, key := range slices.Sorted(maps.Keys(r.Set)) {
		change, err := kernel.ParseChange(key + "=" + r.Set[key])
		if err != nil {
			return f, err
		}
		if f, err = change(f); err != nil {
			return f, err
		}
	}
	return f, nil
}

// and is both remedies in one.
func (r Remedy) and(more Remedy) Remedy {
	both := r
	both.ID, both.Title = r.ID+"+"+more.ID, r.Title+", and "+more.Title
	both.Code = r.Code || more.Code
	if scopes()[more.Scope] > scopes()[r.Scope] {
		both.Scope = more.Scope
	}
	both.Set = maps.Clone(r.Set)
	maps.Copy(both.Set, more.Set)
	both.Commands = slices.Concat(r.Commands, more.Commands)
	both.Undo = slices.Concat(more.Undo, r.Undo)
	both.Risk = r.Risk + " " + more.Risk
	both.PersistMore = slices.Clone(r.PersistMore)
	for _, p := range more.Persists() {
		both.persist(&p)
	}
	return both
}

// effect is what the remedy does to the verdicts of others.
func (r Remedy) effect(others []kernel.Facts) []Other {
	changed := []Other{}
	r.Set = maps.Clone(r.Set) // what it changes of the host
	maps.DeleteFunc(r.Set, func(key, _ string) bool { return kernel.OfProcess(key + "=") })
	for _, f := range others {
		after, err := r.apply(f)
		if err != nil {
			continue
		}
		o := Other{PID: f.Process.PID, Comm: f.Process.Comm, Before: now(f), After: now(after)}
		if o.After != o.Before {
			changed = append(changed, o)
		}
	}
	return changed
}

// Harms are the processes that the remedy would make fail, or doubtful.
func (r Remedy) Harms() []Other {
	return slices.DeleteFunc(slices.Clone(r.Others), func(o Other) bool { return o.Before != kernel.Succeeds })
}
