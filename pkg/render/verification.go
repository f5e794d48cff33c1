package render

import (
	"fmt"
	"io"
	"time"

	"github.com/overcheck/overcheck/pkg/kernel"
	"github.com/overcheck/overcheck/pkg/verdict"
)

// VerificationText returns the format for people.
func VerificationText(colored bool) func(io.Writer, []verdict.Verification) error {
	return func(w io.Writer, vs []verdict.Verification) error {
		t := text{styles: newStyles(colored)}
		for i, v := range vs {
			if i > 0 {
				t.line("")
			}
			t.verification(v)
		}
		_, err := w.Write(t.Bytes())
		return err
	}
}

// VerificationJSON writes one as an object, several as an object that lists them.
func VerificationJSON(w io.Writer, vs []verdict.Verification) error {
	if len(vs) == 1 {
		return writeJSON(w, vs[0])
	}
	return writeJSON(w, struct {
		Schema        string                 `json:"schema"`
		Verifications []verdict.Verification `json:"verifications"`
	}{verdict.Schema, vs})
}

func (t *text) verification(v verdict.Verification) {
	head := map[kernel.Outcome]string{
		kernel.Succeeds:  "the kernel would admit it",
		kernel.Fails:     "the kernel would REFUSE it with ENOMEM",
		kernel.Uncertain: "it depends on a privilege that is not known",
	}[v.Kernel]
	if !v.Agrees {
		head += ", and the MODEL DISAGREES"
	}
	o := v.Kernel
	if !v.Agrees {
		o = kernel.Fails
	}
	t.line("%s", t.outcome(o, fmt.Sprintf("%s: %s", Printable(v.Subject), head), 0))
	how := "each alone"
	if v.Mode == int(kernel.Never) {
		how = "together"
	}
	t.line("")
	t.wrapped("  asked   ", fmt.Sprintf("%d mappings, %s, %s (mode %d, %s), charged for %s", v.Asked.Mappings, v.Asked.Bytes, how,
		v.Mode, v.ModeName, time.Duration(v.Asked.HeldNS).Round(time.Microsecond)))
	if v.Asked.Adjusted != 0 {
		t.wrapped("          ", fmt.Sprintf("(%s of them to make up for overcheck's own charge and reserve)", v.Asked.Adjusted))
	}
	t.line("  kernel  %s", t.outcome(v.Kernel, v.Kernel.String(), 0))
	model := v.Model.Rule
	if v.Model.Headroom != nil {
		model = fmt.Sprintf("headroom %s: %s", v.Model.Headroom, v.Model.Rule)
	}
	t.wrapped("  model   "+t.outcome(v.Model.Outcome, v.Model.Outcome.String(), 0)+"  ", model)
	if b := v.Refused; b != nil {
		t.wrapped("  ", fmt.Sprintf("Refused at the mapping %x-%x, %s, %s.", uint64(b.Start), uint64(b.End), b.Length, pathName(b.Path)))
	}
	for _, f := range v.Findings {
		t.line("")
		t.wrapped(t.bad(f.ID)+"  ", f.Detail)
	}
}
