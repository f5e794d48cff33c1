package probe

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// KernelLog returns the kernel's log buffer, leaving it as it is: lines such as
//
//	<4>[ 1234.567890] __vm_enough_memory: pid: 7, comm: sh, bytes: 135168 not enough memory for the allocation
//
// It wants CAP_SYSLOG where kernel.dmesg_restrict is 1.
func KernelLog() ([]byte, error) {
	n, err := unix.Klogctl(unix.SYSLOG_ACTION_SIZE_BUFFER, nil)
	if err != nil {
		return nil, fmt.Errorf("the kernel's log: %w", err)
	}
	b := make([]byte, n)
	if n, err = unix.Klogctl(unix.SYSLOG_ACTION_READ_ALL, b); err != nil {
		return nil, fmt.Errorf("the kernel's log: %w", err)
	}
	return b[:n], nil
}
