package kernel

import (
	"strconv"
	"strings"

	"github.com/overcheck/overcheck/pkg/size"
)

// Booted returns what a boot leaves of the vm.overcommit_* sysctls and the
// reserves, and which file sets each. What no file sets is the kernel's default,
// but for the reserves, which depend on free memory at boot and are left out.
func (h Host) Booted() (values map[string]int64, from map[string]string) {
	const ratio, kbytes = "vm.overcommit_ratio", "vm.overcommit_kbytes"
	values = map[string]int64{"vm.overcommit_memory": int64(Heuristic), ratio: 50, kbytes: 0}
	from = map[string]string{}
	for key := range values {
		from[key] = "the kernel's default"
	}
	for _, s := range h.Boot {
		// The kernel reads the first word, octal and hexadecimal too (kernel/sysctl.c:
		// strtoul_lenient).
		word, _, _ := strings.Cut(s.Value, " ")
		n, err := strconv.ParseInt(strings.TrimRight(word, "\t"), 0, 64)
		if err != nil {
			continue // it refuses this
		}
		values[s.Key], from[s.Key] = n, s.File
		// Writing one of them zeroes the other (mm/util.c: overcommit_ratio_handler).
		switch s.Key {
		case ratio:
			values[kbytes], from[kbytes] = 0, s.File
		case kbytes:
			values[ratio], from[ratio] = 0, s.File
		}
	}
	return values, from
}

// Sysctl returns the value in force, of the keys that Booted knows; known is false
// where the kernel has no such sysctl.
func (h Host) Sysctl(key string) (value int64, known bool) {
	kb := func(b *size.Bytes) (int64, bool) {
		if b == nil {
			return 0, false
		}
		return int64(*b / size.KiB), true
	}
	switch key {
	case "vm.overcommit_memory":
		return int64(h.Mode), true
	case "vm.overcommit_ratio":
		return h.OvercommitRatio, true
	case "vm.overcommit_kbytes":
		return kb(h.OvercommitKbytes)
	case "vm.admin_reserve_kbytes":
		return kb(h.AdminReserve)
	case "vm.user_reserve_kbytes":
		return kb(h.UserReserve)
	}
	return 0, false
}
