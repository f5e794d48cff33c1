package collect

import (
	"bytes"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"github.com/overcheck/overcheck/pkg/kernel"
)

// thp reads the chosen word of "always [madvise] never"; empty where transparent
// huge pages are not built in.
func (c *Collector) thp() string {
	text, _ := readFile(filepath.Join(c.sys, "kernel/mm/transparent_hugepage/enabled"))
	_, rest, _ := strings.Cut(text, "[")
	word, _, _ := strings.Cut(rest, "]")
	return word
}

// container says by what overcheck seems to run in a container. Where procfs
// does not show overcheck it is that of another machine, or of the host.
func (c *Collector) container() string {
	if ns, err := c.link("self", "ns/pid"); err == nil && ns != initialPidNS {
		return "overcheck is in a pid namespace of its own"
	}
	if ns, err := c.link("self", "ns/user"); err == nil && ns != initialUserNS {
		return "overcheck is in a user namespace"
	}
	for _, m := range c.mounts {
		if _, readOnly := m.Options["ro"]; readOnly && m.MountPoint == filepath.Join(c.proc, "sys") {
			return m.MountPoint + " is mounted read-only"
		}
	}
	return ""
}

// Boot reads what sysctl.d below root sets of vm.overcommit_* and the reserves, in
// the order in which it is applied: the files of all directories by their base
// names, one in an earlier directory in place of those of the same name in later
// ones (sysctl.d(5)). systemd does not read sysctl.conf but where it is linked
// there; sysctl --system reads it last.
func (c *Collector) Boot(root string) []kernel.BootSetting {
	files := map[string]string{} // by base name
	var bases []string
	for _, dir := range []string{"etc", "run", "usr/local/lib", "usr/lib", "lib"} {
		if link, err := os.Readlink(filepath.Join(root, dir)); err == nil && link == "usr/lib" {
			continue // was seen
		}
		d, err := os.Open(filepath.Join(root, dir, "sysctl.d"))
		if err != nil {
			continue
		}
		names, _ := d.Readdirnames(-1)
		_ = d.Close() // opened for reading
		for _, base := range names {
			if strings.HasSuffix(base, ".conf") && files[base] == "" {
				files[base] = filepath.Join(root, dir, "sysctl.d", base)
				bases = append(bases, base)
			}
		}
	}
	slices.Sort(bases)
	names := make([]string, 0, len(bases)+1)
	for _, base := range bases {
		names = append(names, files[base])
	}
	if _, err := os.Stat(filepath.Join(root, "run/systemd/system")); err != nil {
		names = append(names, filepath.Join(root, "etc/sysctl.conf"))
	}
	settings := []kernel.BootSetting{}
	for _, name := range names {
		// One that is linked to /dev/null is masked; one that may not be read sets
		// nothing that can be known.
		text, _ := readFile(name)
		for _, s := range parseSysctlConf(text) {
			s.File = strings.ToValidUTF8("/"+strings.TrimPrefix(strings.TrimPrefix(name, root), "/"), "\uFFFD")
			settings = append(settings, s)
		}
	}
	return settings
}

// bootKeys are those that a verdict or a remedy is about.
func bootKeys() []string {
	return []string{
		"vm.overcommit_memory", "vm.overcommit_ratio", "vm.overcommit_kbytes", "vm.admin_reserve_kbytes", "vm.user_reserve_kbytes",
		"vm.nr_hugepages", "kernel.pid_max", "kernel.threads-max",
	}
}

// parseSysctlConf reads lines such as
//
//	-vm/overcommit_memory = 1
//
// A key may be a pattern; "-" means that a failure does not matter.
func parseSysctlConf(text string) (settings []kernel.BootSetting) {
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		key, value, ok := strings.Cut(line, "=")
		if !ok || line[0] == '#' || line[0] == ';' {
			continue
		}
		pattern := strings.ReplaceAll(strings.TrimSpace(strings.TrimPrefix(key, "-")), "/", ".")
		for _, known := range bootKeys() {
			if matched, err := path.Match(pattern, known); err == nil && matched {
				settings = append(settings, kernel.BootSetting{Key: known, Value: strings.ToValidUTF8(strings.TrimSpace(value), "\uFFFD")})
			}
		}
	}
	return settings
}

// Neighbours looks for the programs of names among all processes, by comm, each
// once. There may be thousands: so each comm is read with the fewest system
// calls, and none but those that match becomes a string.
func (c *Collector) Neighbours(names ...string) []string {
	found := []string{}
	d, err := os.Open(c.proc)
	if err != nil {
		return found // what cannot be listed is not there
	}
	defer func() { _ = d.Close() }() // opened for reading
	entries, _ := d.Readdirnames(-1)
	path, comm := make([]byte, 0, 32), make([]byte, 64)
	for _, entry := range entries {
		if entry[0] < '1' || entry[0] > '9' {
			continue
		}
		path = append(append(path[:0], entry...), "/comm"...)
		fd, err := syscall.Openat(int(d.Fd()), string(path), syscall.O_RDONLY|syscall.O_CLOEXEC, 0)
		if err != nil {
			continue // it exited
		}
		n, _ := syscall.Read(fd, comm)
		_ = syscall.Close(fd) // opened for reading
		name := bytes.TrimSuffix(comm[:max(n, 0)], []byte("\n"))
		for _, wanted := range names {
			if string(name) == wanted && !slices.Contains(found, wanted) {
				found = append(found, wanted)
			}
		}
	}
	slices.Sort(found)
	return found
}
