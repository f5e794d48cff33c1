package collect

import (
	"bufio"
	"debug/buildinfo"
	"debug/elf"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"github.com/overcheck/overcheck/pkg/kernel"
	"github.com/overcheck/overcheck/pkg/size"
)

// program reads which file the process executes, and whether its parent executes
// the same.
func (c *Collector) program(pid string, p *kernel.Process) {
	exe, err := os.Readlink(filepath.Join(c.proc, pid, "exe"))
	if err != nil {
		return
	}
	p.Program.Exe = strings.ToValidUTF8(exe, "\uFFFD")
	own, err := os.Stat(filepath.Join(c.proc, pid, "exe"))
	parent, parentErr := os.Stat(filepath.Join(c.proc, strconv.Itoa(p.Program.PPID), "exe"))
	p.Program.Forked = err == nil && parentErr == nil && os.SameFile(own, parent)
}

// Runtime mends p with what the files of a known runtime say: the version of a
// JVM. It needs the libraries, which Maps and Smaps find.
func (c *Collector) Runtime(p *kernel.Process) {
	for _, lib := range p.Program.Libraries {
		if path.Base(lib) != "libjvm.so" {
			continue
		}
		p.Program.JavaLaunch = c.launchMechanism(strconv.Itoa(p.PID))
		root, err := c.root(p.PID)
		if err != nil {
			return
		}
		defer func() { _ = root.Close() }() // opened for reading
		// lib/server/libjvm.so, before JDK 9 lib/amd64/server/libjvm.so and in jre.
		dir := path.Dir(lib)
		for range 4 {
			dir = path.Dir(dir)
			if f, err := openRegular(root, path.Join(dir, "release")); err == nil {
				p.Program.Java = javaVersion(f)
				_ = f.Close()
				return
			}
		}
	}
}

// launchMechanism finds jdk.lang.Process.launchMechanism where a JVM is told it:
// its command line outweighs JDK_JAVA_OPTIONS, and that JAVA_TOOL_OPTIONS.
func (c *Collector) launchMechanism(pid string) string {
	environ, _ := c.read(pid, "environ") // not readable: not set there, as far as can be known
	cmdline, _ := c.read(pid, "cmdline")
	options := func(name string) (words []string) {
		for variable := range strings.SplitSeq(environ, "\x00") {
			if value, ok := strings.CutPrefix(variable, name+"="); ok {
				words = strings.Fields(value)
			}
		}
		return words
	}
	words := slices.Concat(options("JAVA_TOOL_OPTIONS"), options("JDK_JAVA_OPTIONS"), strings.Split(cmdline, "\x00"))
	slices.Reverse(words) // the last one holds
	for _, word := range words {
		if value, ok := strings.CutPrefix(word, "-Djdk.lang.Process.launchMechanism="); ok {
			return strings.ToUpper(strings.ToValidUTF8(value, "\uFFFD"))
		}
	}
	return ""
}

// javaVersion finds a line such as
//
//	JAVA_VERSION="17.0.15"
func javaVersion(r io.Reader) string {
	lines := bufio.NewScanner(io.LimitReader(r, 64<<10))
	for lines.Scan() {
		if value, ok := strings.CutPrefix(lines.Text(), "JAVA_VERSION="); ok {
			return strings.ToValidUTF8(strings.Trim(value, `"`), "\uFFFD")
		}
	}
	return ""
}

// Imports mends p with what the program's symbols tell: the version of Go that
// it was built with, or else the functions that it and its libraries import to
// start processes. It reads some of each file, which may come from the disk.
func (c *Collector) Imports(p *kernel.Process) {
	exe := filepath.Join(c.proc, strconv.Itoa(p.PID), "exe")
	f, err := os.Open(exe)
	if err != nil {
		return
	}
	defer func() { _ = f.Close() }() // opened for reading
	if info, err := buildinfo.Read(f); err == nil {
		p.Program.Go = info.GoVersion
		return
	}
	var found kernel.Imports
	if err := importsOf(&found, f, p.Program.Exe); err != nil || p.Program.Libraries == nil {
		return
	}
	if len(found.Fork) > 0 || c.librariesImport(&found, p) {
		p.Program.Imports = &found
	}
}

