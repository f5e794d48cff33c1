package render

import (
	"bytes"
	"cmp"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/fatih/color"

	"github.com/overcheck/overcheck/pkg/kernel"
	"github.com/overcheck/overcheck/pkg/size"
	"github.com/overcheck/overcheck/pkg/verdict"
)

// Text returns the format for people: the answer first, then the sum, then the
// rest, in at most 80 columns but where a name or a command alone is longer. The
// remedy of that id is shown in full; empty: the first.
func Text(colored bool, remedy string) Format {
	return func(w io.Writer, reports []verdict.Report, _ bool) error {
		t := text{styles: newStyles(colored), remedy: remedy}
		if len(reports) > 1 { // an overview
			for _, r := range reports {
				t.line("%s", t.outcome(r.Verdict, headline(r), 0))
			}
			t.line("")
		}
		for i, r := range reports {
			if i > 0 {
				t.line("")
			}
			t.report(r)
		}
		_, err := w.Write(t.Bytes())
		return err
	}
}

// styles are colours by what they mean.
type styles struct{ good, bad, doubt, key func(...any) string }

func newStyles(colored bool) styles {
	style := func(attrs ...color.Attribute) func(...any) string {
		c := color.New(attrs...)
		if colored {
			c.EnableColor()
		} else {
			c.DisableColor()
		}
		return c.SprintFunc()
	}
	return styles{
		good: style(color.FgGreen), bad: style(color.FgRed, color.Bold),
		doubt: style(color.FgYellow), key: style(color.Bold),
	}
}

type text struct {
	bytes.Buffer
	styles
	remedy string // whose commands to show
}

func (t *text) line(format string, args ...any) {
	fmt.Fprintf(t, format+"\n", args...)
}

// width is what a report keeps to.
const width = 80

// wrapped writes words after a lead, further lines indented to the lead's width.
func (t *text) wrapped(lead, words string) {
	indent := strings.Repeat(" ", columns(lead))
	column := len(indent)
	if words == "" {
		lead = strings.TrimRight(lead, " ")
	}
	t.WriteString(lead)
	for i, w := range strings.Fields(words) {
		switch n := columns(w); {
		case i == 0:
			column += n
		case column+1+n > width:
			t.WriteString("\n" + indent)
			column = len(indent) + n
		default:
			t.WriteString(" ")
			column += 1 + n
		}
		t.WriteString(w)
	}
	t.WriteString("\n")
}

// severity colours a finding's word.
func (t *text) severity(word string) string {
	switch word {
	case "error":
		return t.bad(word)
	case "warning":
		return t.doubt(word)
	}
	return word
}

// columns counts what a terminal shows of s: its runes, but for colour sequences.
func columns(s string) (n int) {
	for {
		before, after, colored := strings.Cut(s, "\x1b[")
		n += utf8.RuneCountInString(before)
		if !colored {
			return n
		}
		_, s, _ = strings.Cut(after, "m")
	}
}

// outcome colours a word by the outcome that it stands for; padding goes outside.
func (t *text) outcome(o kernel.Outcome, word string, columns int) string {
	style := t.doubt
	switch o {
	case kernel.Succeeds:
		style = t.good
	case kernel.Fails:
		style = t.bad
	}
	return style(word) + strings.Repeat(" ", max(columns-len(word), 0))
}

// word is the outcome in a table, where a failure must be seen.
func word(o kernel.Outcome) string {
	if o == kernel.Fails {
		return "FAILS"
	}
	return o.String()
}

func (t *text) report(r verdict.Report) {
	t.line("%s", t.outcome(r.Verdict, headline(r), 0))
	host := fmt.Sprintf("Linux %s with vm.overcommit_memory=%d (%s).", Printable(r.Host.Release), r.Host.Mode, r.Host.ModeName)
	switch {
	case len(r.Assumed) > 0:
		t.wrapped("", t.doubt("WHAT IF")+" "+Printable(strings.Join(r.Assumed, ", "))+": "+host)
	case r.Process == nil:
		t.wrapped("", "This host runs "+host)
	}
	t.line("")
	t.modes(r)
	for _, a := range r.Admission {
		t.sum(r, a)
	}
	t.line("")
	t.line("%s", t.key("checks, in the kernel's order"))
	for _, c := range r.Checks {
		t.check(c)
	}
	if s := r.Survival; s != nil {
		t.line("")
		t.survival(*s)
	}
	t.findings(r.Findings)
	t.remedies(r)
	t.mappings(r)
}

