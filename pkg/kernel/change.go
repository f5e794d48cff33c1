package kernel

import (
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"

	"github.com/overcheck/overcheck/pkg/size"
)

// Change turns facts into the facts of another world: another setting, another
// kernel, a larger process. It leaves what it was given alone. It fails where it
// names something that the facts do not have.
type Change func(Facts) (Facts, error)

// always is a change that cannot fail.
func always(set func(*Facts)) Change {
	return func(f Facts) (Facts, error) { set(&f); return f, nil }
}

// changeKey is one key: its name, what it takes, and whether it changes the
// process rather than the host.
type changeKey struct {
	key, value string
	process    bool
	parse      func(string) (Change, error)
}

// changeKeys lists the keys that ParseChange knows, with what each takes.
func changeKeys() []changeKey {
	return []changeKey{
		{"vm.overcommit_memory", "0, 1 or 2", false, parseInt(2, setMode)},
		{"vm.overcommit_ratio", "percent", false, parseInt(math.MaxInt32, setRatio)},
		{"vm.overcommit_kbytes", "kilobytes", false, parseKB(setKbytes)},
		{"vm.admin_reserve_kbytes", "kilobytes", false, parseKB(func(f *Facts, b size.Bytes) { f.Host.AdminReserve = &b })},
		{"vm.user_reserve_kbytes", "kilobytes", false, parseKB(func(f *Facts, b size.Bytes) { f.Host.UserReserve = &b })},
		{"MemTotal", "a size", false, parseSize(setMemTotal)},
		{"SwapTotal", "a size", false, parseSize(setSwapTotal)},
		{"Committed_AS", "a size", false, parseSize(func(f *Facts, b size.Bytes) { f.Host.CommittedAS, f.Host.OwnCharge = b, 0 })},
		{"HugePages_Total", "a count", false, parseInt(math.MaxInt32, setHugePages)},
		{"kernel.threads-max", "a count", false, parseInt(math.MaxInt32, func(f *Facts, n int64) { f.Host.ThreadsMax = &n })},
		{"kernel.pid_max", "a count", false, parseInt(math.MaxInt32, func(f *Facts, n int64) { f.Host.PidMax = &n })},
		{"kernel", "a release", false, parseKernel},
		{"grow", "a size", true, parseSize(grow)},
		{"restart", "true or false", true, parseBool(func(f *Facts, b bool) { f.Process.Restart = b })},
		{"shrink", "a size", true, parseSize(shrink)},
		{"memory.max", "[CGROUP:]a size", true, parseMemoryMax},
		{"pids.max", "[CGROUP:]a count", true, parsePidsMax},
		{"RLIMIT_NPROC", "a count", true, parseInt(math.MaxInt64, func(f *Facts, n int64) { f.Process.NprocLimit = &Limit{Value: n} })},
		{"dontfork", "where a charged mapping starts", true, parseMapping(dontfork)},
		{"noreserve", "where a charged mapping starts", true, parseMapping(noreserve)},
		{"split", "where a charged mapping starts", true, parseMapping(split)},
		{"children", "a count", true, parseInt(math.MaxInt32, func(f *Facts, n int64) { f.Process.Children = n })},
		{"rewritten", "a size", true, parseSize(func(f *Facts, b size.Bytes) { f.Process.CowExpected = &b })},
		{"without-fork", "true or false", true, parseBool(func(f *Facts, b bool) { f.Process.WithoutFork = b })},
	}
}

// ChangeKeys describes what ParseChange takes, one "KEY=VALUE" an element.
func ChangeKeys() (keys []string) {
	for _, k := range changeKeys() {
		keys = append(keys, k.key+"=<"+k.value+">")
	}
	return keys
}

// OfProcess reports whether a change, spelt as ParseChange takes it, is one of a
// process rather than of the host.
func OfProcess(s string) bool {
	name, _, _ := strings.Cut(s, "=")
	return slices.ContainsFunc(changeKeys(), func(k changeKey) bool { return k.process && k.key == name })
}

// ParseChange reads one change as the command line spells it, "KEY=VALUE". The
// keys are the kernel's own names, and of the process grow, restart and
// memory.max; an unknown key is an error that lists them.
func ParseChange(s string) (Change, error) {
	name, value, ok := strings.Cut(s, "=")
	if !ok {
		return nil, fmt.Errorf("%q: want KEY=VALUE", s)
	}
	for _, k := range changeKeys() {
		if k.key != name {
			continue
		}
		change, err := k.parse(value)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		return change, nil
	}
	return nil, fmt.Errorf("unknown key %q: the keys are %s", name, strings.Join(ChangeKeys(), ", "))
}

func parseInt(hi int64, set func(*Facts, int64)) func(string) (Change, error) {
	return func(s string) (Change, error) {
		n, err := strconv.ParseInt(s, 10, 64)
		if err != nil || n < 0 || n > hi {
			return nil, fmt.Errorf("%q: want a whole number from 0 to %d", s, hi)
		}
		return always(func(f *Facts) { set(f, n) }), nil
	}
}

func parseSize(set func(*Facts, size.Bytes)) func(string) (Change, error) {
	return func(s string) (Change, error) {
		if s == "0" {
			s = "0B" // no unit needed
		}
		b, err := size.Parse(s)
		if err != nil {
			return nil, err
		}
		if b < 0 || b > limitless {
			return nil, fmt.Errorf("size %q: out of range", s)
		}
		return always(func(f *Facts) { set(f, b) }), nil
	}
}

