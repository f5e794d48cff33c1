// Command guest is the init of a throw-away virtual machine: it mounts what the
// tests need, runs the program named on the kernel's command line, and powers
// off.
//
//	guest.exec=/oracle.test,-test.v    the program and its arguments
//	guest.env=A=1,B=2                  its environment
//	guest.swap=/dev/nvme0n1            swap to turn on
//	guest.hugepages=8                  huge pages to reserve
//	guest.thp=never                    transparent huge pages
//
// Its last line is "GUEST done rc=N"; without it the run proves nothing.
package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

func main() {
	rc := 1
	if err := run(); err == nil {
		rc = 0
	} else {
		fmt.Println("GUEST error:", err)
	}
	fmt.Printf("GUEST done rc=%d\n", rc)
	unix.Sync()
	_ = unix.Reboot(unix.LINUX_REBOOT_CMD_POWER_OFF)
	select {}
}

func run() error {
	for _, m := range []struct{ source, target, kind string }{
		{"proc", "/proc", "proc"},
		{"sysfs", "/sys", "sysfs"},
		{"devtmpfs", "/dev", "devtmpfs"},
		{"tmpfs", "/tmp", "tmpfs"},
		{"cgroup2", "/sys/fs/cgroup", "cgroup2"},
	} {
		if err := os.MkdirAll(m.target, 0o755); err != nil {
			return err
		}
		if err := unix.Mount(m.source, m.target, m.kind, 0, ""); err != nil {
			return fmt.Errorf("mount %s: %w", m.target, err)
		}
	}
	words, err := os.ReadFile("/proc/cmdline")
	if err != nil {
		return err
	}
	arg := map[string]string{}
	for _, w := range strings.Fields(string(words)) {
		if k, v, ok := strings.Cut(w, "="); ok {
			arg[k] = v
		}
	}
	err = errors.Join(
		os.Chmod("/tmp", 0o777),
		os.WriteFile("/proc/sys/kernel/printk", []byte("1"), 0),
		os.WriteFile("/sys/fs/cgroup/cgroup.subtree_control", []byte("+pids +memory"), 0),
	)
	if n := arg["guest.hugepages"]; n != "" {
		err = errors.Join(err, os.WriteFile("/proc/sys/vm/nr_hugepages", []byte(n), 0))
	}
	if mode := arg["guest.thp"]; mode != "" {
		err = errors.Join(err, os.WriteFile("/sys/kernel/mm/transparent_hugepage/enabled", []byte(mode), 0))
	}
	if dev := arg["guest.swap"]; dev != "" {
		err = errors.Join(err, swapon(dev))
	}
	if err != nil {
		return err
	}
	program := strings.Split(arg["guest.exec"], ",")
	cmd := exec.Command(program[0], program[1:]...)
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stdout
	cmd.Env = append(strings.Split(arg["guest.env"], ","), "TMPDIR=/tmp")
	return cmd.Run()
}

// swapon waits for the device, which comes a moment after init.
func swapon(dev string) error {
	for range 200 {
		if _, err := os.Stat(dev); err == nil {
			break
		}
		time.Sleep(20 * time.Millisecond)
	}
	path, err := unix.BytePtrFromString(dev)
	if err != nil {
		return err
	}
	if _, _, errno := unix.Syscall(unix.SYS_SWAPON, uintptr(unsafe.Pointer(path)), 0, 0); errno != 0 {
		return fmt.Errorf("swapon %s: %w", dev, errno)
	}
	return nil
}
