package kernel

import (
	"testing"

	"github.com/overcheck/overcheck/pkg/size"
)

// TestRequestMakesUpForTheProber: what is asked for, plus what is different about
// the prober, is what the fork would be charged plus its reserve.
func TestRequestMakesUpForTheProber(t *testing.T) {
	const own, selfVM = 40 * size.MiB, 3 * size.GiB
	for name, f := range map[string]Facts{
		"a small address space": guest("6.1.0").with(func(f *Facts) { f.Process.TotalVM = 64 * size.MiB }),
		"a large one":           guest("6.1.0").with(func(f *Facts) { f.Process.TotalVM = size.TiB }),
		"no user reserve":       guest("6.1.0").with(func(f *Facts) { f.Host.UserReserve = new(size.Bytes) }),
		"before 3.10":           guest("3.9.6").with(func(f *Facts) { f.Host.UserReserve = nil }),
	} {
		f.Host.Mode, f.Host.OwnCharge = Never, own
		f = f.charged(30*size.MiB, 50*size.MiB, size.MiB)
		for _, cap := range []bool{true, false} {
			r := f.Request(cap, selfVM)
			var asked, last size.Bytes
			for _, b := range r.Sizes {
				asked, last = asked+b, b
			}
			family, _ := f.Host.Families()
			prober := asked + own + sum(f.reserves(family[0], cap, selfVM+asked-last))
			fork := f.Process.Charge + sum(f.reserves(family[0], cap, f.Process.TotalVM))
			near := 2 * page
			if r.Excess > 0 {
				near = size.MiB // how much too much it is need not be exact
			}
			if diff := (prober - fork - r.Excess).Abs(); diff > near {
				t.Errorf("%s, cap %v: the prober asks for %s, the fork for %s", name, cap, prober, fork)
			}
		}
	}
	f := guest("6.1.0").charged(30*size.MiB, 50*size.MiB)
	if r := f.Request(true, selfVM); r.Adjusted != 0 || len(r.Sizes) != 2 || r.Sizes[1] != 50*size.MiB {
		t.Errorf("mode 0 needs no making up: %+v", r)
	}
}

func TestRequestKnowsWhichMappingIsWhich(t *testing.T) {
	f := guest("6.1.0").charged(8*size.MiB, 16*size.MiB, 3*size.GiB, 132*size.KiB)
	f.Host.Mode, f.Host.OwnCharge = Never, 40*size.MiB
	r := f.Request(true, size.GiB)
	if len(r.Sizes) != 2 || r.Index[0] != 2 || r.Index[1] != 3 {
		t.Errorf("the first two are made up for: %+v", r)
	}
}

func TestRequestForLessThanTheProberHas(t *testing.T) {
	f := guest("6.1.0").charged(2*page, page)
	f.Host.Mode, f.Host.OwnCharge = Never, 40*size.MiB
	if r := f.Request(true, size.GiB); len(r.Sizes) != 1 || r.Excess < 39*size.MiB {
		t.Errorf("its own charge is more than the fork's: %+v", r)
	}
}