// parseKB takes what the sysctl takes: a number of kilobytes. A size with a unit
// is taken too.
func parseKB(set func(*Facts, size.Bytes)) func(string) (Change, error) {
	return func(s string) (Change, error) {
		if _, err := strconv.ParseInt(s, 10, 64); err == nil {
			s += "KiB"
		}
		return parseSize(set)(s)
	}
}

func parseKernel(s string) (Change, error) {
	if _, err := ParseRelease(s); err != nil {
		return nil, err
	}
	return always(func(f *Facts) {
		f.Host.Release = s
		f.Host.Version = "" // it is the other kernel's; most are SMP
		f.Host.NoMMU, f.Host.NewRule = false, nil
	}), nil
}

func parseBool(set func(*Facts, bool)) func(string) (Change, error) {
	return func(s string) (Change, error) {
		b, err := strconv.ParseBool(s)
		if err != nil {
			return nil, fmt.Errorf("%q: want true or false", s)
		}
		return always(func(f *Facts) { set(f, b) }), nil
	}
}

func setMode(f *Facts, n int64) { f.Host.Mode = Mode(n) }

// setRatio and setKbytes each zero the other, as writing the sysctl does
// (mm/util.c: overcommit_ratio_handler, overcommit_kbytes_handler).
func setRatio(f *Facts, n int64) {
	f.Host.OvercommitRatio = n
	if f.Host.OvercommitKbytes != nil {
		f.Host.OvercommitKbytes = new(size.Bytes)
	}
	f.Host.setCommitLimit()
}

func setKbytes(f *Facts, b size.Bytes) {
	f.Host.OvercommitKbytes, f.Host.OvercommitRatio = &b, 0
	f.Host.setCommitLimit()
}

// setMemTotal gives the host other RAM: what is used stays used.
func setMemTotal(f *Facts, b size.Bytes) {
	h := &f.Host
	h.addFree(b - h.MemTotal)
	h.MemTotal, h.PresentRAM = b, b
	h.setCommitLimit()
}

func setSwapTotal(f *Facts, b size.Bytes) {
	h := &f.Host
	h.SwapFree = max(h.SwapFree+b-h.SwapTotal, 0)
	h.SwapTotal = b
	h.setCommitLimit()
}

// setHugePages changes the pool of the default size; other sizes stay.
func setHugePages(f *Facts, n int64) {
	h := &f.Host
	more := size.Bytes(n-h.HugePagesTotal) * h.HugePageSize
	h.HugePagesTotal = n
	h.Hugetlb = max(h.Hugetlb+more, 0)
	h.addFree(-more)
	h.setCommitLimit()
}

func (h *Host) setCommitLimit() {
	h.CommitLimit, h.LimitGuessed = h.commitLimit(), h.MeminfoRewritten
}

// commitLimit is vm_commit_limit (mm/util.c, since 3.13; the same arithmetic
// inline before): overcommit_kbytes if set, else the ratio of RAM less the huge
// pages of all sizes; plus swap.
func (h Host) commitLimit() size.Bytes {
	var pages int64
	if h.OvercommitKbytes != nil && *h.OvercommitKbytes > 0 {
		pages = h.pages(*h.OvercommitKbytes)
	} else {
		ram := max(h.pages(h.MemTotal)-h.pages(h.Hugetlb), 0)
		if h.OvercommitRatio > 0 && ram > maxPages/h.OvercommitRatio {
			return limitless
		}
		pages = ram * h.OvercommitRatio / 100
	}
	return min(h.bytes(pages+h.pages(h.SwapTotal)), limitless)
}

// addFree moves b bytes into the free memory of the host, or out of it.
func (h *Host) addFree(b size.Bytes) {
	h.MemFree = max(h.MemFree+b, 0)
	if h.MemAvailable != nil {
		h.MemAvailable = new(max(*h.MemAvailable+b, 0))
	}
	if h.Old != nil {
		old := *h.Old
		old.FreePages = max(old.FreePages+h.pages(b), 0)
		h.Old = &old
	}
}

// grow makes the process's private memory b bytes in all, touched. Where the
// process has MAP_NORESERVE memory, or where that is not known, what is added may
// be charged or not; whether it joins the largest mapping or makes new ones is
// never known, so the largest mapping gets bounds. A process that is larger
// already stays as it is.
func grow(f *Facts, b size.Bytes) {
	p := &f.Process
	noreserve := size.Bytes(0)
	if p.Noreserve != nil {
		noreserve = *p.Noreserve
	}
	more := b - p.Charge - noreserve
	if more <= 0 {
		return
	}
	p.TotalVM += more
	p.RSS += more
	if p.RSSAnon != nil {
		p.RSSAnon = new(*p.RSSAnon + more)
	}
	if p.Cow != nil {
		p.Cow = new(*p.Cow + more)
	}
	p.PageTables += more / f.Host.PageSize * 8
	f.Host.addFree(-more)
	groups := append([]MemoryCgroup(nil), p.Memory...)
	for i := range groups {
		groups[i].Current += more
	}
	p.Memory = groups
	p.LargestMax += more
	p.Largest = p.LargestMax
	if p.Noreserve == nil || noreserve > 0 {
		p.MayBeCharged += more
		return
	}
	f.charge(more)
}
