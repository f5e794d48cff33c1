package main

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/overcheck/overcheck/pkg/kernel"
	"github.com/overcheck/overcheck/pkg/size"
)

// guestConfig is one virtual machine.
type guestConfig struct {
	vmlinuz   string
	memory    string // as QEMU's -m
	cpus      int
	swap      size.Bytes
	hugepages int
}

func (g guestConfig) String() string {
	release := strings.TrimPrefix(filepath.Base(g.vmlinuz), "vmlinuz-")
	return fmt.Sprintf("%s/%s-%dcpu-swap%dM-huge%d", release, g.memory, g.cpus, g.swap/size.MiB, g.hugepages)
}

// TestKernels boots other kernels under QEMU and runs the oracle in them: small
// machines, where the counter's uncertainty, the reserves and overcheck's own
// charge matter most. OVERCHECK_KERNELS lists kernel images, separated by blanks;
// OVERCHECK_KERNELS_FULL=1 asks for every configuration in place of two each;
// OVERCHECK_CAPTURE=DIR writes each guest down there as a fixture, and no more.
func TestKernels(t *testing.T) {
	images := strings.Fields(os.Getenv("OVERCHECK_KERNELS"))
	if len(images) == 0 {
		t.Skip("needs OVERCHECK_KERNELS, a list of kernel images, and qemu-system-x86_64: see make test-kernels")
	}
	initrd := guestInitrd(t)
	shapes, configs := "12", []guestConfig{
		{memory: "512M", cpus: 1},
		{memory: "1G", cpus: 4, swap: 256 * size.MiB, hugepages: 8},
	}
	if os.Getenv("OVERCHECK_KERNELS_FULL") == "1" {
		shapes, configs = "25", nil
		for _, memory := range []string{"256M", "512M", "2G"} {
			for _, cpus := range []int{1, 4} {
				configs = append(configs,
					guestConfig{memory: memory, cpus: cpus},
					guestConfig{memory: memory, cpus: cpus, swap: 256 * size.MiB, hugepages: 8})
			}
		}
	}
	if dir := os.Getenv("OVERCHECK_CAPTURE"); dir != "" {
		for _, image := range images {
			captureGuest(t, image, initrd, dir)
		}
		return
	}
	var all []record
	for _, image := range images {
		for _, config := range configs {
			config.vmlinuz = image
			t.Run(config.String(), func(t *testing.T) {
				records := boot(t, config, initrd, shapes)
				all = append(all, records...)
				wrong, uncertain := count(records)
				t.Logf("%d forks, %d wrong, %d uncertain", len(records), wrong, uncertain)
				if wrong > 0 || len(records) == 0 {
					t.Errorf("%d wrong of %d", wrong, len(records))
				}
			})
		}
	}
	wrong, uncertain := count(all)
	t.Logf("in all %d forks, %d wrong, %d uncertain", len(all), wrong, uncertain)
	if page := os.Getenv("OVERCHECK_ACCURACY"); page != "" {
		rewriteTable(t, page, "kernels", kernelTable(all))
	}
	if out := os.Getenv("OVERCHECK_NDJSON"); out != "" {
		var b bytes.Buffer
		e := json.NewEncoder(&b)
		for _, r := range all {
			if err := e.Encode(r); err != nil {
				t.Fatal(err)
			}
		}
		if err := os.WriteFile(out, b.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// kernelTable is the campaign in Markdown, a row for each kernel and size.
func kernelTable(all []record) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s, `make test-kernels`:\n\n", time.Now().UTC().Format(time.DateOnly))
	b.WriteString("| kernel | RAM, MiB | forks | refused | wrong | uncertain |\n|---|---:|---:|---:|---:|---:|\n")
	row := func(name, ram string, records []record) {
		wrong, uncertain := count(records)
		refused := 0
		for _, r := range records {
			if r.Errno != 0 {
				refused++
			}
		}
		fmt.Fprintf(&b, "| %s | %s | %d | %d | %d | %d |\n", name, ram, len(records), refused, wrong, uncertain)
	}
	type key struct {
		kernel string
		ram    size.Bytes
	}
	groups := map[key][]record{}
	var order []key
	for _, r := range all {
		// One size of guest has a little more or less RAM from kernel to kernel.
		k := key{r.Kernel, (r.RAM/size.MiB + 127) / 128 * 128}
		if groups[k] == nil {
			order = append(order, k)
		}
		groups[k] = append(groups[k], r)
	}
	for _, k := range order {
		row(k.kernel, fmt.Sprint(int64(k.ram)), groups[k])
	}
	row("all", "", all)
	return b.String()
}

// rewriteTable replaces what stands between two marks of a page.
func rewriteTable(t *testing.T, page, mark, table string) {
	t.Helper()
	b, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	begin, end := "<!-- "+mark+" -->\n", "<!-- end of "+mark+" -->"
	before, rest, found := strings.Cut(string(b), begin)
	_, after, closed := strings.Cut(rest, end)
	if !found || !closed {
		t.Fatalf("%s: no marks %q", page, mark)
	}
	if err := os.WriteFile(page, []byte(before+begin+table+end+after), 0o644); err != nil {
		t.Fatal(err)
	}
}

// count compares what was said with what the kernel answered.
func count(records []record) (wrong, uncertain int) {
	for _, r := range records {
		switch admitted := r.Errno == 0; {
		case r.Said.Outcome == kernel.Uncertain:
			uncertain++
		case (r.Said.Outcome == kernel.Succeeds) != admitted:
			wrong++
		}
	}
	return wrong, uncertain
}

// boot runs the oracle in one guest and returns its records.
func boot(t *testing.T, g guestConfig, initrd, shapes string) (records []record) {
	t.Helper()
	out := g.run(t, initrd,
		"guest.exec=/oracle.test,-test.run=^TestOracle,-test.v",
		"guest.env=OVERCHECK_ORACLE=1,OVERCHECK_PREBUILT=/,OVERCHECK_NDJSON=/dev/ttyS0,OVERCHECK_SHAPES="+shapes)
	in := bufio.NewScanner(bytes.NewReader(out))
	in.Buffer(nil, 1<<20)
	for in.Scan() {
		var r record
		if strings.HasPrefix(in.Text(), `{"kernel":`) && json.Unmarshal(in.Bytes(), &r) == nil {
			records = append(records, r)
		}
	}
	return records
}

// captureGuest writes the guest down as a machine for pkg/collect's tests.
func captureGuest(t *testing.T, image, initrd, dir string) {
	t.Helper()
	g := guestConfig{vmlinuz: image, memory: "512M", cpus: 2, swap: 256 * size.MiB, hugepages: 8}
	_, rest, found := strings.Cut(string(g.run(t, initrd, "guest.capture=1")), "CAPTURE begins\n")
	machine, _, ended := strings.Cut(rest, "CAPTURE ends\n")
	if !found || !ended {
		t.Fatalf("%s: no capture", g)
	}
	release := strings.TrimPrefix(filepath.Base(image), "vmlinuz-")
	text := fmt.Sprintf("Captured by TestKernels in a guest with %s, %s.\n%s-- want.json --\n{}\n", g, time.Now().UTC().Format(time.DateOnly), machine)
	if err := os.WriteFile(filepath.Join(dir, "linux-"+release+"-cgroup-v2.txtar"), []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

// run boots the guest and returns what it printed; it must have come to its end.
func (g guestConfig) run(t *testing.T, initrd string, words ...string) []byte {
	t.Helper()
	words = append(words,
		"console=ttyS0", "quiet", "panic=-1", "random.trust_cpu=on", "tsc=reliable", "mitigations=off",
		fmt.Sprintf("guest.hugepages=%d", g.hugepages))
	args := []string{
		"-nodefaults", "-display", "none", "-serial", "stdio", "-monitor", "none", "-no-reboot",
		"-machine", "q35", "-accel", "tcg", "-cpu", "max", "-smp", fmt.Sprint(g.cpus), "-m", g.memory, "-kernel", g.vmlinuz, "-initrd", initrd,
	}
	if g.swap > 0 {
		disk := filepath.Join(t.TempDir(), "swap")
		if err := os.WriteFile(disk, swapHeader(g.swap), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Truncate(disk, int64(g.swap)); err != nil {
			t.Fatal(err)
		}
		args = append(args, "-drive", "file="+disk+",format=raw,if=none,id=s0", "-device", "nvme,drive=s0,serial=swap")
		words = append(words, "guest.swap=/dev/nvme0n1")
	}
	args = append(args, "-append", strings.Join(words, " "))
	// Emulated without KVM, with several CPUs, a kernel now and then dies of code
	// that patches itself ("Oops: int3"): that says nothing of overcheck.
	for try := 1; ; try++ {
		// The bound is for a guest that hangs, not a measure.
		out, err := exec.Command("timeout", append([]string{"600", "qemu-system-x86_64"}, args...)...).CombinedOutput()
		out = bytes.ReplaceAll(out, []byte("\r"), nil)
		if bytes.Contains(out, []byte("Kernel panic")) && try < 3 {
			t.Logf("the guest's kernel panicked: tried again\n%s", plain(out))
			continue
		}
		if err != nil || !bytes.Contains(out, []byte("\nGUEST done rc=0\n")) {
			t.Errorf("%v\n%s", err, plain(out))
		}
		return out
	}
}

// plain is a guest's output without its records.
func plain(out []byte) string {
	var b strings.Builder
	for line := range strings.Lines(string(out)) {
		if !strings.HasPrefix(line, "{") && !strings.HasPrefix(line, "=== ") && !strings.Contains(line, "--- PASS") {
			b.WriteString(line)
		}
	}
	return b.String()
}

// swapHeader is what mkswap writes: version 1, the last page, the magic.
func swapHeader(b size.Bytes) []byte {
	h := make([]byte, 4096)
	h[1024] = 1
	last := uint32(b/4096) - 1
	h[1028], h[1029], h[1030], h[1031] = byte(last), byte(last>>8), byte(last>>16), byte(last>>24)
	copy(h[4086:], "SWAPSPACE2")
	return h
}

// guestInitrd packs init, overcheck, the victim and this very test as a
// compressed cpio archive ("newc").
func guestInitrd(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	oracle := filepath.Join(dir, "oracle.test")
	cmd := exec.Command("go", "test", "-c", "-trimpath", "-ldflags=-s -w", "-o", oracle, ".")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	files := map[string]string{"oracle.test": oracle}
	for pkg, name := range programs() {
		files[name] = build(t, pkg)
	}
	var archive bytes.Buffer
	z := gzip.NewWriter(&archive)
	written := 0
	pad := func(b []byte) []byte { return append(b, make([]byte, -len(b)&3)...) }
	entry := func(name string, mode, major, minor int, data []byte) {
		written++
		header := fmt.Sprintf("070701%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%s\x00",
			written, mode, 0, 0, 1, 0, len(data), 0, 0, major, minor, len(name)+1, 0, name)
		_, _ = z.Write(pad([]byte(header))) // into memory
		_, _ = z.Write(pad(data))
	}
	entry("dev", 0o40755, 0, 0, nil)
	entry("dev/console", 0o20600, 5, 1, nil)
	for name, file := range files {
		b, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		entry(name, 0o100755, 0, 0, b)
	}
	entry("TRAILER!!!", 0, 0, 0, nil)
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	initrd := filepath.Join(dir, "initrd.gz")
	if err := os.WriteFile(initrd, archive.Bytes(), 0o644); err != nil {
		t.Fatal(err)
	}
	return initrd
}
