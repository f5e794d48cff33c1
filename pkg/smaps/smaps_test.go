package smaps

import (
	"fmt"
	"io"
	"os"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/google/go-cmp/cmp"

	"github.com/overcheck/overcheck/pkg/kernel"
	"github.com/overcheck/overcheck/pkg/size"
)

// record is one mapping as Linux 6.18 prints it, shortened, with a key and a
// flag that no kernel has yet.
func record(header, rss, flags string) string {
	return header + "\nSize:                  8 kB\nKernelPageSize:        4 kB\nRss:                   " + rss +
		" kB\nNewfangled:           12 furlongs\nTHPeligible:           0\nVmFlags: " + flags + " \n"
}

const stack = "7ffd10000000-7ffd10021000 rw-p 00000000 00:00 0                          [stack]"

func TestReadSmaps(t *testing.T) {
	in := record("55d000000000-55d000100000 r-xp 00000000 fd:00 131  /usr/bin/a b (deleted)", "4", "rd ex mr mw me sd") +
		record("55d000200000-55d000300000 rw-p 00000000 fd:00 131  /usr/bin/a b (deleted)", "16", "rd wr mr mw me ac zz") +
		record("7f0000000000-7f0040000000 rw-p 00000000 00:00 0 ", "1024", "rd wr mr mw me nr") +
		record("7f0050000000-7f0060000000 rw-p 00000000 00:00 0 ", "0", "rd wr mr mw me dc ac") +
		record("7f0060000000-7f0070000000 rw-p 00000000 00:00 0 ", "0", "rd wr mr mw me wf ac") +
		record("7f0070000000-7f0080000000 rw-s 00000000 00:01 9  /memfd:x\\012y (deleted)", "0", "rd wr sh mr mw me ms") +
		record("7f0080000000-7f0090000000 rw-p 00000000 00:0f 9  /anon_hugepage (deleted)", "0", "rd wr mr mw me de nr ht") +
		record("7f0090000000-7f0090001000 ---p 00000000 00:00 0 ", "0", "mr mw me") +
		record("7f00a0000000-7f00a0001000 rw-p 00000000 00:00 0  /x\xff\xfe", "0", "rd wr ac ?? ") +
		record(stack, "20", "rd wr mr mw me gd ac") +
		record("ffffffffff600000-ffffffffff601000 --xp 00000000 00:00 0  [vsyscall]", "0", "ex")
	want := Summary{
		Count: 10, HasFlags: true, Writable: size.MiB + size.GiB + 3*256*size.MiB + 136*size.KiB,
		TotalVM: 2*size.MiB + size.GiB + 4*256*size.MiB + 8*size.KiB + 132*size.KiB,
		Mappings: []kernel.Mapping{
			{Start: 0x55d000200000, End: 0x55d000300000, Resident: 16 * size.KiB, Flags: "rd wr mr mw me ac zz", Path: "/usr/bin/a b (deleted)"},
			{Start: 0x7f0060000000, End: 0x7f0070000000, Flags: "rd wr mr mw me wf ac"},
			{Start: 0x7f00a0000000, End: 0x7f00a0001000, Flags: "rd wr ac ??", Path: "/x\uFFFD"},
			{Start: 0x7ffd10000000, End: 0x7ffd10021000, Resident: 20 * size.KiB, Flags: "rd wr mr mw me gd ac", Path: "[stack]"},
		},
		Charged: 4, Charge: 257*size.MiB + 4*size.KiB + 132*size.KiB, Largest: 256 * size.MiB,
		Noreserve: size.GiB, Dontfork: 256 * size.MiB,
		Programs: []string{"/usr/bin/a b (deleted)"},
	}
	want.ChargeMax, want.LargestMax = want.Charge, want.Largest
	for name, r := range map[string]io.Reader{"at once": strings.NewReader(in), "byte by byte": iotest.OneByteReader(strings.NewReader(in))} {
		got, err := Read(r)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if d := cmp.Diff(want, got); d != "" {
			t.Errorf("%s: (-want +got)\n%s", name, d)
		}
	}
}

func TestReadMapsGivesBounds(t *testing.T) {
	in := `55d000000000-55d000100000 r-xp 00000000 fd:00 131                        /usr/bin/a
55d000200000-55d000300000 rw-p 00000000 fd:00 131                        /usr/bin/a
7f0000000000-7f0040000000 rw-p 00000000 00:00 0 
7f0050000000-7f0060000000 ---p 00000000 00:00 0 
7f0070000000-7f0080000000 rw-s 00000000 00:01 9                          /memfd:x (deleted)
7f0080000000-7f0090000000 rw-p 00000000 00:0f 9                          /anon_hugepage (deleted)
7ffd10000000-7ffd10021000 rw-p 00000000 00:00 0                          [stack]
7ffd10030000-7ffd10032000 r--p 00000000 00:00 0                          [vvar]
7ffd10032000-7ffd10033000 r--p 00000000 00:00 0                          [vvar_vclock]
7ffd10034000-7ffd10036000 r-xp 00000000 00:00 0                          [vdso]
ffffffffff600000-ffffffffff601000 --xp 00000000 00:00 0                  [vsyscall]
`
	got, err := Read(strings.NewReader(in))
	want := Summary{
		Programs: []string{"/usr/bin/a"},
		Count:    10, Writable: size.MiB + size.GiB + 256*size.MiB + 132*size.KiB,
		TotalVM: 2*size.MiB + size.GiB + 3*256*size.MiB + 132*size.KiB + 20*size.KiB,
		Charged: 3, Charge: size.MiB + size.GiB + 132*size.KiB, ChargeMax: 2*size.MiB + size.GiB + 256*size.MiB + 132*size.KiB,
		Largest: size.GiB, LargestMax: size.GiB,
	}
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("(-want +got)\n%s", d)
	}
}

