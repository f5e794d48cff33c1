package probe

import (
	"errors"
	"fmt"
	"runtime"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"github.com/overcheck/overcheck/pkg/size"
)

// calibrated is what PausePerGiB maps and touches.
const calibrated = 256 * size.MiB

// PausePerGiB measures how long fork takes on this host, in ms per GiB of memory
// in 4 KiB pages: overcheck maps 256 MiB of its own, writes to each page, and
// forks children that exit at once. (In huge pages so little memory takes less
// than what a fork takes anyway.) It refuses where less than four times that is
// free. All is given back before it returns.
func PausePerGiB() (ms float64, err error) {
	var info unix.Sysinfo_t
	if err := unix.Sysinfo(&info); err != nil {
		return 0, err
	}
	if free := size.Bytes(info.Freeram) * size.Bytes(info.Unit); free < 4*calibrated {
		return 0, fmt.Errorf("calibrate: %s of memory is free, and it would take %s for a moment: not done", free, calibrated)
	}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	before, err := forkTime()
	if err != nil {
		return 0, err
	}
	b, err := unix.Mmap(-1, 0, int(calibrated), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	if err != nil {
		return 0, fmt.Errorf("calibrate: mmap: %w", err)
	}
	defer func() { _ = unix.Munmap(b) }()                                                         // mapped above
	if err := unix.Madvise(b, unix.MADV_NOHUGEPAGE); err != nil && !errors.Is(err, unix.EINVAL) { // not built in
		return 0, fmt.Errorf("calibrate: madvise: %w", err)
	}
	for i := 0; i < len(b); i += 4096 {
		b[i] = 1
	}
	with, err := forkTime()
	if err != nil {
		return 0, err
	}
	return max(with-before, 0).Seconds() * 1000 * float64(size.GiB) / float64(calibrated), nil
}

// forkTime is the median time of a few forks.
func forkTime() (time.Duration, error) {
	const tries = 7
	var times []time.Duration
	for range tries {
		start := time.Now()
		pid, _, errno := unix.RawSyscall6(unix.SYS_CLONE, uintptr(unix.SIGCHLD), 0, 0, 0, 0, 0)
		if errno != 0 {
			return 0, fmt.Errorf("calibrate: fork: %w", errno)
		}
		if pid == 0 { // the child: nothing but this
			for {
				_, _, _ = unix.RawSyscall(unix.SYS_EXIT_GROUP, 0, 0, 0)
			}
		}
		times = append(times, time.Since(start))
		var status unix.WaitStatus
		for {
			if _, err := unix.Wait4(int(pid), &status, 0, nil); !errors.Is(err, unix.EINTR) {
				break
			}
		}
	}
	slices.Sort(times)
	return times[tries/2], nil
}
