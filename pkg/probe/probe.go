// Package probe asks the kernel instead of the model: it maps, and never touches,
// memory of the sizes that a fork would be charged for. No fork is made and no
// other process is looked at. Whatever is mapped goes with the process at the
// latest, however that ends.
package probe

import (
	"errors"
	"fmt"
	"runtime"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/overcheck/overcheck/pkg/kernel"
	"github.com/overcheck/overcheck/pkg/size"
)

// ErrCannotAsk says that something of the prober's own would answer in place of the rule.
var ErrCannotAsk = errors.New("the kernel cannot be asked from here")

// AddressSpace is how much can be asked for at once: a process has 128 TiB on
// x86-64.
const AddressSpace = 100 * size.TiB

// Ask puts the request to the kernel that runs, on a thread of its own that
// gives CAP_SYS_ADMIN up where the request is without it.
func Ask(r kernel.Request) (kernel.Answer, error) {
	if err := ready(r); err != nil {
		return kernel.Answer{}, err
	}
	type result struct {
		answer kernel.Answer
		err    error
	}
	done := make(chan result)
	go func() {
		runtime.LockOSThread() // and never unlocked: the thread ends with its credentials
		capable, err := setCap(r.Cap)
		if err == nil && r.Cap && !capable {
			err = fmt.Errorf("%w: the process has CAP_SYS_ADMIN and overcheck has not: run as root", ErrCannotAsk)
		}
		if err != nil {
			done <- result{err: err}
			return
		}
		answer, err := ask(r)
		done <- result{answer, err}
	}()
	got := <-done
	return got.answer, got.err
}

// ready looks for limits of the prober's own that would refuse what the commit
// check would admit.
func ready(r kernel.Request) error {
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_AS, &limit); err != nil {
		return fmt.Errorf("getrlimit RLIMIT_AS: %w", err)
	}
	if limit.Cur != unix.RLIM_INFINITY {
		return fmt.Errorf("%w: RLIMIT_AS is %s: run 'ulimit -v unlimited' first", ErrCannotAsk, size.Bytes(limit.Cur))
	}
	if err := unix.Getrlimit(unix.RLIMIT_DATA, &limit); err == nil && limit.Cur != unix.RLIM_INFINITY {
		return fmt.Errorf("%w: RLIMIT_DATA is %s: run 'ulimit -d unlimited' first", ErrCannotAsk, size.Bytes(limit.Cur))
	}
	var total size.Bytes
	for _, b := range r.Sizes {
		total += b
	}
	if total > AddressSpace {
		return fmt.Errorf("%w: %s does not fit an address space", ErrCannotAsk, total)
	}
	return nil
}

// setCap drops CAP_SYS_ADMIN from this thread's effective set unless it is
// wanted, and reports whether the thread has it.
func setCap(want bool) (has bool, err error) {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if err := unix.Capget(&header, &data[0]); err != nil {
		return false, fmt.Errorf("capget: %w", err)
	}
	const bit = 1 << unix.CAP_SYS_ADMIN
	has = data[0].Effective&bit != 0
	if want || !has {
		return has, nil
	}
	data[0].Effective &^= bit
	if err := unix.Capset(&header, &data[0]); err != nil {
		return has, fmt.Errorf("capset: %w", err)
	}
	return false, nil
}

// ask maps, and unmaps at once what need not be held. It allocates nothing while
// anything is charged. The commit check refuses with ENOMEM; any other error is
// somebody else's.
func ask(r kernel.Request) (answer kernel.Answer, err error) {
	answer = kernel.Answer{Admitted: true, Refused: -1}
	held := make([]unsafe.Pointer, len(r.Sizes))
	start := time.Now()
	mapped := 0
	for i, b := range r.Sizes {
		var p unsafe.Pointer
		if p, err = unix.MmapPtr(-1, 0, nil, uintptr(b), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS); err != nil {
			answer.Admitted, answer.Refused = false, i
			break
		}
		if r.Mode != kernel.Never { // each mapping is judged alone: nothing to gain from holding it
			_ = unix.MunmapPtr(p, uintptr(b)) // of what mmap just gave
			continue
		}
		held[i] = p
		mapped = i + 1
	}
	for i, p := range held[:mapped] {
		_ = unix.MunmapPtr(p, uintptr(r.Sizes[i])) // of what mmap just gave
	}
	answer.Held = time.Since(start)
	if err != nil && !errors.Is(err, unix.ENOMEM) {
		return answer, fmt.Errorf("%w: mmap: %w", ErrCannotAsk, err)
	}
	return answer, nil
}

// NewRule finds out which mode-0 rule the running kernel has, in mode 0 only: a
// mapping of exactly RAM plus swap passes the new one, and never the old, under
// which some of RAM is always spoken for.
func NewRule(h kernel.Host) (newRule bool, err error) {
	if h.Mode != kernel.Heuristic {
		return false, fmt.Errorf("%w: the mode-0 rule can only be asked for in mode 0", ErrCannotAsk)
	}
	if h.MeminfoRewritten {
		return false, fmt.Errorf("%w: lxcfs hides how much RAM there is", ErrCannotAsk)
	}
	r := kernel.Request{Mode: h.Mode, Sizes: []size.Bytes{h.MemTotal + h.SwapTotal}}
	a, err := Ask(r)
	return a.Admitted, err
}
