package kernel

import (
	"fmt"
	"slices"
)

// Mode is the value of vm.overcommit_memory.
type Mode int

// The kernel's names for them are OVERCOMMIT_GUESS, OVERCOMMIT_ALWAYS and
// OVERCOMMIT_NEVER (include/uapi/linux/mman.h).
const (
	Heuristic Mode = 0
	Always    Mode = 1
	Never     Mode = 2
)

// Modes returns the modes in the order of their values.
func Modes() []Mode { return []Mode{Heuristic, Always, Never} }

// String returns overcheck's word for the mode: heuristic, always or never.
func (m Mode) String() string {
	switch m {
	case Heuristic:
		return "heuristic"
	case Always:
		return "always"
	case Never:
		return "never"
	}
	return fmt.Sprintf("Mode(%d)", int(m))
}

// Outcome is what a rule says of a fork. The zero value is Uncertain: what
// nobody has judged does not pass for a success.
type Outcome int

// The outcomes, from the least said to the most.
const (
	Uncertain Outcome = iota
	Succeeds
	Fails
)

func outcomeWords() []string { return []string{"uncertain", "succeeds", "fails"} }

// String returns the outcome as the JSON contract spells it.
func (o Outcome) String() string { return outcomeWords()[o] }

// MarshalText writes the outcome's word.
func (o Outcome) MarshalText() ([]byte, error) { return []byte(o.String()), nil }

// UnmarshalText reads the outcome's word.
func (o *Outcome) UnmarshalText(b []byte) error {
	i := slices.Index(outcomeWords(), string(b))
	if i < 0 {
		return fmt.Errorf("outcome %q: want one of %q", b, outcomeWords())
	}
	*o = Outcome(i)
	return nil
}

// both merges what two candidate rules say of one fork: where they disagree,
// the facts do not decide.
func (o Outcome) both(p Outcome) Outcome {
	if o == p {
		return o
	}
	return Uncertain
}

// Worst returns what holds of a fork that must pass every one of os: one
// failure fails it, and short of that one doubt leaves it uncertain.
func Worst(os ...Outcome) Outcome {
	switch {
	case slices.Contains(os, Fails):
		return Fails
	case slices.Contains(os, Uncertain):
		return Uncertain
	}
	return Succeeds
}

// Errno is the symbolic name of the error that fork() would return.
type Errno string

// The errors of fork() that the model predicts.
const (
	ENOMEM Errno = "ENOMEM"
	EAGAIN Errno = "EAGAIN"
)

// Source says where the facts about a process's mappings were read.
type Source string

// The sources, from the exact one to the vaguest. Assumed is a process that
// does not exist, such as the small shell that explain judges.
const (
	FromSmaps  Source = "smaps"
	FromMaps   Source = "maps"
	FromStatus Source = "status"
	Assumed    Source = "assumed"
)
