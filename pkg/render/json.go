// Package render writes Reports, as text for people and as JSON for programs. It
// computes nothing: every number and every verdict is in the Report.
package render

import (
	"bytes"
	"encoding/json"
	"io"

	"github.com/overcheck/overcheck/pkg/verdict"
)

// Format writes reports to w in one go. list: several were asked for, however
// many there are.
type Format func(w io.Writer, reports []verdict.Report, list bool) error

// JSON writes the one report as an object, or an object that lists them.
func JSON(w io.Writer, reports []verdict.Report, list bool) error {
	var v any = verdict.Reports{Schema: verdict.Schema, Reports: reports}
	if !list {
		v = reports[0]
	}
	return writeJSON(w, v)
}

func writeJSON(w io.Writer, v any) error {
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
