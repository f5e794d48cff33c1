// Package loglines recognises log lines that tell of a refused fork, or of what
// follows one: a reader in, matches out. It knows the wordings of servers,
// language runtimes, shells and the kernel, behind any prefix (syslog, journald,
// docker, kubectl), inside JSON, and between ANSI colours.
package loglines

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"regexp"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/overcheck/overcheck/pkg/kernel"
	"github.com/overcheck/overcheck/pkg/size"
)

// Cause is what about a host makes a line possible.
type Cause string

// The causes. Commit is the usual reason for ENOMEM, not the only one: a pid
// namespace without its init, and before 4.19 a full memory cgroup, give it too.
const (
	Commit  Cause = "commit"  // the commit check refused: ENOMEM
	Tasks   Cause = "tasks"   // RLIMIT_NPROC, threads-max, pids.max or pid_max: EAGAIN
	Memory  Cause = "memory"  // a kill for want of memory, of the host or of a cgroup
	Setting Cause = "setting" // a warning about vm.overcommit_memory
	THP     Cause = "thp"     // a warning about transparent huge pages
	Unknown Cause = "unknown" // the line does not tell
)

// Match is one recognised line. Of a line that says several things, the most
// specific is reported.
type Match struct {
	Line int `json:"line"` // from 1
	// Text is the line, at most 512 bytes of valid UTF-8: without its newline,
	// without ANSI sequences, with U+FFFD for any other control character.
	Text    string        `json:"text"`
	Kind    string        `json:"kind"`    // an ID of Kinds
	Meaning string        `json:"meaning"` // what the line says happened
	Errno   *kernel.Errno `json:"errno"`   // ENOMEM or EAGAIN; nil: the line tells neither
	Cause   Cause         `json:"cause"`
	// PID and Comm are of the process that the message names, never of the one
	// in a syslog prefix. A PID is of the writer's namespace.
	PID   *int        `json:"pid"`
	Comm  string      `json:"comm"`
	Bytes *size.Bytes `json:"bytes"` // the one request that was refused
	Path  string      `json:"path"`  // the cgroup or the command that it names
}

const (
	maxLine = 64 << 10 // of a longer line the rest is skipped
	maxText = 512
)

// Scan calls fn for every line of r that it recognises, in order, and returns
// how many lines it read. It needs the same memory however long r or its lines
// are. After an error of r it returns that error; what came before was scanned.
func Scan(r io.Reader, fn func(Match)) (lines int, err error) {
	s := newScanner()
	br := bufio.NewReaderSize(r, maxLine)
	for {
		line, err := br.ReadSlice('\n')
		if len(line) > 0 {
			lines++
			if m, ok := s.match(line); ok {
				m.Line = lines
				fn(m)
			}
		}
		for errors.Is(err, bufio.ErrBufferFull) {
			_, err = br.ReadSlice('\n')
		}
		if err == io.EOF {
			return lines, nil
		}
		if err != nil {
			return lines, err
		}
	}
}

// scanner holds what one Scan compiles once.
type scanner struct {
	words *automaton
	kinds []compiled
	plain []byte // the line at hand as plain leaves it, reused
	lower []byte // and in lower case, reused
}

// compiled is a kind with its words as sets of bits, and its patterns.
type compiled struct {
	kind
	leads, also, not uint64
	patterns         []*regexp.Regexp // compiled when first needed
}

func newScanner() *scanner {
	s := &scanner{}
	var words []string
	bits := func(list []string) (set uint64) {
		for _, w := range list {
			i := 0
			for i < len(words) && words[i] != w {
				i++
			}
			if i == len(words) {
				words = append(words, w)
			}
			set |= 1 << i
		}
		return set
	}
	leads := bits(escapes())
	for _, k := range kinds() {
		c := compiled{kind: k, leads: bits(k.leads), also: bits(k.also), not: bits(k.not)}
		leads |= c.leads
		s.kinds = append(s.kinds, c)
	}
	s.words = newAutomaton(words, leads)
	return s
}

// match tells what a line says, if it says anything that is known.
func (s *scanner) match(line []byte) (Match, bool) {
	if !s.words.anyLead(line) {
		return Match{}, false
	}
	s.plain = appendPlain(s.plain[:0], line)
	if found := s.words.all(s.plain); found != 0 {
		s.lower = appendLower(s.lower[:0], s.plain)
		for i := range s.kinds {
			if m, ok := s.kinds[i].match(s.plain, s.lower, found); ok {
				m.Text = excerpt(line)
				return m, true
			}
		}
	}
	return Match{}, false
}

