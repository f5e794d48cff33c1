// Command victim makes itself a process of a given shape and forks when told to.
// The tests compare what overcheck says of it with what its fork() then does.
//
// Each argument is one operation, NAME=BYTES (many=COUNT). When all are done it prints
// "ready". Then it takes orders on standard input, a line each, and answers with
// an error number, 0 for none: "fork 0", "exec 0" to start a program by os/exec,
// "touch N" to map and write N bytes, or "nproc N" to set its RLIMIT_NPROC. "pages N"
// and "hugepages N" make memory of which, while the child of "forkhold 0" lives
// until "release 0", "rewrite N" writes the first N bytes again. "forktime 0" answers
// with the microseconds that a fork takes, the median of a few.
package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Credentials are a thread's own: the thread that overcheck reads, the main
// one, must be the one that drops them and forks.
func init() { runtime.LockOSThread() }

const rw = unix.PROT_READ | unix.PROT_WRITE

func main() {
	if len(os.Args) > 1 && os.Args[1] == "restore" {
		restore(os.Args[2:])
		return
	}
	for _, arg := range os.Args[1:] {
		name, value, _ := strings.Cut(arg, "=")
		n, _ := strconv.ParseUint(value, 10, 64)
		if err := do(name, uintptr(n)); err != nil {
			fmt.Printf("%s: %v\n", arg, err)
			os.Exit(1)
		}
	}
	spareThreads()
	fmt.Println("ready")
	for in := bufio.NewScanner(os.Stdin); in.Scan(); {
		var order string
		var n uint64
		fmt.Sscan(in.Text(), &order, &n)
		var errno unix.Errno
		switch order {
		case "fork":
			errno = fork()
		case "exec":
			errors.As(exec.Command("/bin/true").Run(), &errno)
		case "nproc":
			errno = setNproc(n)
		case "touch":
			errors.As(touched(uintptr(n), rw), &errno)
		case "pages":
			errors.As(pages.make(uintptr(n), unix.MADV_NOHUGEPAGE), &errno)
		case "hugepages":
			errors.As(pages.make(uintptr(n), unix.MADV_HUGEPAGE), &errno)
		case "forkhold":
			errno = pages.forkHold()
		case "rewrite":
			pages.rewrite(uintptr(n))
		case "release":
			errno = pages.release()
		case "forktime":
			fmt.Println(forkTime().Microseconds())
			continue
		}
		fmt.Println(int(errno))
	}
}

// spareThreads has Go's runtime start the threads that it may ever want: where
// RLIMIT_NPROC is reached, one more would be its end.
func spareThreads() {
	var running sync.WaitGroup
	for range 8 {
		running.Go(func() { _ = unix.Nanosleep(&unix.Timespec{Nsec: 2e6}, nil) })
	}
	running.Wait()
}

// restore waits for the end of standard input, then writes each FILE=VALUE.
func restore(settings []string) {
	_, _ = io.Copy(io.Discard, os.Stdin)
	for _, s := range settings {
		name, value, _ := strings.Cut(s, "=")
		if err := os.WriteFile(name, []byte(value), 0); err != nil {
			fmt.Fprintln(os.Stderr, "restore:", err)
			os.Exit(1)
		}
	}
}

