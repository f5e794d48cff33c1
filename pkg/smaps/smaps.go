// Package smaps reads /proc/PID/smaps and /proc/PID/maps in one pass, VmFlags
// included, and sums up what a fork of the process would be charged for.
package smaps

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/overcheck/overcheck/pkg/kernel"
	"github.com/overcheck/overcheck/pkg/size"
)

// Entry is one mapping as the file prints it. Path and Flags are overwritten by
// the next mapping: they hold until the callback returns.
type Entry struct {
	Start, End kernel.Address
	Shared     bool       // fourth letter of the permissions
	Writable   bool       // second letter
	Executable bool       // third letter
	Path       []byte     // as printed; newlines come escaped as \012
	Resident   size.Bytes // Rss:, 0 in maps
	Anonymous  size.Bytes // Anonymous:, 0 in maps
	Huge       size.Bytes // AnonHugePages:, 0 in maps
	Swapped    size.Bytes // Swap:, 0 in maps
	PageSize   size.Bytes // KernelPageSize:, 0 in maps
	Flags      []byte     // VmFlags: without the surrounding blanks
	HasFlags   bool       // false in maps, and in smaps before Linux 3.8
}

// Scan calls fn for each mapping of a smaps or maps file, in the file's order,
// with the same Entry each time. Keys that it does not know are passed over.
func Scan(r io.Reader, fn func(*Entry)) error {
	// The kernel hands out a page a read, but one path may take 16 KiB once its
	// newlines are escaped.
	var (
		buf   = make([]byte, 64<<10)
		n     int
		e     Entry
		lines int
		open  bool // e has its header
	)
	for {
		got, err := r.Read(buf[n:])
		n += got
		rest := buf[:n]
		for {
			i := bytes.IndexByte(rest, '\n')
			if i < 0 {
				break
			}
			line := rest[:i]
			rest = rest[i+1:]
			lines++
			if !isHeader(line) {
				if !open {
					return fmt.Errorf("line %d: %q before any mapping", lines, clip(line))
				}
				if err := e.key(line); err != nil {
					return fmt.Errorf("line %d: %w", lines, err)
				}
				continue
			}
			if open {
				fn(&e)
			}
			if err := e.header(line); err != nil {
				return fmt.Errorf("line %d: %w", lines, err)
			}
			open = true
		}
		n = copy(buf, rest)
		switch {
		case errors.Is(err, io.EOF) && n > 0:
			return fmt.Errorf("line %d: cut off: %q", lines+1, clip(buf[:n]))
		case errors.Is(err, io.EOF):
			if open {
				fn(&e)
			}
			return nil
		case err != nil:
			return err
		case n == len(buf):
			return fmt.Errorf("line %d: longer than %d bytes", lines+1, n)
		}
	}
}

// isHeader tells the line that opens a mapping from its keys: it begins with a
// hexadecimal digit in lower case, they begin with a capital.
func isHeader(line []byte) bool {
	return len(line) == 0 || line[0] >= '0' && line[0] <= '9' || line[0] >= 'a' && line[0] <= 'f'
}

func clip(b []byte) []byte { return b[:min(len(b), 60)] }

// key reads a "Key:   value" line into e, as in "Rss:                 132 kB".
func (e *Entry) key(l []byte) (err error) {
	switch {
	case l[0] == 'R' && bytes.HasPrefix(l, []byte("Rss:")):
		e.Resident, err = kB(l[len("Rss:"):])
	case l[0] == 'A' && bytes.HasPrefix(l, []byte("Anonymous:")):
		e.Anonymous, err = kB(l[len("Anonymous:"):])
	case l[0] == 'A' && bytes.HasPrefix(l, []byte("AnonHugePages:")):
		e.Huge, err = kB(l[len("AnonHugePages:"):])
	case l[0] == 'S' && bytes.HasPrefix(l, []byte("Swap:")):
		e.Swapped, err = kB(l[len("Swap:"):])
	case l[0] == 'K' && bytes.HasPrefix(l, []byte("KernelPageSize:")):
		e.PageSize, err = kB(l[len("KernelPageSize:"):])
	case l[0] == 'V' && bytes.HasPrefix(l, []byte("VmFlags:")):
		e.Flags = append(e.Flags[:0], bytes.TrimSpace(l[len("VmFlags:"):])...)
		e.HasFlags = true
	}
	return err
}

