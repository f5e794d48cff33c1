package kernel

import (
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// Release is a kernel release (uname -r), parsed.
type Release struct {
	Major, Minor, Patch int
	Raw                 string
}

// ParseRelease reads a release such as "6.1.0-13-amd64" or "4.18.0-147.el8.x86_64".
// The distribution's part stays in Raw.
func ParseRelease(s string) (Release, error) {
	r := Release{Raw: s}
	rest, numbers := s, 0
	for _, f := range []*int{&r.Major, &r.Minor, &r.Patch} {
		digits := len(rest) - len(strings.TrimLeft(rest, "0123456789"))
		n, err := strconv.Atoi(rest[:digits])
		if err != nil {
			break // an absent patch level is 0
		}
		*f, rest = n, rest[digits:]
		if numbers++; numbers == 3 || !strings.HasPrefix(rest, ".") {
			break
		}
		rest = rest[1:]
	}
	if numbers < 2 || rest != "" && !strings.ContainsRune("-.+_~", rune(rest[0])) && !strings.HasSuffix(s[:len(s)-len(rest)], ".") {
		return Release{Raw: s}, fmt.Errorf("kernel release %q: want MAJOR.MINOR[.PATCH][-SUFFIX], as in 6.1.0-13-amd64", s)
	}
	return r, nil
}

// AtLeast reports whether r is MAJOR.MINOR or later, by its number alone.
func (r Release) AtLeast(major, minor int) bool {
	return r.Major > major || r.Major == major && r.Minor >= minor
}

// Family is a set of kernels with the same arithmetic in __vm_enough_memory.
type Family int

// The families, mm/mmap.c and later mm/util.c:__vm_enough_memory. The two RHEL 6
// kernels mix what mainline did at different times.
const (
	F0     Family = iota // to 3.0: old rule in two stages, 1/32 kept from other users
	RHEL66               // RHEL 6.6: F0, but mode 2 takes 1/32 of the limit with swap
	RHEL68               // RHEL 6.8: F0 with admin_reserve in place of 1/32
	F1                   // 3.1 to 3.9: old rule in one stage, shared memory not counted as free
	F2                   // 3.10 to 4.16, RHEL 7: admin_reserve and user_reserve
	F3                   // 4.17 to 4.19, also 4.14 stable and Ubuntu 4.15: counts a vmstat item that /proc hides
	F4                   // 4.20 to 5.1, RHEL 8.0 and 8.1: that item is nr_kernel_misc_reclaimable
	F5                   // 5.2 on, RHEL 8.3 on: the new rule (commit 8c7829b04c52)
)

// String describes the family's kernels.
func (f Family) String() string {
	return []string{
		"Linux <= 3.0", "RHEL 6.6", "RHEL 6.8", "Linux 3.1 to 3.9", "Linux 3.10 to 4.16, RHEL 7",
		"Linux 4.17 to 4.19", "Linux 4.20 to 5.1, RHEL 8.1", "Linux >= 5.2, RHEL >= 8.3",
	}[f]
}

// Families returns the families whose rules may hold on the host: one where the
// release tells, several where it does not, and then why. The bug fix that makes
// F5 (2019) could be in any vendor's 4.x kernel of after that date; only those
// whose sources were read are taken at their number.
func (h Host) Families() (fs []Family, why string) {
	fs, why = h.familiesByRelease()
	if h.NewRule == nil || len(fs) == 1 {
		return fs, why
	}
	// A probe has settled it.
	if *h.NewRule {
		return []Family{F5}, ""
	}
	fs = slices.DeleteFunc(fs, func(f Family) bool { return f == F5 })
	if len(fs) == 1 {
		why = ""
	}
	return fs, why
}

func (h Host) familiesByRelease() (fs []Family, why string) {
	r, err := ParseRelease(h.Release)
	if err != nil {
		return []Family{F0, F2, F5}, err.Error()
	}
	vendor := func(name string) ([]Family, string) {
		return []Family{r.mainline(), F5}, "the source of " + name + " was not read: it may have the mode-0 rule of before Linux 5.2 or of after"
	}
	switch raw := r.Raw; {
	case r.AtLeast(5, 2):
		return []Family{F5}, ""
	case strings.Contains(raw, "uek"):
		return vendor("Oracle's UEK " + raw)
	case strings.Contains(raw, "stab"):
		return []Family{F0, RHEL66, RHEL68}, "OpenVZ's kernel has limits of its own besides, in /proc/user_beancounters"
	case strings.HasPrefix(raw, "2.6.32-") && strings.Contains(raw, ".el6"):
		return rhel6(r.build())
	case strings.HasPrefix(raw, "4.18.0-") && strings.Contains(raw, ".el8"):
		return rhel8(r.build())
	case strings.HasPrefix(raw, "3.10.0-") && strings.Contains(raw, ".el7"):
		return []Family{F2}, ""
	case r.Major >= 4 && !r.sourceRead():
		return vendor("vendor kernel " + raw)
	}
	return []Family{r.mainline()}, ""
}

// rhel6 goes by the build number: 431 is 6.5, 504 is 6.6, 573 is 6.7 (not read)
// and 642 is 6.8.
func rhel6(build int) ([]Family, string) {
	switch {
	case build <= 431:
		return []Family{F0}, ""
	case build >= 504 && build < 573:
		return []Family{RHEL66}, ""
	case build >= 642:
		return []Family{RHEL68}, ""
	}
	return []Family{F0, RHEL66, RHEL68}, "the source of this RHEL 6 kernel was not read, and the arithmetic changed with 6.6 and 6.8"
}

// rhel8 goes by the build number: 80 is 8.0, 147 is 8.1, 193 is 8.2 (not found)
// and 240 is 8.3.
func rhel8(build int) ([]Family, string) {
	switch {
	case build <= 147:
		return []Family{F4}, ""
	case build >= 240:
		return []Family{F5}, ""
	}
	return []Family{F4, F5}, "RHEL 8.2 (kernels 4.18.0-148 to -239): its source was not found, 8.1 has the old mode-0 rule and 8.3 the new one"
}

// mainline returns the family of the bare version number.
func (r Release) mainline() Family {
	switch {
	case r.AtLeast(5, 2):
		return F5
	case r.AtLeast(4, 20):
		return F4
	case r.AtLeast(4, 17),
		r.Major == 4 && r.Minor == 14, // from some 4.14.y on; harmless before: F3 only widens the doubt
		r.Major == 4 && r.Minor == 15 && r.ubuntu():
		return F3
	case r.AtLeast(3, 10):
		return F2
	case r.AtLeast(3, 1):
		return F1
	}
	return F0
}

// build returns N of a "4.18.0-N.el8" release; 0 if there is none.
func (r Release) build() int {
	m := regexp.MustCompile(`^\d+\.\d+\.\d+-(\d+)`).FindStringSubmatch(r.Raw)
	if m == nil {
		return 0
	}
	n, _ := strconv.Atoi(m[1]) // digits; out of range is as good as none
	return n
}

func (r Release) ubuntu() bool {
	return regexp.MustCompile(`^\d+\.\d+\.0-\d+-(generic|lowlatency|virtual|aws|azure|gcp|gke|oem|oracle|kvm|raspi2?|snapdragon|generic-hwe)`).MatchString(r.Raw)
}

// sourceRead reports whether r is of a line whose source was read: mainline and
// stable by the bare number (elrepo packages those), Debian's and Ubuntu's.
func (r Release) sourceRead() bool {
	return r.ubuntu() || strings.Contains(r.Raw, ".elrepo.") || regexp.MustCompile(`^\d+\.\d+(\.\d+)?(-rc\d+)?$|^\d+\.\d+\.\d+-(\d+|0\.bpo\.\d+|0\.deb\d+\.\d+)-(cloud-|rt-|686|amd64|arm64|armmp|s390x|powerpc64le)`).MatchString(r.Raw)
}

// signedness says whether the sums of __vm_enough_memory are signed: where they
// are not, a negative limit wraps to a huge one and everything passes.
type signedness int

const (
	signed signedness = iota
	unsigned
	unknownSign
)

// arithmetic follows "mm: fix arithmetic overflow in __vm_enough_memory()"
// (January 2015): in 4.0, and read in the stable kernels 3.4.113, 3.10.99 and
// 3.18.30. Read without it: 2.6.20 to 3.9, 3.11 to 3.16. A distribution's release
// does not show the stable level that it is at.
func (r Release) arithmetic() signedness {
	has := func(minor, patch int) bool { return r.Minor == minor && r.Patch >= patch }
	switch {
	case r.AtLeast(4, 0):
		return signed
	case strings.Contains(r.Raw, "-"):
		return unknownSign
	case r.Major == 3 && (has(4, 113) || has(10, 99) || has(18, 30)):
		return signed
	case r.Major == 3 && (r.Minor == 2 || r.Minor == 4 || r.Minor == 10 || r.Minor == 12 ||
		r.Minor == 14 && r.Patch > 1 || r.Minor == 16 && r.Patch > 0 || r.Minor >= 17):
		return unknownSign // lines that were maintained when the fix came
	}
	return unsigned
}
