// Package render writes Reports, as text for people and as JSON for programs. It
// computes nothing: every number and every verdict is in the Report.
package render

import (
	"bytes"
	"encoding/json"
	"io"

	"github.com/overcheck/overcheck/pkg/verdict"
)

// Format writes reports to w in one go.
type Format func(w io.Writer, reports []verdict.Report) error

// JSON writes one report as an object, several as an object that lists them.
func JSON(w io.Writer, reports []verdict.Report) error {
	var v any = verdict.Reports{Schema: verdict.Schema, Reports: reports}
	if len(reports) == 1 {
		v = reports[0]
	}
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	if err := e.Encode(v); err != nil {
		return err
	}
	_, err := w.Write(b.Bytes())
	return err
}
