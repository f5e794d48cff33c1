package verdict

import (
	"fmt"

	"github.com/overcheck/overcheck/pkg/kernel"
	"github.com/overcheck/overcheck/pkg/size"
)

// Verification holds the kernel's own answer beside the model's.
type Verification struct {
	Schema   string `json:"schema"`
	PID      *int   `json:"pid"` // nil: a size was asked about, not a process
	Subject  string `json:"subject"`
	Mode     int    `json:"mode"`
	ModeName string `json:"mode_name"`
	// Kernel is what the kernel answered; Uncertain where it was asked with and
	// without CAP_SYS_ADMIN, which of them holds is not known, and it matters.
	Kernel kernel.Outcome   `json:"kernel"`
	Model  kernel.Admission `json:"model"`
	// Agrees is false only where both are certain and differ.
	Agrees   bool             `json:"agrees"`
	Asked    Asked            `json:"asked"`
	Refused  *kernel.Blocking `json:"refused_mapping"`
	Findings []Finding        `json:"findings"`
	// Facts are what the model judged: with them the disagreement can be judged
	// again elsewhere.
	Facts kernel.Facts `json:"facts"`
}

// Asked is what was put to the kernel.
type Asked struct {
	Mappings int        `json:"mappings"`
	Bytes    size.Bytes `json:"bytes"`
	// Adjusted is the part of Bytes that makes up for the prober's own charge and
	// its own share of the user reserve; negative if it asked for less.
	Adjusted size.Bytes `json:"adjusted_bytes"`
	HeldNS   int64      `json:"held_ns"` // the longest that anything was charged
}

// Compare puts answers, one for each privilege that the process may have, beside
// the model's verdict of the mode in force. after is the host as it was when the
// answers had come: where what others did in between changes the model's verdict,
// the model is not held to it.
func Compare(f kernel.Facts, after kernel.Host, subject string, requests []kernel.Request, answers []kernel.Answer) Verification {
	v := Verification{
		Schema: Schema, Subject: subject, Mode: int(f.Host.Mode), ModeName: f.Host.Mode.String(),
		Model: f.Admit(f.Host.Mode), Findings: []Finding{}, Facts: f,
	}
	if f.Process.Source != kernel.Assumed {
		v.PID = &f.Process.PID
	}
	for i, a := range answers {
		o := kernel.Succeeds
		if !a.Admitted {
			o = kernel.Fails
			if v.PID != nil {
				m := f.Mappings[requests[i].Index[a.Refused]]
				v.Refused = &kernel.Blocking{Mapping: m, Length: m.Size()}
			}
		}
		if i > 0 && o != v.Kernel {
			o = kernel.Uncertain
		}
		v.Kernel = o
		v.Asked.HeldNS = max(v.Asked.HeldNS, a.Held.Nanoseconds())
	}
	if v.Kernel != kernel.Fails {
		v.Refused = nil
	}
	r := requests[0]
	v.Asked.Mappings, v.Asked.Adjusted = len(r.Sizes), r.Adjusted
	for _, b := range r.Sizes {
		v.Asked.Bytes += b
	}
	then := f
	then.Host = after
	model := v.Model.Outcome
	if then.Admit(f.Host.Mode).Outcome != model {
		model = kernel.Uncertain
	}
	v.Agrees = v.Kernel == model || v.Kernel == kernel.Uncertain || model == kernel.Uncertain
	if !v.Agrees {
		v.Findings = append(v.Findings, Finding{
			ID: "model-disagrees", Severity: "error", Title: "the kernel's answer is not the model's",
			Detail: fmt.Sprintf("asked, the kernel says %q; overcheck's model says %q. The kernel is right; please report it with the output of -o json", v.Kernel, v.Model.Outcome),
		})
	}
	return v
}
