package render

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/overcheck/overcheck/pkg/kernel"
	"github.com/overcheck/overcheck/pkg/verdict"
)

// Errors of the formats that write one remedy out.
var (
	// ErrNoRemedy: the verdict is not good, and no remedy that was asked for is known.
	ErrNoRemedy = errors.New("no such remedy")
	// ErrWhatIf: a what-if has nothing to be applied to.
	ErrWhatIf = errors.New("a what-if (--set) cannot be remedied by a script")
	// ErrElsewhere: the commands are for another machine than this.
	ErrElsewhere = errors.New("the commands must be run elsewhere than here: a script could not check")
	// ErrSeveral: a script is for one process.
	ErrSeveral = errors.New("-o shell writes a script for one process at a time")
)

// choose returns the remedy of an id, or the first; nil: there is none.
func choose(r verdict.Report, id string) *verdict.Remedy {
	for i := range r.Remedies {
		if id == "" || r.Remedies[i].ID == id {
			return &r.Remedies[i]
		}
	}
	return nil
}

// remedies lists them: the chosen one with its commands, the others by name.
func (t *text) remedies(r verdict.Report) {
	chosen := choose(r, t.remedy)
	if chosen == nil && r.Verdict == kernel.Succeeds {
		return
	}
	t.line("")
	if chosen == nil {
		t.wrapped(t.key("remedies")+"  ", "none that overcheck could judge, for "+strings.Join(unmet(r), ", ")+".")
		return
	}
	t.line("%s", t.key("remedies, the smallest first: with each the fork succeeds, by the model"))
	for i := range r.Remedies {
		m := &r.Remedies[i]
		t.wrapped("  ", t.key(m.ID)+": "+Printable(m.Title)+".")
		t.harms(*m)
		if m == chosen {
			t.details(*m)
		}
	}
	switch {
	case len(r.Assumed) > 0:
		t.wrapped("  ", "These are for the world that is assumed: what undoes them leads back to that one.")
	case len(r.Remedies) > 1:
		t.wrapped("  ", "--remedy ID shows another's commands; -o shell writes them as a script, -o markdown as a step of a runbook.")
	}
}

// unmet are the checks that do not succeed.
func unmet(r verdict.Report) (ids []string) {
	for _, c := range r.Checks {
		if c.Outcome != kernel.Succeeds {
			ids = append(ids, c.ID)
		}
	}
	return ids
}

// details are how to make the change, and what it means.
func (t *text) details(m verdict.Remedy) {
	row := func(name, words string) { t.wrapped(fmt.Sprintf("      %-8s ", name), Printable(words)) }
	if m.Where != "" {
		row("where", m.Where)
	}
	for i, c := range m.Commands {
		t.line("      %-8s %s", map[bool]string{true: "run"}[i == 0], Printable(c)) // not wrapped: to be copied
	}
	for _, p := range m.Persists() {
		row("to last", "in "+p.Path+":")
		for line := range strings.Lines(p.Content) {
			t.line("               %s", Printable(strings.TrimRight(line, "\n")))
		}
	}
	for i, c := range m.Undo {
		t.line("      %-8s %s", map[bool]string{true: "undo"}[i == 0], Printable(c))
	}
	row("risk", m.Risk)
	if e := m.BreakEvenAfter; e != nil && *e < 100 {
		row("survival", fmt.Sprintf("%.0f%% may be rewritten then while the child lives: 'overcheck explain cow-may-oom'", *e))
	}
	if a := m.AfterRestart; a != nil && *a != kernel.Succeeds {
		row("restart", "after a restart of the process the verdict is: "+a.String()+"; this holds for the one that runs")
	}
}

// harms names whom a remedy would make fail.
func (t *text) harms(m verdict.Remedy) {
	for _, o := range m.Harms() {
		t.wrapped("      "+t.bad("harms")+"    ", fmt.Sprintf("%s (pid %d): its fork succeeds now, and then: %s.", Printable(o.Comm), o.PID, word(o.After)))
	}
}