// match tries the patterns of one kind. They are matched in lower case; what
// they capture is taken from text, whose offsets are the same.
func (c *compiled) match(text, lower []byte, found uint64) (Match, bool) {
	if found&c.leads == 0 || c.also != 0 && found&c.also == 0 || found&c.not != 0 {
		return Match{}, false
	}
	if c.patterns == nil {
		for _, p := range c.kind.patterns {
			c.patterns = append(c.patterns, regexp.MustCompile(p))
		}
	}
	for _, re := range c.patterns {
		if at := re.FindSubmatchIndex(lower); at != nil {
			return c.fill(re.SubexpNames(), text, at), true
		}
	}
	return Match{}, false
}

// fill takes from the line what a pattern's named groups found in it.
func (c *compiled) fill(names []string, text []byte, at []int) Match {
	m := Match{Kind: c.ID, Meaning: c.Meaning, Cause: c.cause}
	errno := c.errno
	for i, name := range names {
		if name == "" || at[2*i] < 0 {
			continue
		}
		switch v := string(text[at[2*i]:at[2*i+1]]); name {
		case "enomem":
			errno = kernel.ENOMEM
		case "eagain":
			errno = kernel.EAGAIN
		case "pid":
			if n, err := strconv.Atoi(v); err == nil {
				m.PID = &n
			}
		case "comm":
			m.Comm = clean(v)
		case "bytes":
			if n, err := strconv.ParseInt(v, 10, 64); err == nil {
				m.Bytes = new(size.Bytes(n))
			}
		case "path":
			m.Path = clean(v)
		}
	}
	if errno != "" {
		m.Errno = &errno
	}
	if c.cause == "" {
		m.Cause = causeOf(errno)
		m.Meaning += " " + said(errno)
	}
	return m
}

func causeOf(e kernel.Errno) Cause {
	switch e {
	case kernel.ENOMEM:
		return Commit
	case kernel.EAGAIN:
		return Tasks
	}
	return Unknown
}

// said ends the meaning of a line whose kind comes with either error.
func said(e kernel.Errno) string {
	if e == "" {
		return "The line does not tell whether the error is ENOMEM or EAGAIN."
	}
	return "The error is " + string(e) + "."
}

// escapes are the words at which appendPlain has something to do. A colour may
// stand inside a wording, so a line with one cannot be dismissed before it is gone.
func escapes() []string { return []string{"\x1b", `\u001b`, `#033[`, `\u0027`} }

// appendPlain appends line to dst without ANSI sequences, however they are
// written, and with the ASCII characters that JSON encoders write as \u0027 or
// the like.
func appendPlain(dst, line []byte) []byte {
	if bytes.Contains(line, []byte(`\u00`)) {
		line = unescaped(line)
	}
	if from := []byte("#033["); bytes.Contains(line, from) { // as rsyslog writes ESC
		line = bytes.ReplaceAll(line, from, []byte("\x1b["))
	}
	return appendUncoloured(dst, line)
}

