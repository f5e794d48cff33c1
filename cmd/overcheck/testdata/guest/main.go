// Command guest is the init of a throw-away virtual machine: it mounts what the
// tests need, runs the program named on the kernel's command line, and powers
// off.
//
//	guest.exec=/oracle.test,-test.v    the program and its arguments
//	guest.env=A=1,B=2                  its environment
//	guest.swap=/dev/nvme0n1            swap to turn on
//	guest.hugepages=8                  huge pages to reserve
//	guest.capture=1                    print the machine as a txtar instead
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
	if dev := arg["guest.swap"]; dev != "" {
		err = errors.Join(err, swapon(dev))
	}
	if err != nil {
		return err
	}
	if arg["guest.capture"] != "" {
		return capture()
	}
	program := strings.Split(arg["guest.exec"], ",")
	cmd := exec.Command(program[0], program[1:]...)
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stdout
	cmd.Env = append(strings.Split(arg["guest.env"], ","), "TMPDIR=/tmp")
	return cmd.Run()
}

// capture prints what pkg/collect reads of this machine and of a process in a
// limited cgroup; init stands in for overcheck. An explicit list of files: never
// a command line or an environment.
func capture() error {
	const cgroup = "/sys/fs/cgroup/app/web"
	victim := exec.Command("/victim", "anon=67108864", "noreserve=33554432", "dontfork=4194304", "touched=1048576", "file-private=8192")
	hold, err := victim.StdinPipe()
	if err != nil {
		return err
	}
	defer hold.Close()
	ready, err := victim.StdoutPipe()
	if err != nil {
		return err
	}
	if err := errors.Join(os.MkdirAll(cgroup, 0o755), os.WriteFile("/sys/fs/cgroup/app/cgroup.subtree_control", []byte("+pids +memory"), 0), victim.Start()); err != nil {
		return err
	}
	if _, err := ready.Read(make([]byte, 16)); err != nil {
		return err
	}
	pid := fmt.Sprint(victim.Process.Pid)
	for file, text := range map[string]string{"app/pids.max": "64", "app/web/memory.max": "67108864", "app/web/cgroup.procs": pid} {
		if err := os.WriteFile("/sys/fs/cgroup/"+file, []byte(text), 0); err != nil {
			return err
		}
	}
	files := []string{"/sys/devices/system/cpu/online", "/sys/devices/system/cpu/present"}
	for _, f := range strings.Fields("sys/kernel/osrelease sys/kernel/version sys/kernel/threads-max sys/kernel/pid_max sys/vm/overcommit_memory " +
		"sys/vm/overcommit_ratio sys/vm/overcommit_kbytes sys/vm/admin_reserve_kbytes sys/vm/user_reserve_kbytes meminfo vmstat zoneinfo loadavg") {
		files = append(files, "/proc/"+f)
	}
	links := []string{"proc/self 1"}
	for _, p := range []string{pid, "1"} {
		for _, f := range strings.Fields("stat status statm comm maps smaps limits cgroup mountinfo uid_map") {
			files = append(files, "/proc/"+p+"/"+f)
		}
		for _, ns := range strings.Fields("user pid pid_for_children cgroup") {
			if to, err := os.Readlink("/proc/" + p + "/ns/" + ns); err == nil {
				links = append(links, "proc/"+p+"/ns/"+ns+" "+to)
			}
		}
	}
	for _, dir := range []string{cgroup, "/sys/fs/cgroup/app"} {
		for _, f := range strings.Fields("pids.max pids.current memory.max memory.current memory.stat memory.swap.max memory.swap.current") {
			files = append(files, dir+"/"+f)
		}
	}
	fmt.Println("CAPTURE begins")
	for _, f := range files {
		if b, err := os.ReadFile(f); err == nil {
			fmt.Printf("-- %s --\n%s", f[1:], b)
		}
	}
	fmt.Printf("-- links --\n%s\nCAPTURE ends\n", strings.Join(links, "\n"))
	return nil
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
