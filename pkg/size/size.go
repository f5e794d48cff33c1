// Package size holds quantities of memory: signed, so that a shortfall is a
// value like any other, and printed in IEC units (1 KiB = 1024 bytes).
package size

import (
	"fmt"
	"math"
	"strconv"
	"strings"
)

// Bytes is a quantity of memory in bytes. It may be negative (a shortfall).
type Bytes int64

// The IEC units that Bytes prints and parses.
const (
	B   Bytes = 1
	KiB       = 1024 * B
	MiB       = 1024 * KiB
	GiB       = 1024 * MiB
	TiB       = 1024 * GiB
	PiB       = 1024 * TiB
)

// Unit is one of the constants B to PiB: what a printed column is counted in.
type Unit Bytes

// units is ordered from the largest down, the order in which both printing and
// parsing try them.
func units() []struct {
	Unit
	name string
} {
	return []struct {
		Unit
		name string
	}{{Unit(PiB), "PiB"}, {Unit(TiB), "TiB"}, {Unit(GiB), "GiB"}, {Unit(MiB), "MiB"}, {Unit(KiB), "KiB"}, {Unit(B), "B"}}
}

// String prints b with two decimals in the largest unit in which it is at
// least one, whole bytes without decimals: "11.20 GiB", "-132.00 KiB", "0 B".
func (b Bytes) String() string { return b.In(Scale(b)) }

// Abs returns the magnitude of b.
func (b Bytes) Abs() Bytes { return max(b, -b) }

// In prints b in the unit u, so that every row of a column can share one.
func (b Bytes) In(u Unit) string {
	for _, e := range units() {
		if e.Unit == u && u != Unit(B) {
			return strconv.FormatFloat(round2(float64(b)/float64(u)), 'f', 2, 64) + " " + e.name
		}
	}
	return strconv.FormatInt(int64(b), 10) + " B"
}

// Scale returns the unit for a column: the one in which the largest magnitude
// among bs prints as at least 1, after rounding, so that no value ever reads
// "1024.00 KiB".
func Scale(bs ...Bytes) Unit {
	var largest float64
	for _, b := range bs {
		largest = max(largest, math.Abs(float64(b)))
	}
	for _, e := range units() {
		next := float64(e.Unit)
		// 1023.995 KiB rounds to 1024.00 KiB: it belongs to the unit above.
		if largest >= next || (e.Unit > Unit(KiB) && round2(largest/(next/1024)) >= 1024) {
			return e.Unit
		}
	}
	return Unit(B)
}

func round2(f float64) float64 { return math.Round(f*100) / 100 }

// Parse reads a quantity with an IEC unit: "12GiB", "1.5 MiB", "4096B". A unit
// is required, and SI units are refused: "12GB" could mean either.
func Parse(s string) (Bytes, error) {
	t := strings.TrimSpace(s)
	for _, e := range units() {
		num, ok := strings.CutSuffix(t, e.name)
		if !ok {
			continue
		}
		num = strings.TrimSpace(num)
		if n, err := strconv.ParseInt(num, 10, 64); err == nil {
			if n > math.MaxInt64/int64(e.Unit) || n < math.MinInt64/int64(e.Unit) {
				return 0, fmt.Errorf("size %q: too large", s)
			}
			return Bytes(n) * Bytes(e.Unit), nil
		}
		f, err := strconv.ParseFloat(num, 64)
		if err != nil || e.Unit == Unit(B) || strings.ContainsAny(num, "eExXpP_nN") {
			break
		}
		if math.Abs(f)*float64(e.Unit) >= math.MaxInt64 {
			return 0, fmt.Errorf("size %q: too large", s)
		}
		return Bytes(math.Round(f * float64(e.Unit))), nil
	}
	return 0, fmt.Errorf("size %q: want a number and one of the units B, KiB, MiB, GiB, TiB, PiB, as in 12GiB", s)
}