func do(name string, n uintptr) error {
	switch name {
	case "anon":
		return discard(mmap(n, rw, anon, -1))
	case "touched":
		return touched(n, rw)
	case "noreserve":
		return discard(mmap(n, rw, anon|unix.MAP_NORESERVE, -1))
	case "protnone":
		return discard(mmap(n, unix.PROT_NONE, anon, -1))
	case "protnone-then-writable":
		return protected(n, unix.PROT_NONE, rw)
	case "writable-then-readonly":
		return protected(n, rw, unix.PROT_READ)
	case "touched-then-readonly":
		return touched(n, unix.PROT_READ)
	case "dontfork":
		return advised(n, unix.MADV_DONTFORK)
	case "wipeonfork":
		return advised(n, unix.MADV_WIPEONFORK)
	case "shared":
		return discard(mmap(n, rw, unix.MAP_SHARED|unix.MAP_ANONYMOUS, -1))
	case "memfd-shared":
		return memfd(n, unix.MAP_SHARED)
	case "memfd-private":
		return memfd(n, unix.MAP_PRIVATE)
	case "file-private":
		return file(n)
	case "growsdown":
		return discard(mmap(n, rw, anon|unix.MAP_GROWSDOWN, -1))
	case "hugetlb":
		return discard(mmap(n, rw, anon|unix.MAP_HUGETLB, -1))
	case "split":
		return split(n)
	case "merged":
		return merged(n)
	case "many":
		return many(int(n))
	case "drop-cap-sys-admin":
		return dropCap()
	}
	return fmt.Errorf("no such operation")
}

const anon = unix.MAP_PRIVATE | unix.MAP_ANONYMOUS

func mmap(n uintptr, prot, flags, fd int) (unsafe.Pointer, error) {
	return unix.MmapPtr(fd, 0, nil, n, prot, flags)
}

func discard(_ unsafe.Pointer, err error) error { return err }

func touched(n uintptr, then int) error {
	p, err := mmap(n, rw, anon, -1)
	if err != nil {
		return err
	}
	b := unsafe.Slice((*byte)(p), n)
	for i := uintptr(0); i < n; i += 4096 {
		b[i] = 1
	}
	return unix.Mprotect(b, then)
}

func protected(n uintptr, first, then int) error {
	p, err := mmap(n, first, anon, -1)
	if err != nil {
		return err
	}
	return unix.Mprotect(unsafe.Slice((*byte)(p), n), then)
}

func advised(n uintptr, advice int) error {
	p, err := mmap(n, rw, anon, -1)
	if err != nil {
		return err
	}
	return unix.Madvise(unsafe.Slice((*byte)(p), n), advice)
}

func memfd(n uintptr, flags int) error {
	fd, err := unix.MemfdCreate("victim", 0)
	if err != nil {
		return err
	}
	if err := unix.Ftruncate(fd, int64(n)); err != nil {
		return err
	}
	return discard(mmap(n, rw, flags, fd))
}

func file(n uintptr) error {
	f, err := os.CreateTemp("", "victim (private) *")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	if err := f.Truncate(int64(n)); err != nil {
		return err
	}
	return discard(mmap(n, rw, unix.MAP_PRIVATE, int(f.Fd())))
}

// split maps n bytes and makes one page in the middle read-only: three mappings.
func split(n uintptr) error {
	p, err := mmap(n, rw, anon, -1)
	if err != nil {
		return err
	}
	return unix.Mprotect(unsafe.Slice((*byte)(unsafe.Add(p, n/2&^4095)), 4096), unix.PROT_READ)
}

// merged makes one mapping of n bytes out of two, neither of which the kernel
// would find too large. A page on either side keeps it from merging further.
func merged(n uintptr) error {
	const page = 4096
	p, err := mmap(n+2*page, unix.PROT_NONE, anon|unix.MAP_NORESERVE, -1)
	if err != nil {
		return err
	}
	p = unsafe.Add(p, page)
	if err := unix.MunmapPtr(p, n); err != nil {
		return err
	}
	half := n / 2 &^ 4095
	for _, part := range []struct{ offset, length uintptr }{{0, half}, {half, n - half}} {
		if _, err := unix.MmapPtr(-1, 0, unsafe.Add(p, part.offset), part.length, rw, anon|unix.MAP_FIXED_NOREPLACE); err != nil {
			return err
		}
	}
	return nil
}

// many makes n mappings of two pages each, too different to merge.
func many(n int) error {
	for i := range n {
		prot := rw
		if i%2 == 0 {
			prot |= unix.PROT_EXEC
		}
		if _, err := mmap(8192, prot, anon, -1); err != nil {
			return err
		}
	}
	return nil
}