// kB reads "     132 kB".
func kB(b []byte) (size.Bytes, error) {
	var n size.Bytes
	i := 0
	for i < len(b) && b[i] == ' ' {
		i++
	}
	digits := i
	for ; i < len(b) && b[i] >= '0' && b[i] <= '9' && n < 1<<50; i++ {
		n = n*10 + size.Bytes(b[i]-'0')
	}
	if i == digits || string(b[i:]) != " kB" {
		return 0, fmt.Errorf("%q: want a number of kB", clip(b))
	}
	return n * size.KiB, nil
}

// header reads the line that opens a mapping:
//
//	7f3c1e21c000-7f3c1e21e000 rw-p 00000000 00:00 0       [stack]
func (e *Entry) header(l []byte) error {
	bad := func() error {
		return fmt.Errorf("%q: want a mapping: START-END PERMS OFFSET DEV INODE [PATH]", clip(l))
	}
	*e = Entry{Path: e.Path[:0], Flags: e.Flags[:0]}
	rest, ok := l, false
	if e.Start, rest, ok = hex(rest, '-'); !ok {
		return bad()
	}
	if e.End, rest, ok = hex(rest, ' '); !ok || e.End < e.Start || len(rest) < 5 || rest[4] != ' ' {
		return bad()
	}
	e.Writable, e.Executable, e.Shared = rest[1] == 'w', rest[2] == 'x', rest[3] == 's' || rest[3] == 'S'
	rest = rest[5:]
	for range 2 { // offset, device
		i := bytes.IndexByte(rest, ' ')
		if i < 0 {
			return bad()
		}
		rest = rest[i+1:]
	}
	// The path follows the inode, padded to a column; it may hold blanks itself.
	if i := bytes.IndexByte(rest, ' '); i >= 0 {
		e.Path = append(e.Path, bytes.TrimLeft(rest[i:], " ")...)
	}
	return nil
}

// hex reads hexadecimal digits up to the byte that ends them.
func hex(b []byte, end byte) (n kernel.Address, rest []byte, ok bool) {
	for i, c := range b {
		switch {
		case c == end:
			return n, b[i+1:], i > 0 && i <= 16
		case c >= '0' && c <= '9':
			n = n<<4 | kernel.Address(c-'0')
		case c >= 'a' && c <= 'f':
			n = n<<4 | kernel.Address(c-'a'+10)
		default:
			return 0, b, false
		}
	}
	return 0, b, false
}

// Summary is what a fork of the process would be charged for, as far as the file
// that was read can tell.
type Summary struct {
	Count    int // mappings in all, without [vsyscall]
	TotalVM  size.Bytes
	Writable size.Bytes // private writable: a quick sign of whether anything changed
	Programs []string   // files that are mapped executable, each once: the program and its libraries
	HasFlags bool       // VmFlags was there: what follows is exact

	Mappings   []kernel.Mapping // charged, in address order; only with HasFlags
	Charged    int
	Charge     size.Bytes // else the likely value, up to ChargeMax
	ChargeMax  size.Bytes
	Largest    size.Bytes // else the likely value, up to LargestMax
	LargestMax size.Bytes
	Noreserve  size.Bytes // private, writable, MAP_NORESERVE
	Dontfork   size.Bytes // charged, but not copied

	// What a fork shares until it is written to: private anonymous pages, swapped
	// ones too, of mappings that are copied (neither "dc" nor "wf"); and how much
	// of them is in huge pages. Only with HasFlags.
	Shared, Huge size.Bytes
}

// flagSet is what matters of one distinct VmFlags line.
type flagSet struct {
	text                           string
	ac, dc, nr, wr, sh, ht, dp, wf bool
}

