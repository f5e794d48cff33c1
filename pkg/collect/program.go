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
	"github.com/overcheck/overcheck/pkg/smaps"
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
// JVM, and how it was told to start processes. It needs the libraries, which Maps
// and Smaps find.
func (c *Collector) Runtime(p *kernel.Process) {
	for _, lib := range p.Program.Libraries {
		if path.Base(lib) == "libjvm.so" {
			p.Program.JavaLaunch = c.launchMechanism(strconv.Itoa(p.PID))
			p.Program.Java = c.javaRelease(p.PID, lib)
		}
	}
}

// javaRelease looks for the release file above libjvm.so: lib/server/libjvm.so,
// before JDK 9 lib/amd64/server/libjvm.so and in jre.
func (c *Collector) javaRelease(pid int, lib string) string {
	root, err := os.OpenRoot(filepath.Join(c.proc, strconv.Itoa(pid), "root"))
	if err != nil {
		return ""
	}
	defer func() { _ = root.Close() }() // opened for reading
	dir := path.Dir(lib)
	for range 4 {
		dir = path.Dir(dir)
		name := strings.TrimPrefix(path.Join(dir, "release"), "/")
		// Another process chose what is there: nothing whose opening blocks.
		info, err := root.Stat(name)
		if err != nil || !info.Mode().IsRegular() {
			continue
		}
		f, err := root.OpenFile(name, os.O_RDONLY|syscall.O_NONBLOCK, 0)
		if err != nil {
			continue
		}
		version := javaVersion(f)
		_ = f.Close()
		return version
	}
	return ""
}

// launchMechanism finds jdk.lang.Process.launchMechanism where a JVM is told it:
// _JAVA_OPTIONS outweighs the command line, that JDK_JAVA_OPTIONS, and that
// JAVA_TOOL_OPTIONS. "?": some of its options are where they are not read.
func (c *Collector) launchMechanism(pid string) (mechanism string) {
	environ, err := c.read(pid, "environ")
	cmdline, cmdErr := c.read(pid, "cmdline")
	if err != nil || cmdErr != nil {
		return "?"
	}
	variable := func(name string) (words []string) {
		for v := range strings.SplitSeq(environ, "\x00") {
			if value, ok := strings.CutPrefix(v, name+"="); ok {
				words = strings.Fields(value)
			}
		}
		return words
	}
	args := strings.Split(cmdline, "\x00")
	words := slices.Concat(variable("JAVA_TOOL_OPTIONS"), variable("JDK_JAVA_OPTIONS"), javaOptions(args[1:]), variable("_JAVA_OPTIONS"))
	for _, word := range words {
		value, ok := strings.CutPrefix(word, "-Djdk.lang.Process.launchMechanism=")
		switch {
		case ok:
			mechanism = strings.ToUpper(strings.ToValidUTF8(value, "\uFFFD"))
		case strings.HasPrefix(word, "@"), strings.HasPrefix(word, "-XX:Flags="), strings.HasPrefix(word, "-XX:VMOptionsFile="):
			mechanism = "?"
		}
	}
	return mechanism
}