// findings lists them, the worst first as they come.
func (t *text) findings(all []verdict.Finding) {
	if len(all) == 0 {
		return
	}
	t.line("")
	t.line("%s", t.key("findings"))
	for _, f := range all {
		lead := t.severity(f.Severity) + strings.Repeat(" ", 7-len(f.Severity))
		t.wrapped("  "+lead+"  ", t.key(f.ID)+": "+Printable(f.Title)+".")
		if f.Detail != "" {
			t.wrapped("           ", Printable(f.Detail)+".")
		}
	}
}

// headline is the answer in one line: what fork() does now, and in which other
// modes it would do otherwise.
func headline(r verdict.Report) string {
	s := "a small shell's fork"
	if p := r.Process; p != nil {
		s = fmt.Sprintf("%s (pid %d): fork", Printable(p.Comm), p.PID)
	}
	switch {
	case r.Verdict == kernel.Succeeds && len(r.Assumed) > 0:
		s += " would succeed"
	case r.Verdict == kernel.Succeeds:
		s += " succeeds now"
	case r.Verdict == kernel.Uncertain:
		s += " is uncertain (" + strings.Join(doubts(r), ", ") + ")"
	case len(r.Assumed) > 0 && r.Errno != nil:
		s += " would FAIL with " + string(*r.Errno)
	case r.Errno == nil:
		s += " FAILS: it would be killed"
	default:
		s += " FAILS with " + string(*r.Errno)
	}
	if v := r.Survival; r.Verdict == kernel.Succeeds && v != nil && v.Verdict == kernel.Fails {
		return s + ", but survival FAILS"
	}
	now := r.Current().Outcome
	if w := r.Spawn; now != kernel.Succeeds && w != nil && w.How == verdict.WithoutFork && *w.Verdict == kernel.Succeeds {
		return s + ", but " + cmp.Or(Printable(w.Runtime), "it") + " needs no fork"
	}
	if now == kernel.Uncertain || slices.ContainsFunc(r.Checks, func(c kernel.Check) bool {
		return c.ID != verdict.CommitCheck && c.Outcome != kernel.Succeeds
	}) {
		return s // there is enough to say; or another obstacle stands in every mode
	}
	for _, o := range []struct {
		kernel.Outcome
		words string
	}{{kernel.Succeeds, "succeeds"}, {kernel.Fails, "would FAIL"}, {kernel.Uncertain, "uncertain"}} {
		var modes []string
		for _, a := range r.Admission {
			if a.Outcome == o.Outcome && o.Outcome != now {
				modes = append(modes, strconv.Itoa(int(a.Mode)))
			}
		}
		if len(modes) > 0 {
			s += ", " + o.words + " in mode" + strings.Repeat("s", len(modes)-1) + " " + strings.Join(modes, " and ")
		}
	}
	return s
}

// doubts are the checks that leave the verdict uncertain.
func doubts(r verdict.Report) (ids []string) {
	for _, c := range r.Checks {
		if c.Outcome == kernel.Uncertain {
			ids = append(ids, c.ID)
		}
	}
	return ids
}

// modes is the table.
func (t *text) modes(r verdict.Report) {
	var column []size.Bytes
	for _, a := range r.Admission {
		for _, b := range []*size.Bytes{a.Need, a.Limit, a.Headroom, a.LargestFork} {
			if b != nil {
				column = append(column, *b)
			}
		}
	}
	unit := size.Scale(column...)
	cell := func(b *size.Bytes) string {
		if b == nil {
			return "-"
		}
		return b.In(unit)
	}
	t.line("%s", t.key(fmt.Sprintf("  %-13s  %-9s  %11s  %11s  %11s  %12s", "mode", "verdict", "needs", "limit", "headroom", "largest fork")))
	for _, a := range r.Admission {
		mark := " "
		if a.Current {
			mark = ">"
		}
		fork := cell(a.LargestFork)
		if a.Mode == kernel.Always {
			fork = "no limit"
		}
		t.line("%s %d %-11s  %s  %11s  %11s  %11s  %12s", mark, a.Mode, a.ModeName,
			t.outcome(a.Outcome, word(a.Outcome), 9), cell(a.Need), cell(a.Limit), cell(a.Headroom), fork)
	}
}

// unitOf is the unit for a sum: the largest in which no summand reads 0.00.
func unitOf(column []size.Bytes) size.Unit {
	unit := size.Scale(column...)
	for _, b := range column {
		if b != 0 && b.Abs() < size.Bytes(unit)/200 && unit > size.Unit(size.MiB) {
			return unit / 1024
		}
	}
	return unit
}