// Shell returns the format that writes one remedy as a script, which checks
// before and after. id chooses it; empty: the first that is made of commands.
func Shell(id string) Format {
	return func(w io.Writer, reports []verdict.Report, _ bool) error {
		if len(reports) != 1 {
			return ErrSeveral
		}
		r := reports[0]
		if len(r.Assumed) > 0 {
			return ErrWhatIf
		}
		var b bytes.Buffer
		b.WriteString("#!/bin/sh\n# " + headline(r) + "\n")
		if r.Verdict == kernel.Succeeds {
			if s := r.Survival; s != nil && s.Verdict != kernel.Succeeds {
				comment(&b, fmt.Sprintf("Survival: %s. There is no script for that: see 'overcheck explain cow-may-oom'.", s.Verdict))
			} else {
				b.WriteString("# Nothing needs to be done.\n")
			}
			_, err := w.Write(b.Bytes())
			return err
		}
		m := choose(r, id)
		if id == "" {
			m = firstOfCommands(r)
		}
		if m == nil || len(m.Commands) == 0 {
			return fmt.Errorf("%w that is made of commands", ErrNoRemedy)
		}
		if m.Where != "" {
			return fmt.Errorf("%w (%s)", ErrElsewhere, m.Where)
		}
		script(&b, r, *m)
		_, err := w.Write(b.Bytes())
		return err
	}
}

func firstOfCommands(r verdict.Report) *verdict.Remedy {
	for i := range r.Remedies {
		if len(r.Remedies[i].Commands) > 0 {
			return &r.Remedies[i]
		}
	}
	return nil
}

// comment writes words as lines of comments.
func comment(b *bytes.Buffer, words string) {
	t := text{styles: newStyles(false)}
	t.wrapped("# ", Printable(words))
	b.WriteString(strings.ReplaceAll(t.String(), "\n  ", "\n# "))
}

// script is the remedy for /bin/sh.
func script(b *bytes.Buffer, r verdict.Report, m verdict.Remedy) {
	comment(b, "Remedy "+m.ID+": "+m.Title+".")
	comment(b, "Risk: "+m.Risk)
	for _, o := range m.Harms() {
		comment(b, fmt.Sprintf("HARMS %s (pid %d): its fork succeeds now, and then: %s.", o.Comm, o.PID, word(o.After)))
	}
	b.WriteString("# To undo:\n")
	for _, c := range m.Undo {
		fmt.Fprintf(b, "#   %s\n", Printable(c))
	}
	for _, p := range m.Persists() {
		if p.Undo != "" {
			fmt.Fprintf(b, "#   %s   # if it was made to last\n", Printable(p.Undo))
		}
	}
	ask := "explain"
	if r.Process != nil {
		ask = fmt.Sprintf("pid %d", r.Process.PID)
	}
	fmt.Fprintf(b, `set -eu
check() { "${OVERCHECK:-overcheck}" %s >/dev/null; }
%s
if check; then
	echo "fork succeeds already: nothing is changed"
	exit 0
elif [ $? -ne 1 ]; then
	echo "it could not be checked: nothing is changed" >&2
	exit 2
fi

`, ask, sameProcess(r))
	for _, c := range m.Commands {
		b.WriteString(c + "\n")
	}
	for _, p := range m.Persists() {
		persist(b, p)
	}
	b.WriteString("\ncheck || { echo \"fork still does not succeed: see the top of this script to undo\" >&2; exit 1; }\necho \"fork succeeds now\"\n")
}

// sameProcess makes sure that the pid is not another program's by now.
func sameProcess(r verdict.Report) string {
	if r.Process == nil || Printable(r.Process.Comm) != r.Process.Comm {
		return ""
	}
	return fmt.Sprintf(`[ "$(cat /proc/%d/comm)" = %s ] || { echo "that process is gone: nothing is changed" >&2; exit 2; }
`, r.Process.PID, verdict.Quote(r.Process.Comm))
}

// persist writes the file that makes it last, if the script is run with
// PERSIST=yes; what is only part of a file of another's is left to be read. The
// lines are quoted words: nothing in them is a command.
func persist(b *bytes.Buffer, p verdict.Persist) {
	redirect := ">"
	switch {
	case p.Path == "/etc/fstab", p.Path == "/etc/sysctl.conf":
		redirect = ">>"
	case !strings.HasPrefix(p.Path, "/"):
		fmt.Fprintf(b, "# To last, add to %s:\n", Printable(p.Path))
		for line := range strings.Lines(p.Content) {
			fmt.Fprintf(b, "#   %s\n", Printable(strings.TrimRight(line, "\n")))
		}
		return
	}
	path := verdict.Quote(p.Path)
	fmt.Fprintf(b, "\n# To last over a restart: PERSIST=yes\nif [ \"${PERSIST:-no}\" = yes ]; then\n\tmkdir -p \"$(dirname %s)\"\n\tprintf '%%s\\n'", path)
	for line := range strings.Lines(p.Content) {
		fmt.Fprintf(b, " %s", verdict.Quote(strings.TrimRight(line, "\n")))
	}
	fmt.Fprintf(b, " %s%s\n", redirect, path)
	if strings.HasPrefix(p.Path, "/etc/systemd/") {
		b.WriteString("\tsystemctl daemon-reload\n")
	}
	b.WriteString("fi\n")
}