func parseFlags(b []byte) flagSet {
	f := flagSet{text: string(b)}
	for w := range strings.FieldsSeq(f.text) {
		switch w {
		case "ac":
			f.ac = true
		case "dc":
			f.dc = true
		case "nr":
			f.nr = true
		case "wr":
			f.wr = true
		case "sh":
			f.sh = true
		case "ht":
			f.ht = true
		case "dp":
			f.dp = true
		case "wf":
			f.wf = true
		}
	}
	return f
}

// Read sums up a smaps or maps file. The rule is dup_mmap's: a mapping is
// charged if it has VM_ACCOUNT ("ac") and fork copies it (no "dc").
//
// Where the file has no VmFlags the charge is bounded: VM_ACCOUNT is set for
// private writable mappings, stays when they are made read-only, and is absent
// with MAP_NORESERVE, which maps does not show. So any private mapping may be
// charged, but for huge pages and the kernel's own.
func Read(r io.Reader) (Summary, error) {
	var (
		s     Summary
		flags = map[string]flagSet{} // by VmFlags line: a process has a dozen distinct ones
		paths = pathSet{}
		kept  chunks
	)
	err := Scan(r, func(e *Entry) {
		if string(e.Path) == "[vsyscall]" {
			return // a page of the kernel's, not in mm->total_vm
		}
		s.Count++
		length := size.Bytes(e.End - e.Start)
		s.TotalVM += length
		if e.Writable && !e.Shared {
			s.Writable += length
		}
		if e.Executable && len(e.Path) > 0 && e.Path[0] == '/' {
			if path := paths.text(e.Path); !slices.Contains(s.Programs, path) {
				s.Programs = append(s.Programs, path)
			}
		}
		if !e.HasFlags {
			s.bound(e, length)
			return
		}
		s.HasFlags = true
		f, ok := flags[string(e.Flags)]
		if !ok {
			f = parseFlags(e.Flags)
			flags[f.text] = f
		}
		if !f.dc && !f.wf && !f.sh {
			s.Shared += e.Anonymous + e.Swapped
			s.Huge += e.Huge
		}
		switch {
		case f.ac && f.dc:
			s.Dontfork += length
		case f.ac:
			kept.add(kernel.Mapping{Start: e.Start, End: e.End, Resident: e.Resident, Flags: f.text, Path: paths.text(e.Path)})
			s.Charged++
			s.Charge += length
			s.Largest = max(s.Largest, length)
		case f.nr && f.wr && !f.sh && !f.ht && !f.dc && !f.dp: // MAP_DROPPABLE is never charged
			s.Noreserve += length
		}
	})
	s.Mappings = slices.Concat(kept...)
	if s.HasFlags {
		s.ChargeMax, s.LargestMax = s.Charge, s.Largest
	}
	return s, err
}

// pathSet keeps each path once, by how it was printed.
type pathSet map[string]string

func (s pathSet) text(printed []byte) string {
	path, ok := s[string(printed)]
	if !ok {
		path = strings.ToValidUTF8(string(printed), "\uFFFD")
		s[string(printed)] = path
	}
	return path
}

// chunks collects mappings without moving them as it grows: with many, that
// would touch several times the memory that they take.
type chunks [][]kernel.Mapping

func (c *chunks) add(m kernel.Mapping) {
	const length = 1024
	if last := len(*c) - 1; last >= 0 && len((*c)[last]) < cap((*c)[last]) {
		(*c)[last] = append((*c)[last], m)
		return
	}
	capacity := length
	if len(*c) == 0 {
		capacity = 64 // enough for most processes
	}
	*c = append(*c, append(make([]kernel.Mapping, 0, capacity), m))
}

// bound adds a mapping without VmFlags.
func (s *Summary) bound(e *Entry, length size.Bytes) {
	const largestBasePage = 64 * size.KiB // above it, only hugetlb
	switch path := string(e.Path); {
	case e.Shared,
		path == "/anon_hugepage (deleted)", e.PageSize > largestBasePage,
		path == "[vdso]", strings.HasPrefix(path, "[vvar"):
		return
	}
	s.ChargeMax += length
	s.LargestMax = max(s.LargestMax, length)
	if e.Writable {
		s.Charged++
		s.Charge += length
		s.Largest = max(s.Largest, length)
	}
}
