package kernel

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/overcheck/overcheck/pkg/size"
)

// parseLevels reads "[CGROUP:]VALUE" or several, separated by commas: a limit of
// the process's own cgroup, or of the named one among its ancestors.
func parseLevels(s string, value func(string) (int64, error), set func(*Facts, string, Limit) error) (Change, error) {
	var changes []Change
	for part := range strings.SplitSeq(s, ",") {
		cgroup, text := "", part
		if i := strings.LastIndexByte(part, ':'); i >= 0 {
			cgroup, text = unescaped().Replace(part[:i]), part[i+1:]
		}
		limit := Limit{Unlimited: true}
		if text != "max" {
			n, err := value(text)
			if err != nil {
				return nil, err
			}
			limit = Limit{Value: n}
		}
		changes = append(changes, func(f Facts) (Facts, error) { err := set(&f, cgroup, limit); return f, err })
	}
	return func(f Facts) (Facts, error) {
		for _, change := range changes {
			var err error
			if f, err = change(f); err != nil {
				return f, err
			}
		}
		return f, nil
	}, nil
}

// CgroupValue spells a limit of one cgroup as the keys pids.max and memory.max
// take it: a comma or a colon in its name as the kernel escapes, \054 and \072.
func CgroupValue(cgroup, value string) string {
	return strings.NewReplacer(`\`, `\134`, ",", `\054`, ":", `\072`).Replace(cgroup) + ":" + value
}

func unescaped() *strings.Replacer { return strings.NewReplacer(`\134`, `\`, `\054`, ",", `\072`, ":") }

func parseMemoryMax(s string) (Change, error) {
	return parseLevels(s, func(text string) (int64, error) {
		if _, err := strconv.ParseInt(text, 10, 64); err == nil {
			text += "B" // as the file takes it
		}
		b, err := size.Parse(text)
		if err == nil && (b < 0 || b > limitless) {
			err = fmt.Errorf("size %q: out of range", text)
		}
		return int64(b), err
	}, setMemoryMax)
}

func parsePidsMax(s string) (Change, error) {
	return parseLevels(s, func(text string) (int64, error) {
		n, err := strconv.ParseInt(text, 10, 64)
		if err != nil || n < 0 {
			return 0, fmt.Errorf("%q: want a count, or max", text)
		}
		return n, nil
	}, setPidsMax)
}

// setMemoryMax sets the limit of a memory cgroup, the process's own where none is
// named; where none was seen it is given one, with what it has resident as the
// usage.
func setMemoryMax(f *Facts, cgroup string, limit Limit) error {
	p := &f.Process
	if len(p.Memory) == 0 && cgroup == "" {
		p.Memory = []MemoryCgroup{{Path: "(as set)", Current: p.RSS, Max: limit, Rough: true}}
		return nil
	}
	i := slices.IndexFunc(p.Memory, func(g MemoryCgroup) bool { return cgroup == "" || g.Path == cgroup })
	if i < 0 {
		return fmt.Errorf("memory.max: the process is in no memory cgroup %s", cgroup)
	}
	p.Memory = slices.Clone(p.Memory)
	p.Memory[i].Rough = p.Memory[i].Rough || p.Memory[i].Max.Unlimited
	p.Memory[i].Max = limit
	// v1's limit on RAM and swap together is never below that on RAM.
	if g := &p.Memory[i]; g.V1 && g.SwapMax != nil && !g.SwapMax.Unlimited && (limit.Unlimited || g.SwapMax.Value < limit.Value) {
		g.SwapMax = &limit
	}
	return nil
}

// setPidsMax does the same for pids.max.
func setPidsMax(f *Facts, cgroup string, limit Limit) error {
	p := &f.Process
	if len(p.Pids) == 0 && cgroup == "" {
		p.Pids = []PidsCgroup{{Path: "(as set)", Current: 1, Max: limit}}
		return nil
	}
	i := slices.IndexFunc(p.Pids, func(g PidsCgroup) bool { return cgroup == "" || g.Path == cgroup })
	if i < 0 {
		return fmt.Errorf("pids.max: the process is in no pids cgroup %s", cgroup)
	}
	p.Pids = slices.Clone(p.Pids)
	p.Pids[i].Max = limit
	return nil
}

// parseMapping reads an address, "7f0000000000", and applies change to the
// charged mapping that starts there.
func parseMapping(change func(*Facts, Mapping)) func(string) (Change, error) {
	return func(s string) (Change, error) {
		start, err := strconv.ParseUint(s, 16, 64)
		if err != nil {
			return nil, fmt.Errorf("%q: want an address in hexadecimal, as /proc/PID/maps prints it", s)
		}
		return func(f Facts) (Facts, error) {
			i := slices.IndexFunc(f.Mappings, func(m Mapping) bool { return m.Start == Address(start) })
			if i < 0 {
				if f.Process.Source != FromSmaps {
					return f, errors.New("which mappings are charged is not known: only smaps shows it (--mappings smaps)")
				}
				return f, fmt.Errorf("no charged mapping starts at %s", s)
			}
			m := f.Mappings[i]
			f.Mappings = slices.Delete(slices.Clone(f.Mappings), i, i+1)
			change(&f, m)
			return f, nil
		}, nil
	}
}

// dontfork is madvise(MADV_DONTFORK): the mapping stays committed, and a fork
// does not copy it.
func dontfork(f *Facts, m Mapping) {
	f.uncharge(m)
	if f.Process.Dontfork != nil {
		f.Process.Dontfork = new(*f.Process.Dontfork + m.Size())
	}
}

// noreserve is the mapping made anew with MAP_NORESERVE, which the kernel
// honours outside mode 2 (mm/mmap.c: do_mmap): it is not committed.
func noreserve(f *Facts, m Mapping) {
	if f.Process.MappedIn == Never || f.Host.Mode == Never {
		f.insert(m)
		return
	}
	f.uncharge(m)
	f.Host.CommittedAS = max(f.Host.CommittedAS-m.Size(), f.Host.OwnCharge)
	if f.Process.Noreserve != nil {
		f.Process.Noreserve = new(*f.Process.Noreserve + m.Size())
	}
}

// split is the mapping cut in two of the same size, as by other protection or
// advice for a page in the middle, which is then in neither: what is charged
// stays.
func split(f *Facts, m Mapping) {
	page := Address(f.Host.PageSize)
	middle := m.Start + (m.End-m.Start)/2/page*page
	first, second := m, m
	first.End, second.Start = middle, middle
	f.insert(first)
	f.insert(second)
	f.setLargest()
	f.Process.Charged++
	f.Process.MappingCount++
}

// insert puts a mapping in its place in address order.
func (f *Facts) insert(m Mapping) {
	i, _ := slices.BinarySearchFunc(f.Mappings, m.Start, func(m Mapping, at Address) int {
		switch {
		case m.Start < at:
			return -1
		case m.Start > at:
			return 1
		}
		return 0
	})
	f.Mappings = slices.Insert(slices.Clone(f.Mappings), i, m)
}

// uncharge takes a mapping that is out of Mappings out of the sums; what they were
// unsure of besides (a process that would grow) stays.
func (f *Facts) uncharge(m Mapping) {
	p := &f.Process
	p.Charge, p.ChargeMin, p.ChargeMax = p.Charge-m.Size(), max(p.ChargeMin-m.Size(), 0), max(p.ChargeMax-m.Size(), 0)
	p.Charged--
	f.setLargest()
}

// setLargest finds the largest of Mappings. By how much the bounds were above the
// largest that was known, they stay above it.
func (f *Facts) setLargest() {
	var largest size.Bytes
	for _, m := range f.Mappings {
		largest = max(largest, m.Size())
	}
	p := &f.Process
	beyond := p.LargestMax - p.LargestMin
	p.LargestMin, p.LargestMax = largest, largest+beyond
	p.Largest = p.LargestMax
}

// shrink makes the private memory of the process b bytes at most. Of the two
// kinds MAP_NORESERVE goes first: which would go is not known, and what is left
// must not seem smaller than it may be. What stays resident is not known either.
func shrink(f *Facts, b size.Bytes) {
	p := &f.Process
	kept := size.Bytes(0)
	if p.Noreserve != nil {
		kept = *p.Noreserve
	}
	less := p.Charge + kept - b
	if less <= 0 {
		return
	}
	free := min(less, kept)
	if p.Noreserve != nil {
		p.Noreserve = new(kept - free)
	}
	less -= free
	f.Host.CommittedAS = max(f.Host.CommittedAS-less, f.Host.OwnCharge)
	p.TotalVM = max(p.TotalVM-less-free, 0)
	p.Charge, p.ChargeMin, p.ChargeMax = p.Charge-less, max(p.ChargeMin-less, 0), max(p.ChargeMax-less, 0)
	p.LargestMin, p.LargestMax = max(p.LargestMin-less, 0), min(p.LargestMax, p.ChargeMax)
	p.Largest = p.LargestMax
	f.Mappings = nil // which of them is left is not known
}