// unescaped returns line with each \u00XX of printable ASCII or ESC replaced, but
// not those of quotes and backslashes, which mean something where they are.
func unescaped(line []byte) []byte {
	out := make([]byte, 0, len(line))
	for i := 0; i < len(line); i++ {
		if bytes.HasPrefix(line[i:], []byte(`\u00`)) && len(line) >= i+6 {
			n, err := strconv.ParseUint(string(line[i+4:i+6]), 16, 8)
			if c := byte(n); err == nil && (c == '\x1b' || c >= ' ' && c <= '~' && c != '"' && c != '\\') {
				out = append(bytes.TrimRight(out, `\`), c) // JSON in JSON
				i += 5
				continue
			}
		}
		out = append(out, line[i])
	}
	return out
}

// appendUncoloured appends line to dst without ANSI sequences.
func appendUncoloured(dst, line []byte) []byte {
	for {
		i := bytes.IndexByte(line, '\x1b')
		if i < 0 {
			return append(dst, line...)
		}
		dst = append(dst, line[:i]...)
		line = line[i+sequence(line[i:]):]
	}
}

// sequence returns the length of the ANSI control sequence, ESC [ parameters
// final, at the start of b, which starts with ESC. Of another escape it is the
// ESC alone.
func sequence(b []byte) int {
	if len(b) < 2 || b[1] != '[' {
		return 1
	}
	for i := 2; i < len(b); i++ {
		switch c := b[i]; {
		case c >= 0x40 && c <= 0x7e:
			return i + 1
		case c < 0x20 || c > 0x7e:
			return i
		}
	}
	return len(b)
}

// excerpt makes a Text of a line.
func excerpt(line []byte) string {
	line = appendUncoloured(nil, bytes.TrimRight(line, "\r\n"))
	// What clean replaces grows: a rune cut here ends beyond maxText.
	s := clean(string(line[:min(len(line), maxText+utf8.UTFMax)]))
	if len(s) <= maxText {
		return s
	}
	n := maxText
	for !utf8.RuneStart(s[n]) {
		n--
	}
	return s[:n]
}

// clean makes s fit to print: with U+FFFD for invalid bytes and for control
// characters, so that a log cannot act on the terminal that shows it.
func clean(s string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsControl(r) && r != '\t' {
			return utf8.RuneError
		}
		return r
	}, s)
}

// appendLower appends line to dst with A to Z in lower case, each byte in its
// place: unlike bytes.ToLower, which may change lengths.
func appendLower(dst, line []byte) []byte {
	for _, c := range line {
		if 'A' <= c && c <= 'Z' {
			c += 'a' - 'A'
		}
		dst = append(dst, c)
	}
	return dst
}

// automaton finds words in one pass, whatever their case (Aho and Corasick). It
// is what makes a log without matches cheap: no pattern is tried on a line that
// has none of the words.
type automaton struct {
	class [256]uint8 // of a byte: 0 if it is in no word
	next  []uint16   // state*width+class: the next state, with lead set if it ends a lead
	words []uint64   // of a state: the words that end there
}

const (
	width = 64      // room for the classes of a state
	lead  = 1 << 15 // set in next: a lead ends in the state
)

// newAutomaton takes at most 64 words in lower case; leads has a bit for each of
// them that anyLead looks for.
func newAutomaton(words []string, leads uint64) *automaton {
	a := &automaton{next: make([]uint16, width), words: make([]uint64, 1)}
	classes := uint8(0)
	for i, w := range words {
		state := uint16(0)
		for _, c := range []byte(w) {
			if a.class[c] == 0 {
				classes++
				a.class[c] = classes
			}
			to := &a.next[int(state)*width+int(a.class[c])]
			if *to == 0 {
				*to = uint16(len(a.words))
				a.words = append(a.words, 0)
				a.next = append(a.next, make([]uint16, width)...)
				to = &a.next[int(state)*width+int(a.class[c])]
			}
			state = *to
		}
		a.words[state] |= 1 << i
	}
	for c := 'a'; c <= 'z'; c++ {
		a.class[c-'a'+'A'] = a.class[c]
	}
	a.link()
	for i, to := range a.next {
		if a.words[to]&leads != 0 {
			a.next[i] |= lead
		}
	}
	return a
}

// link turns the tree of words into an automaton: where a state has no edge for
// a class, the edge of its longest suffix that is a state.
func (a *automaton) link() {
	suffix := make([]uint16, len(a.words))
	queue := []uint16{0}
	for len(queue) > 0 {
		state := queue[0]
		queue = queue[1:]
		a.words[state] |= a.words[suffix[state]]
		for c := range width {
			to := &a.next[int(state)*width+c]
			past := a.next[int(suffix[state])*width+c]
			switch {
			case *to == 0:
				*to = past
			case state != 0:
				suffix[*to] = past
				queue = append(queue, *to)
			default:
				queue = append(queue, *to)
			}
		}
	}
}

// anyLead reports whether one of the leads is in b.
func (a *automaton) anyLead(b []byte) bool {
	state := uint16(0)
	for _, c := range b {
		state = a.next[int(state)*width+int(a.class[c])]
		if state&lead != 0 {
			return true
		}
	}
	return false
}

// all returns the set of the words that are in b.
func (a *automaton) all(b []byte) (found uint64) {
	state := uint16(0)
	for _, c := range b {
		state = a.next[int(state)*width+int(a.class[c])] &^ lead
		found |= a.words[state]
	}
	return found
}