// sum shows what was added up for one mode, and what is to be said of it.
func (t *text) sum(r verdict.Report, a kernel.Admission) {
	host := r.Process == nil
	if a.Mode == kernel.Always && a.Reason == "" && !host {
		return
	}
	t.line("")
	lead := t.key(fmt.Sprintf("mode %d", a.Mode)) + "  "
	switch {
	case !host || a.Meaning == "":
		t.wrapped(lead, a.Rule)
	case a.Need == nil:
		t.wrapped(lead, a.ModeName+": "+a.Meaning+".")
	default:
		t.wrapped(lead, a.ModeName+": "+a.Meaning+". Compared: "+a.Rule+".")
	}
	var column []size.Bytes
	for _, term := range append(append([]kernel.Term{}, a.Terms...), a.LimitTerms...) {
		column = append(column, term.Bytes)
	}
	for _, b := range []*size.Bytes{a.Need, a.Limit} {
		if b != nil {
			column = append(column, *b)
		}
	}
	unit := unitOf(column)
	rows := func(terms []kernel.Term, total *size.Bytes, name, note string) {
		for i, term := range terms {
			sign, b := "+", term.Bytes
			switch {
			case b < 0:
				sign, b = "-", -b
			case i == 0:
				sign = " "
			}
			t.wrapped(fmt.Sprintf("  %s %13s  %-15s  ", sign, b.In(unit), term.Name), term.Note)
		}
		if total != nil && (len(terms) > 1 || name == "limit") {
			t.wrapped(fmt.Sprintf("  = %13s  %s%s  ", total.In(unit), t.key(name), strings.Repeat(" ", 15-len(name))), note)
		}
	}
	rows(a.Terms, a.Need, "needed", "")
	if a.Limit != nil {
		t.line("  against")
	}
	limitNote := ""
	if a.Mode == kernel.Never {
		limitNote = "CommitLimit"
	}
	rows(a.LimitTerms, a.Limit, "limit", limitNote)
	if a.Uncertainty != nil && *a.Uncertainty > 0 {
		t.wrapped("  ", fmt.Sprintf("The kernel's own counters may stand up to %s from these.", a.Uncertainty))
	}
	if f := a.LargestFork; host && f != nil {
		of := "all its charged mappings together"
		if a.Mode == kernel.Heuristic {
			of = "its largest charged mapping; the rest does not count"
		}
		t.wrapped("  ", fmt.Sprintf("The largest fork that it would admit now: %s (%s).", f, of))
	}
	if b := a.Blocking; b != nil {
		t.wrapped("  ", fmt.Sprintf("Refused at the mapping %x-%x, %s, %s resident, %s, flags %s.",
			uint64(b.Start), uint64(b.End), b.Length, b.Resident, pathName(b.Path), b.Flags))
	}
	if a.Reason != "" {
		t.wrapped("  "+t.doubt("uncertain")+": ", a.Reason)
	}
	if a.AfterRestart != nil && *a.AfterRestart != a.Outcome {
		t.wrapped("  ", restartLine(r, a))
	}
}

func restartLine(r verdict.Report, a kernel.Admission) string {
	s := "After a restart in this mode: " + word(*a.AfterRestart)
	if a.NeedAfterRestart != nil {
		s += fmt.Sprintf(", needs %s", a.NeedAfterRestart)
	}
	switch n := r.Process.Noreserve; {
	case a.Mode != kernel.Never:
	case r.Process.MayBeCharged > 0:
		s += ": all that it grows by would be charged"
	case n != nil && *n > 0:
		s += fmt.Sprintf(": %s is mapped MAP_NORESERVE now and not charged, and would be", n)
	}
	return s + "."
}

func pathName(path string) string {
	if path == "" {
		return "anonymous"
	}
	return Printable(path)
}

func (t *text) check(c kernel.Check) {
	var parts []string
	if c.Errno != nil {
		parts = append(parts, string(*c.Errno)+":")
	}
	switch {
	case c.Used != nil && c.Limit != nil:
		parts = append(parts, fmt.Sprintf("%d of %d,", *c.Used, *c.Limit))
	case c.NeedBytes != nil && c.LimitBytes != nil:
		parts = append(parts, fmt.Sprintf("needs %s, limit %s,", c.NeedBytes, c.LimitBytes))
	}
	parts = append(parts, Printable(c.Where))
	switch {
	case c.ID == verdict.CommitCheck:
		parts = append(parts, "(the sum above)")
	case c.Reason != "":
		parts = append(parts, "("+Printable(c.Reason)+")")
	}
	lead := fmt.Sprintf("%-14s  ", c.ID)
	// The outcome's word opens the line, so that grep '^fails' finds it.
	t.wrapped(t.outcome(c.Outcome, c.Outcome.String(), 9)+"  "+lead, strings.Join(parts, " "))
}

