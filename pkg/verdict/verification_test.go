package verdict

import (
	"testing"
	"time"

	"github.com/overcheck/overcheck/pkg/kernel"
	"github.com/overcheck/overcheck/pkg/size"
)

func TestCompare(t *testing.T) {
	yes := kernel.Answer{Admitted: true, Refused: -1, Held: time.Millisecond}
	no := kernel.Answer{Refused: 0, Held: time.Microsecond}
	f := facts()
	r := f.Request(true, size.GiB)
	open := facts()
	open.Process.ChargeMin, open.Process.ChargeMax = 0, 8*size.GiB
	open.Host.Mode = kernel.Never
	for _, tt := range []struct {
		name    string
		f       kernel.Facts
		answers []kernel.Answer
		want    kernel.Outcome
		agrees  bool
	}{
		{"both say yes", f, []kernel.Answer{yes}, kernel.Succeeds, true},
		{"the kernel says no", f, []kernel.Answer{no}, kernel.Fails, false},
		{"the model is not certain", open, []kernel.Answer{no}, kernel.Fails, true},
		{"with and without the capability, alike", f, []kernel.Answer{yes, yes}, kernel.Succeeds, true},
		{"it depends on the capability", f, []kernel.Answer{no, yes}, kernel.Uncertain, true},
	} {
		v := Compare(tt.f, tt.f.Host, "redis-server", []kernel.Request{r}, tt.answers)
		if v.Kernel != tt.want || v.Agrees != tt.agrees || (len(v.Findings) == 0) != tt.agrees {
			t.Errorf("%s: kernel %s, agrees %v, findings %v", tt.name, v.Kernel, v.Agrees, v.Findings)
		}
		if tt.want == kernel.Fails && (v.Refused == nil || v.Refused.Mapping != f.Mappings[0]) {
			t.Errorf("%s: refused at %+v", tt.name, v.Refused)
		}
	}
}

// TestOthersAreNotTheModelsFault: somebody commits a GiB while the kernel is asked.
func TestOthersAreNotTheModelsFault(t *testing.T) {
	f := facts()
	f.Host.Mode = kernel.Never
	after := f.Host
	after.CommittedAS += size.GiB
	no := []kernel.Answer{{Refused: 0}}
	r := []kernel.Request{f.Request(true, size.GiB)}
	if v := Compare(f, after, "redis-server", r, no); !v.Agrees || v.Kernel != kernel.Fails {
		t.Errorf("agrees %v, kernel %s", v.Agrees, v.Kernel)
	}
	if v := Compare(f, f.Host, "redis-server", r, no); v.Agrees {
		t.Error("nobody else did anything, and the model is not blamed")
	}
}

// TestBrokenModelIsCaught: facts with a wrong constant, judged, against what a
// kernel without the mistake answers.
func TestBrokenModelIsCaught(t *testing.T) {
	f := facts()
	f.Host.MemTotal = 50 * size.MiB // were the rule "half of RAM", say
	v := Compare(f, f.Host, "redis-server", []kernel.Request{f.Request(true, size.GiB)}, []kernel.Answer{{Admitted: true, Refused: -1}})
	if v.Agrees || len(v.Findings) != 1 || v.Findings[0].ID != "model-disagrees" {
		t.Errorf("%+v", v)
	}
}