// dropCap takes CAP_SYS_ADMIN and CAP_SYS_RESOURCE out of this thread's
// effective set.
func dropCap() error {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if err := unix.Capget(&header, &data[0]); err != nil {
		return err
	}
	data[0].Effective &^= 1<<unix.CAP_SYS_ADMIN | 1<<unix.CAP_SYS_RESOURCE
	return unix.Capset(&header, &data[0])
}

func setNproc(n uint64) unix.Errno {
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NPROC, &limit); err != nil {
		return unix.EINVAL
	}
	limit.Cur = n
	_, _, errno := unix.RawSyscall(unix.SYS_SETRLIMIT, unix.RLIMIT_NPROC, uintptr(unsafe.Pointer(&limit)), 0)
	return errno
}

// held is memory that is shared with a child.
type held struct {
	memory []byte
	child  int
}

var pages held

func (h *held) make(n uintptr, advice int) error {
	p, err := mmap(n, rw, anon, -1)
	if err != nil {
		return err
	}
	h.memory = unsafe.Slice((*byte)(p), n)
	if err := unix.Madvise(h.memory, advice); err != nil {
		return err
	}
	h.rewrite(n)
	return nil
}

func (h *held) rewrite(n uintptr) {
	for i := uintptr(0); i < n; i += 4096 {
		h.memory[i]++
	}
}

// forkHold leaves a child that waits to be killed.
func (h *held) forkHold() unix.Errno {
	pid, _, errno := unix.RawSyscall6(unix.SYS_CLONE, uintptr(unix.SIGCHLD), 0, 0, 0, 0, 0)
	if errno == 0 && pid == 0 {
		// It ends with its parent, and does not hold up who reads from that.
		unix.RawSyscall(unix.SYS_PRCTL, unix.PR_SET_PDEATHSIG, uintptr(unix.SIGKILL), 0)
		unix.RawSyscall(unix.SYS_CLOSE, 0, 0, 0)
		unix.RawSyscall(unix.SYS_CLOSE, 1, 0, 0)
		unix.RawSyscall(unix.SYS_CLOSE, 2, 0, 0)
		for {
			unix.RawSyscall(unix.SYS_PAUSE, 0, 0, 0)
		}
	}
	h.child = int(pid)
	return errno
}

// forkTime is how long fork() keeps the parent, the median of a few.
func forkTime() time.Duration {
	var times []time.Duration
	for range 5 {
		start := time.Now()
		pid, _, _ := unix.RawSyscall6(unix.SYS_CLONE, uintptr(unix.SIGCHLD), 0, 0, 0, 0, 0)
		if pid == 0 {
			for {
				unix.RawSyscall(unix.SYS_EXIT_GROUP, 0, 0, 0)
			}
		}
		times = append(times, time.Since(start))
		_, _ = unix.Wait4(int(pid), nil, 0, nil)
	}
	slices.Sort(times)
	return times[len(times)/2]
}

// release ends the child; ESRCH: it was killed before.
func (h *held) release() unix.Errno {
	var status unix.WaitStatus
	if pid, _ := unix.Wait4(h.child, &status, unix.WNOHANG, nil); pid == h.child {
		return unix.ESRCH
	}
	_ = unix.Kill(h.child, unix.SIGKILL)
	_, _ = unix.Wait4(h.child, &status, 0, nil)
	return 0
}

// fork is fork(2) without the C library: the child ends at once.
func fork() unix.Errno {
	pid, _, errno := unix.RawSyscall6(unix.SYS_CLONE, uintptr(unix.SIGCHLD), 0, 0, 0, 0, 0)
	if errno != 0 {
		return errno
	}
	if pid == 0 {
		for {
			unix.RawSyscall(unix.SYS_EXIT_GROUP, 0, 0, 0)
		}
	}
	var status unix.WaitStatus
	for {
		if _, err := unix.Wait4(int(pid), &status, 0, nil); err != unix.EINTR {
			return 0
		}
	}
}