// librariesImport looks through the libraries; whole is false where one of them
// cannot be read.
func (c *Collector) librariesImport(found *kernel.Imports, p *kernel.Process) (whole bool) {
	root, err := c.root(p.PID)
	if err != nil {
		return false
	}
	defer func() { _ = root.Close() }() // opened for reading
	for _, lib := range p.Program.Libraries {
		if isLibc(path.Base(lib)) {
			continue
		}
		f, err := openRegular(root, lib)
		if err != nil {
			return false
		}
		err = importsOf(found, f, lib)
		_ = f.Close()
		if err != nil {
			return false
		}
	}
	return true
}

// isLibc tells the files that make up the C library, in which fork lives.
func isLibc(name string) bool {
	name, _, _ = strings.Cut(name, ".so")
	name, _, _ = strings.Cut(name, "-2.") // libc-2.31.so
	return slices.Contains([]string{"libc", "libpthread", "ld-linux-x86-64", "ld-linux-aarch64", "ld-linux", "ld", "ld64", "libc.musl-x86_64", "libc.musl-aarch64", "ld-musl-x86_64", "ld-musl-aarch64"}, name)
}

// root opens the root directory of a process's mount namespace. What is opened
// below it cannot lead out of it.
func (c *Collector) root(pid int) (*os.Root, error) {
	return os.OpenRoot(filepath.Join(c.proc, strconv.Itoa(pid), "root"))
}

var errNotRegular = errors.New("not a regular file")

// openRegular opens a file whose name another process chose: it must not be one
// whose opening blocks or does something.
func openRegular(root *os.Root, name string) (*os.File, error) {
	name = strings.TrimPrefix(name, "/")
	info, err := root.Stat(name)
	switch {
	case err != nil:
		return nil, err
	case !info.Mode().IsRegular():
		return nil, errNotRegular
	}
	return root.OpenFile(name, os.O_RDONLY|syscall.O_NONBLOCK, 0)
}

var errStatic = errors.New("no dynamic symbols")

// mostSymbols bounds what is read of one file's symbol table: it is another
// process's file, and may say anything.
const mostSymbols = 32 * size.MiB

// importsOf adds what one ELF file imports.
func importsOf(found *kernel.Imports, r io.ReaderAt, name string) (err error) {
	defer func() {
		if broken := recover(); broken != nil { // debug/elf promises nothing of files made to break it
			err = fmt.Errorf("%s: %v", name, broken)
		}
	}()
	f, err := elf.NewFile(r)
	if err != nil {
		return err
	}
	table := f.SectionByType(elf.SHT_DYNSYM)
	if table == nil || int(table.Link) >= len(f.Sections) {
		return errStatic
	}
	if table.Size > uint64(mostSymbols) || f.Sections[table.Link].Size > uint64(mostSymbols) {
		return errors.New("too many symbols")
	}
	symbols, err := f.DynamicSymbols()
	if err != nil {
		return err
	}
	add := func(to *[]string) {
		if base := path.Base(name); !slices.Contains(*to, base) {
			*to = append(*to, strings.ToValidUTF8(base, "\uFFFD"))
		}
	}
	for _, s := range symbols {
		if s.Section != elf.SHN_UNDEF {
			continue
		}
		switch s.Name {
		case "fork", "__fork", "_Fork", "__libc_fork", "daemon", "forkpty", "clone", "__clone":
			add(&found.Fork)
		case "vfork", "__vfork":
			add(&found.Vfork)
		case "posix_spawn", "posix_spawnp":
			add(&found.PosixSpawn)
		case "system", "popen":
			add(&found.System)
		}
	}
	return nil
}
