package size

import (
	"math"
	"testing"
)

func TestStringAtEachBoundaryAndBelow(t *testing.T) {
	for _, tt := range []struct {
		in   Bytes
		want string
	}{
		{0, "0 B"},
		{1, "1 B"},
		{1023, "1023 B"},
		{KiB, "1.00 KiB"},
		{-1, "-1 B"},
		{-132 * KiB, "-132.00 KiB"},
		{MiB - 6*B, "1023.99 KiB"},
		{MiB - 5*B, "1.00 MiB"}, // 1023.995 KiB would round to "1024.00 KiB"
		{MiB - 1, "1.00 MiB"},
		{MiB, "1.00 MiB"},
		{GiB - 6*KiB, "1023.99 MiB"},
		{GiB - 1, "1.00 GiB"},
		{12 * GiB, "12.00 GiB"},
		{TiB, "1.00 TiB"},
		{PiB, "1.00 PiB"},
		{math.MaxInt64, "8192.00 PiB"},
		{math.MinInt64, "-8192.00 PiB"},
	} {
		if got := tt.in.String(); got != tt.want {
			t.Errorf("%d: got %q, want %q", int64(tt.in), got, tt.want)
		}
	}
}

func TestScaleGivesOneUnitToAColumn(t *testing.T) {
	if got := Scale(3*MiB, -2*GiB, 0); got != Unit(GiB) {
		t.Errorf("got unit %d, want GiB", got)
	}
	if got := (3 * MiB).In(Unit(GiB)); got != "0.00 GiB" {
		t.Errorf("got %q", got)
	}
	if got := Scale(); got != Unit(B) {
		t.Errorf("no values: got unit %d, want B", got)
	}
}

func TestParse(t *testing.T) {
	for in, want := range map[string]Bytes{
		"0B": 0, "4096B": 4096, "12GiB": 12 * GiB, "1.5 MiB": 1536 * KiB, "-1KiB": -KiB, "2TiB": 2 * TiB,
	} {
		if got, err := Parse(in); err != nil || got != want {
			t.Errorf("Parse(%q) = %d, %v, want %d", in, got, err, want)
		}
	}
	for _, in := range []string{"", "12", "12G", "12GB", "GiB", "1e3GiB", "0x10GiB", "9000000PiB", "1.5B", "NaNGiB", "infGiB", "1_0GiB", "12gib"} {
		if got, err := Parse(in); err == nil {
			t.Errorf("Parse(%q) = %d, want an error", in, got)
		}
	}
}

// FuzzParse: whatever parses, prints as something that parses to within the
// rounding of two decimals.
func FuzzParse(f *testing.F) {
	for _, s := range []string{"12GiB", "1.5MiB", "-1KiB", "1023.995KiB", "7B"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		b, err := Parse(s)
		if err != nil {
			return
		}
		again, err := Parse(b.String())
		if err != nil && b > -PiB*8191 && b < PiB*8191 {
			t.Fatalf("%q parsed to %d, printed as %q, which does not parse: %v", s, b, b.String(), err)
		}
		if diff := math.Abs(float64(again - b)); err == nil && diff > 0.006*float64(Scale(b)) {
			t.Fatalf("%q: %d printed as %q, off by %g", s, b, b.String(), diff)
		}
	})
}
