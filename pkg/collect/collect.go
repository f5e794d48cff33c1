// Package collect reads the facts about a host and its processes below given
// roots of /proc and /sys. It only reads, and it decides nothing: what a number
// means is for the packages kernel and verdict.
package collect

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/prometheus/procfs"

	"github.com/overcheck/overcheck/pkg/kernel"
	"github.com/overcheck/overcheck/pkg/size"
)

// Collector reads facts. Make it with New.
type Collector struct {
	proc, sys string
	pageSize  size.Bytes
	fs        procfs.FS
	mounts    []*procfs.MountInfo // overcheck's own view; nil if unreadable
}

// New returns a Collector for the roots procRoot and sysRoot, "/proc" and "/sys"
// but in a container that looks at its host. pageSize is that of the machine
// whose /proc it is.
func New(procRoot, sysRoot string, pageSize int) (*Collector, error) {
	pfs, err := procfs.NewFS(procRoot)
	if err != nil {
		return nil, fmt.Errorf("%s: not a proc filesystem: %w", procRoot, err)
	}
	if _, err := os.Stat(filepath.Join(procRoot, "sys/kernel/osrelease")); err != nil {
		return nil, fmt.Errorf("%s: not a proc filesystem: %w", procRoot, err)
	}
	if _, err := os.Stat(sysRoot); err != nil {
		return nil, fmt.Errorf("%s: not a sysfs: %w", sysRoot, err)
	}
	c := &Collector{proc: filepath.Clean(procRoot), sys: filepath.Clean(sysRoot), pageSize: size.Bytes(pageSize), fs: pfs}
	if self, err := pfs.Self(); err == nil {
		c.mounts, _ = self.MountInfo() // without it, lxcfs and cgroup limits are not seen; both say so
	}
	return c, nil
}

// read returns a file below /proc.
func (c *Collector) read(path ...string) (string, error) {
	return readFile(filepath.Join(append([]string{c.proc}, path...)...))
}

// link returns the inode of a namespace link such as "user:[4026531837]".
func (c *Collector) link(path ...string) (inode string, err error) {
	s, err := os.Readlink(filepath.Join(append([]string{c.proc}, path...)...))
	if err != nil {
		return "", err
	}
	_, inode, ok := strings.Cut(strings.TrimSuffix(s, "]"), ":[")
	if !ok {
		return "", fmt.Errorf("%s: %q: want a namespace", filepath.Join(path...), s)
	}
	return inode, nil
}

// The initial namespaces have fixed inodes: include/linux/proc_ns.h, since 3.8.
const (
	initialUserNS   = "4026531837"
	initialPidNS    = "4026531836"
	initialCgroupNS = "4026531835"
)

// denied reports whether err is the kernel's refusal, not an absence.
func denied(err error) bool { return errors.Is(err, fs.ErrPermission) }

// absent reports whether err says that there is no such file or process.
func absent(err error) bool {
	return errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ESRCH)
}

// oldRule reports whether the mode-0 rule of before Linux 5.2 may hold on the
// host: its inputs cost extra to read.
func oldRule(h kernel.Host) bool {
	families, _ := h.Families()
	return families[0] != kernel.F5
}