// TestReadSmapsWithoutVmFlags: before Linux 3.8 smaps gives bounds, like maps.
func TestReadSmapsWithoutVmFlags(t *testing.T) {
	got, err := Read(strings.NewReader(stack + "\nSize: 132 kB\nRss:                  20 kB\nKernelPageSize:        4 kB\n" +
		"7ffd20000000-7ffd20400000 rw-p 00000000 00:0f 9  /mnt/huge/x\nKernelPageSize:     2048 kB\n"))
	if err != nil || got.HasFlags || got.ChargeMax != 132*size.KiB || got.Count != 2 {
		t.Errorf("got %+v, %v", got, err)
	}
}

func TestReadSaysWhereItIsSpoiled(t *testing.T) {
	for name, tt := range map[string]struct{ in, want string }{
		"cut off in a line":    {stack + "\nRss:      20", `line 2: cut off: "Rss:      20"`},
		"no header":            {"Rss:   20 kB\n", `line 1: "Rss:   20 kB" before any mapping`},
		"value not a number":   {stack + "\nRss:      abc kB\n", `line 2: "      abc kB": want a number of kB`},
		"value without unit":   {stack + "\nRss:      20\n", `line 2: "      20": want a number of kB`},
		"end before start":     {"2000-1000 rw-p 0 00:00 0 \n", `line 1: "2000-1000 rw-p 0 00:00 0 ": want a mapping: START-END PERMS OFFSET DEV INODE [PATH]`},
		"no permissions":       {"1000-2000\n", `line 1: "1000-2000": want a mapping: START-END PERMS OFFSET DEV INODE [PATH]`},
		"address of 17 digits": {"11111111111111111-2000 rw-p 0 0 0 \n", `line 1: "11111111111111111-2000 rw-p 0 0 0 ": want a mapping: START-END PERMS OFFSET DEV INODE [PATH]`},
		"empty line":           {"\n", `line 1: "": want a mapping: START-END PERMS OFFSET DEV INODE [PATH]`},
		"endless line":         {strings.Repeat("a", 70000), "line 1: longer than 65536 bytes"},
	} {
		if _, err := Read(strings.NewReader(tt.in)); err == nil || err.Error() != tt.want {
			t.Errorf("%s: got %v, want %s", name, err, tt.want)
		}
	}
}

func TestReadOwnSmapsAgreesWithMaps(t *testing.T) {
	read := func(name string) Summary {
		f, err := os.Open(name)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		s, err := Read(f)
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	s, m := read("/proc/self/smaps"), read("/proc/self/maps")
	if !s.HasFlags || m.HasFlags || s.Charge == 0 || s.Charge > m.ChargeMax || s.Largest > m.LargestMax {
		t.Errorf("smaps %+v\nmaps %+v", s, m)
	}
}

func FuzzRead(f *testing.F) {
	f.Add(record(stack, "20", "rd wr ac"))
	f.Add("7ffd10030000-7ffd10032000 r--p 00000000 00:00 0                          [vvar]\n")
	f.Fuzz(func(t *testing.T, in string) {
		s, err := Read(strings.NewReader(in))
		again, err2 := Read(iotest.OneByteReader(strings.NewReader(in)))
		if fmt.Sprint(err) != fmt.Sprint(err2) {
			t.Fatalf("read at once: %v; byte by byte: %v", err, err2)
		}
		if d := cmp.Diff(s, again); err == nil && d != "" {
			t.Fatalf("depends on how it is read:\n%s", d)
		}
		if len(s.Mappings) > s.Charged || s.Charged > s.Count {
			t.Fatalf("%d mappings, %d charged, %d kept", s.Count, s.Charged, len(s.Mappings))
		}
	})
}

// BenchmarkRead parses the smaps of a process with 60,000 mappings.
func BenchmarkRead(b *testing.B) {
	one, err := os.ReadFile("/proc/self/smaps")
	if err != nil {
		b.Fatal(err)
	}
	blank := strings.Index(string(one), "VmFlags")
	one = one[:blank+strings.Index(string(one[blank:]), "\n")+1]
	in := strings.Repeat(string(one), 60000)
	b.SetBytes(int64(len(in)))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := Read(strings.NewReader(in)); err != nil {
			b.Fatal(err)
		}
	}
}