func (t *text) survival(s verdict.Survival) {
	t.line("%s", t.key("survival"))
	where := "the host"
	if s.Tightest != "host" {
		where = "the cgroup " + Printable(s.Tightest)
	}
	switch {
	case s.CowWorst == 0:
		t.wrapped("  ", "Nothing private to copy.")
	case s.BreakEven == nil:
		t.wrapped("  ", fmt.Sprintf("How much of %s may be rewritten while the child lives is not known: %s.", s.CowWorst, s.Reason))
	default:
		t.wrapped("  ", fmt.Sprintf("%s: %.0f%% of %s may be rewritten while %s before %s is out of memory (%s available).",
			t.outcome(s.Verdict, word(s.Verdict), 0), *s.BreakEven, s.CowWorst, living(s.Children), where, s.Available))
		if *s.BreakEven < 100 {
			t.bar(s)
		}
	}
	if e := s.Expected; e != nil {
		t.wrapped("  ", fmt.Sprintf("Expected to be rewritten: %s.", e))
	}
	if s.Verdict != kernel.Succeeds && s.Victim != "" {
		t.wrapped("  ", "Killed would be: "+Printable(s.Victim)+".")
	}
	if h := s.Throttled; h != nil {
		t.wrapped("  ", fmt.Sprintf("Before that, memory.high of %s slows the writers down: %s available.", Printable(h.Where), h.Available))
	}
	pause := fmt.Sprintf("%.0f to %.0f ms", s.PauseRange[0], s.PauseRange[1])
	if s.PauseRange[1] < 1 {
		pause = "less than 1 ms"
	}
	t.wrapped("  ", fmt.Sprintf("The fork copies up to %s of page tables: a pause of %s (%s). Each page that is then written to costs a fault and a copy.", s.PageTables/size.Bytes(s.Children), pause, s.PauseSource))
}

func living(children int64) string {
	if children == 1 {
		return "the child lives"
	}
	return fmt.Sprintf("%d children live", children)
}

// bar shows what copy-on-write of 10, 25, 50 and 100 % would take of what is
// available.
func (t *text) bar(s verdict.Survival) {
	const length = 40
	most := max(s.CowWorst, s.Available)
	at := func(b size.Bytes) int { return int(float64(b) / float64(most) * length) }
	for _, percent := range []size.Bytes{10, 25, 50, 100} {
		cow := s.CowWorst / 100 * percent
		bar := []byte(strings.Repeat("#", at(cow)) + strings.Repeat(".", length-at(cow)))
		style := t.good
		if cow > s.Available {
			style = t.bad
		}
		if limit := at(s.Available); limit < length {
			bar[limit] = '|'
		}
		t.line("  %4d%%  %s %11s", percent, style(string(bar)), cow)
	}
}

// mappings says where the mappings were read and what that left open.
func (t *text) mappings(r verdict.Report) {
	p := r.Process
	if p == nil {
		return
	}
	t.line("")
	switch p.Source {
	case kernel.FromMaps:
		t.wrapped("", fmt.Sprintf("Mappings read from maps, to spare the process: --mappings smaps gives the exact charge, and may hold it up for about 10 ms per GiB resident (%s).", p.RSS))
	case kernel.FromStatus:
		t.wrapped("", "Its mappings may not be read: bounds from status. Run as its owner, or with CAP_SYS_PTRACE and all capabilities that it has, for the exact charge.")
	case kernel.FromSmaps:
		if len(r.Assumed) > 0 {
			t.wrapped("", "Mappings read from smaps, before the changes that are assumed.")
			return
		}
		s := fmt.Sprintf("Mappings read from smaps: %s charged in %d of %d mappings", p.Charge, p.Charged, p.MappingCount)
		if *p.Noreserve > 0 {
			s += fmt.Sprintf(", %s not charged (MAP_NORESERVE)", p.Noreserve)
		}
		if *p.Dontfork > 0 {
			s += fmt.Sprintf(", %s not copied (MADV_DONTFORK)", p.Dontfork)
		}
		t.wrapped("", s+".")
	}
}

// Printable makes a name from outside safe for a terminal: what is not printable
// (control characters, escape sequences, direction marks, invalid UTF-8) is
// written as Go would escape it.
func Printable(s string) string {
	var b strings.Builder
	for i := 0; i < len(s); {
		r, n := utf8.DecodeRuneInString(s[i:])
		switch {
		case r == utf8.RuneError && n == 1:
			fmt.Fprintf(&b, `\x%02x`, s[i])
		case unicode.IsPrint(r):
			b.WriteRune(r)
		default:
			q := strconv.QuoteRune(r)
			b.WriteString(q[1 : len(q)-1])
		}
		i += n
	}
	return b.String()
}
