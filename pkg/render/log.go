package render

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"strings"

	"github.com/overcheck/overcheck/pkg/kernel"
	"github.com/overcheck/overcheck/pkg/verdict"
)

// LogWriter writes the explained lines of a log as they come: of gigabytes, only
// what is written out is kept.
type LogWriter interface {
	Match(verdict.Explained)
	// Close ends the output, after so many lines were read.
	Close(lines int) error
}

// LogJSON writes {"schema": …, "matches": [verdict.Explained, …], "lines_read": N}, a
// match at a time.
func LogJSON(w io.Writer) LogWriter {
	l := &logJSON{Writer: bufio.NewWriter(w)}
	fmt.Fprintf(l, "{\n  \"schema\": %q,\n  \"matches\": [", verdict.Schema)
	return l
}

type logJSON struct {
	*bufio.Writer
	some bool
	err  error
}

func (l *logJSON) Match(m verdict.Explained) {
	var b strings.Builder
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if l.err = e.Encode(m); l.err != nil {
		return
	}
	separator := "\n    "
	if l.some {
		separator = ",\n    "
	}
	l.some = true
	_, _ = l.WriteString(separator + strings.TrimSpace(b.String())) // the error is kept for Close
}

func (l *logJSON) Close(lines int) error {
	end := "]"
	if l.some {
		end = "\n  ]"
	}
	fmt.Fprintf(l, "%s,\n  \"lines_read\": %d\n}\n", end, lines)
	if l.err != nil {
		return l.err
	}
	return l.Flush()
}

// LogText writes for people: each kind of line once, with how often it came.
func LogText(w io.Writer, colored bool) LogWriter {
	return &logText{out: w, styles: newStyles(colored), kinds: map[string]*kindSeen{}}
}

type logText struct {
	out io.Writer
	styles
	kinds   map[string]*kindSeen
	order   []string
	matched int
}

// kindSeen is what is kept of the lines of one kind and errno.
type kindSeen struct {
	first       verdict.Explained
	count, last int
}

func (l *logText) Match(m verdict.Explained) {
	l.matched++
	key := m.Kind
	if m.Errno != nil {
		key += string(*m.Errno)
	}
	seen := l.kinds[key]
	if seen == nil {
		seen = &kindSeen{first: m}
		l.kinds[key] = seen
		l.order = append(l.order, key)
	}
	seen.count++
	seen.last = m.Line
}

func (l *logText) Close(lines int) error {
	t := text{styles: l.styles}
	t.line("%s", t.key(fmt.Sprintf("%s read, %d of them of a fork or of what came of it", kernel.Plural(lines, "line"), l.matched)))
	for _, key := range l.order {
		seen := l.kinds[key]
		m := seen.first
		t.line("")
		where := fmt.Sprintf("line %d", m.Line)
		if seen.count > 1 {
			where = fmt.Sprintf("lines %d to %d, %d times", m.Line, seen.last, seen.count)
		}
		errno := ""
		if m.Errno != nil {
			errno = ", " + string(*m.Errno)
		}
		t.line("%s (%s%s)", t.key(m.Kind), where, errno)
		t.wrapped("  | ", Printable(strings.TrimSpace(m.Text)))
		t.wrapped("  means  ", m.Meaning)
		possible := "whether it can happen here now is not known"
		if p := m.PossibleHere; p != nil && *p {
			possible = t.bad("possible here now")
		} else if p != nil {
			possible = t.good("not possible here now")
		}
		t.wrapped("  here   ", possible+": "+Printable(m.Advice)+".")
	}
	_, err := l.out.Write(t.Bytes())
	return err
}
