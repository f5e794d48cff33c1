package render

import (
	"bytes"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/overcheck/overcheck/pkg/kernel"
	"github.com/overcheck/overcheck/pkg/size"
	"github.com/overcheck/overcheck/pkg/verdict"
)

// Markdown returns the format that writes a step of a runbook: the situation, the
// sum, one remedy, how to verify it and to undo it. id chooses the remedy.
func Markdown(id string) Format {
	return func(w io.Writer, reports []verdict.Report, _ bool) error {
		var b bytes.Buffer
		for i, r := range reports {
			if i > 0 {
				b.WriteString("\n")
			}
			markdown(&b, r, id)
		}
		_, err := w.Write(b.Bytes())
		return err
	}
}

// code is a name from outside as a code span.
func code(s string) string {
	return "`" + strings.ReplaceAll(Printable(s), "`", "'") + "`"
}

func markdown(b *bytes.Buffer, r verdict.Report, id string) {
	fmt.Fprintf(b, "## %s\n\n", escape(headline(r)))
	fmt.Fprintf(b, "Linux %s, `vm.overcommit_memory=%d` (%s).", code(r.Host.Release), r.Host.Mode, r.Host.ModeName)
	if len(r.Assumed) > 0 {
		fmt.Fprintf(b, " **What if** %s.", code(strings.Join(r.Assumed, ", ")))
	}
	if p := r.Process; p != nil {
		fmt.Fprintf(b, " A fork of %s is charged %s.", code(p.Comm), p.Charge)
	}
	b.WriteString("\n\n| mode | verdict | needs | limit | headroom |\n|---|---|---:|---:|---:|\n")
	for _, a := range r.Admission {
		name := fmt.Sprintf("%d %s", a.Mode, a.ModeName)
		if a.Current {
			name = "**" + name + "**"
		}
		fmt.Fprintf(b, "| %s | %s | %s | %s | %s |\n", name, word(a.Outcome), amount(a.Need), amount(a.Limit), amount(a.Headroom))
	}
	if a := r.Current(); a.Need != nil {
		fmt.Fprintf(b, "\n### The sum of mode %d\n\n", a.Mode)
		b.WriteString("| | bytes | |\n|---|---:|---|\n")
		for _, t := range a.Terms {
			fmt.Fprintf(b, "| %s | %s | %s |\n", t.Name, t.Bytes, t.Note)
		}
		fmt.Fprintf(b, "| **needed** | **%s** | |\n", a.Need)
		for _, t := range a.LimitTerms {
			fmt.Fprintf(b, "| %s | %s | %s |\n", t.Name, t.Bytes, t.Note)
		}
		fmt.Fprintf(b, "| **limit** | **%s** | |\n", a.Limit)
	}
	b.WriteString("\n### Checks\n\n")
	for _, c := range r.Checks {
		fmt.Fprintf(b, "* %s: %s", c.ID, word(c.Outcome))
		if c.Errno != nil {
			fmt.Fprintf(b, " (%s)", *c.Errno)
		}
		fmt.Fprintf(b, ", %s\n", code(c.Where))
	}
	b.WriteString("\n### Findings\n\n")
	for _, f := range r.Findings {
		fmt.Fprintf(b, "* %s `%s`: %s. %s.\n", f.Severity, f.ID, escape(f.Title), escape(f.Detail))
	}
	if m := choose(r, id); m != nil {
		b.WriteString("\n")
		markdownRemedy(b, r, *m)
	}
}

func markdownRemedy(b *bytes.Buffer, r verdict.Report, m verdict.Remedy) {
	fmt.Fprintf(b, "### Remedy: %s\n\n%s.", m.ID, escape(sentence(m.Title)))
	if m.Where != "" {
		fmt.Fprintf(b, " To be run %s.", escape(m.Where))
	}
	b.WriteString("\n\n")
	for _, o := range m.Harms() {
		fmt.Fprintf(b, "**It harms %s (pid %d)**: its fork succeeds now, and then: %s.\n\n", code(o.Comm), o.PID, word(o.After))
	}
	block(b, m.Commands)
	fmt.Fprintf(b, "Risk: %s\n", escape(m.Risk))
	if e := m.BreakEvenAfter; e != nil && *e < 100 {
		fmt.Fprintf(b, "\nAfter it %.0f%% of what is shared may be rewritten while the child lives: see `overcheck explain cow-may-oom`.\n", *e)
	}
	for _, p := range m.Persists() {
		fmt.Fprintf(b, "\nTo last, %s:\n\n", code(p.Path))
		block(b, strings.Split(strings.TrimSuffix(p.Content, "\n"), "\n"))
	}
	b.WriteString("\n### Verify\n\n")
	ask := "overcheck explain"
	if r.Process != nil {
		ask = fmt.Sprintf("overcheck pid %d", r.Process.PID)
	}
	block(b, []string{ask})
	fmt.Fprintf(b, "It must say that the fork succeeds, and exit 0.")
	if a := m.AfterRestart; a != nil && *a != kernel.Succeeds {
		fmt.Fprintf(b, " After a restart of the process the verdict would be %s again.", a)
	}
	b.WriteString("\n")
	if len(m.Undo) > 0 {
		b.WriteString("\n### Undo\n\n")
		undo := m.Undo
		for _, p := range m.Persists() {
			if p.Undo != "" {
				undo = append(slices.Clone(undo), p.Undo+"   # if it was made to last")
			}
		}
		block(b, undo)
	}
	if len(r.Remedies) > 1 {
		b.WriteString("\n### Other remedies\n\n")
		for _, other := range r.Remedies {
			if other.ID != m.ID {
				fmt.Fprintf(b, "* `%s`: %s.\n", other.ID, escape(other.Title))
			}
		}
	}
}

// block is a block of commands; none, no block.
func block(b *bytes.Buffer, lines []string) {
	if len(lines) == 0 {
		return
	}
	b.WriteString("```sh\n")
	for _, line := range lines {
		b.WriteString(Printable(line) + "\n")
	}
	b.WriteString("```\n\n")
}

func sentence(s string) string { return strings.ToUpper(s[:1]) + s[1:] }

// escape keeps words from outside from being Markdown.
func escape(s string) string {
	return strings.NewReplacer(`\`, `\\`, "`", "\\`", "*", `\*`, "_", `\_`, "<", `\<`, "|", `\|`, "[", `\[`).Replace(Printable(s))
}

func amount(b *size.Bytes) string {
	if b == nil {
		return "-"
	}
	return b.String()
}