// javaOptions are the arguments that are the JVM's: up to the main class, the
// module or the jar.
func javaOptions(args []string) []string {
	withValue := []string{
		"-cp", "-classpath", "--class-path", "-p", "--module-path", "--upgrade-module-path", "--add-modules", "--limit-modules",
		"--add-reads", "--add-exports", "--add-opens", "--patch-module", "--enable-native-access", "--source",
	}
	for i := 0; i < len(args); i++ {
		switch arg := args[i]; {
		case slices.Contains(withValue, arg):
			i++
		case arg == "-jar", arg == "-m", arg == "--module", !strings.HasPrefix(arg, "-") && !strings.HasPrefix(arg, "@"):
			return args[:i]
		}
	}
	return args
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
// it was built with, and the functions that it and its libraries import to start
// processes. It reads some of each file, which may come from the disk.
func (c *Collector) Imports(p *kernel.Process) {
	f, err := os.Open(filepath.Join(c.proc, strconv.Itoa(p.PID), "exe"))
	if err != nil {
		return
	}
	defer func() { _ = f.Close() }() // opened for reading
	if info, err := buildinfo.Read(&budget{f, mostRead}); err == nil {
		p.Program.Go = info.GoVersion
		for _, s := range info.Settings {
			if s.Key == "GOARCH" {
				p.Program.GoArch = s.Value
			}
		}
	}
	var found kernel.Imports
	if err := importsOf(&found, f, p.Program.Exe); err != nil {
		return
	}
	if len(found.Fork) > 0 || c.librariesImport(&found, p) {
		p.Program.Imports = &found
	}
}

// librariesImport looks through the libraries; whole is false where one of them
// cannot be read, or none of them is a C library: then the program has that in
// itself, with fork in it.
func (c *Collector) librariesImport(found *kernel.Imports, p *kernel.Process) (whole bool) {
	pid := strconv.Itoa(p.PID)
	where, err := c.programs(pid)
	if err != nil {
		return false
	}
	libc := false
	for _, lib := range p.Program.Libraries {
		if isLibc(path.Base(lib)) {
			libc = true
			continue
		}
		f, err := c.openMapped(pid, lib, where[lib])
		if err != nil {
			return false
		}
		err = importsOf(found, f, lib)
		_ = f.Close()
		if err != nil {
			return false
		}
	}
	return libc
}

// programs are the files that are mapped executable, with an address range of each
// as map_files names it.
func (c *Collector) programs(pid string) (map[string]string, error) {
	f, err := open(filepath.Join(c.proc, pid, "maps"))
	if err != nil {
		return nil, err
	}
	defer f.close()
	where := map[string]string{}
	return where, smaps.Scan(f, func(e *smaps.Entry) {
		if e.Executable && len(e.Path) > 0 && e.Path[0] == '/' {
			where[strings.ToValidUTF8(string(e.Path), "\uFFFD")] = fmt.Sprintf("%x-%x", uint64(e.Start), uint64(e.End))
		}
	})
}

var errNotRegular = errors.New("not a regular file")

// openMapped opens the very file that is mapped, by map_files, whatever its name
// leads to by now. That takes CAP_CHECKPOINT_RESTORE (before 5.9 CAP_SYS_ADMIN);
// without, the name has to do: there is no privilege then that it could misuse.
func (c *Collector) openMapped(pid, name, addresses string) (*os.File, error) {
	link := filepath.Join(c.proc, pid, "map_files", addresses)
	info, err := os.Stat(link)
	if denied(err) && !strings.HasSuffix(name, deleted) && os.Geteuid() != 0 {
		link = filepath.Join(c.proc, pid, "root", name)
		info, err = os.Stat(link)
	}
	switch {
	case err != nil:
		return nil, err
	case !info.Mode().IsRegular():
		return nil, errNotRegular
	}
	return os.OpenFile(link, os.O_RDONLY|syscall.O_NONBLOCK, 0)
}

// deleted is what the kernel appends to the name of a file that is gone.
const deleted = " (deleted)"

// isLibc tells the files that make up the C library, in which fork lives.
func isLibc(name string) bool {
	name, _, _ = strings.Cut(name, ".so")
	name, _, _ = strings.Cut(name, "-2.") // libc-2.31.so
	return slices.Contains([]string{"libc", "libpthread", "ld-linux-x86-64", "ld-linux-aarch64", "ld-linux", "ld", "ld64", "libc.musl-x86_64", "libc.musl-aarch64", "ld-musl-x86_64", "ld-musl-aarch64"}, name)
}

var (
	errStatic  = errors.New("no dynamic symbols")
	errTooMuch = errors.New("too much to read")
)

// mostRead bounds what is read of one file: it is another process's, and may say
// anything of its sections' sizes.
const mostRead = 16 << 20

// budget reads no more than so many bytes in all.
type budget struct {
	io.ReaderAt
	left int64
}

func (b *budget) ReadAt(p []byte, off int64) (int, error) {
	if b.left -= int64(len(p)); b.left < 0 {
		return 0, errTooMuch
	}
	return b.ReaderAt.ReadAt(p, off)
}

// importsOf adds what one ELF file imports.
func importsOf(found *kernel.Imports, r io.ReaderAt, name string) (err error) {
	defer func() {
		if broken := recover(); broken != nil { // debug/elf promises nothing of files made to break it
			err = fmt.Errorf("%s: %v", name, broken)
		}
	}()
	f, err := elf.NewFile(&budget{r, mostRead})
	if err != nil {
		return err
	}
	symbols, err := f.DynamicSymbols()
	switch {
	case errors.Is(err, elf.ErrNoSymbols):
		return errStatic
	case err != nil:
		return err
	}
	add := func(to *[]string) {
		if base := strings.TrimSuffix(path.Base(name), deleted); !slices.Contains(*to, base) {
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
		case "posix_spawn", "posix_spawnp", "pidfd_spawn", "pidfd_spawnp":
			add(&found.PosixSpawn)
		case "system", "popen":
			add(&found.System)
		case "syscall", "dlopen", "wordexp":
			add(&found.Unclear)
		}
	}
	return nil
}
