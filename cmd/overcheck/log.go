package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/overcheck/overcheck/pkg/kernel"
	"github.com/overcheck/overcheck/pkg/loglines"
	"github.com/overcheck/overcheck/pkg/probe"
	"github.com/overcheck/overcheck/pkg/render"
	"github.com/overcheck/overcheck/pkg/size"
	"github.com/overcheck/overcheck/pkg/verdict"
)

// explainLog explains the lines of a log on this host, whose shell f judges. The
// answer is good if none of them can happen here now.
func explainLog(s streams, o explainOptions, p settings, f kernel.Facts) error {
	f, err := p.apply(f)
	if err != nil {
		return err
	}
	in, err := openLog(s, o)
	if err != nil {
		return err
	}
	defer func() { _ = in.Close() }() // opened for reading
	var w render.LogWriter
	switch o.output {
	case "text":
		w = render.LogText(s.out, p.colored)
	case "json":
		w = render.LogJSON(s.out)
	default:
		return fmt.Errorf("--output: %q: want text or json with --log", o.output)
	}
	here := verdict.PossibleHere(f, p.processes(f, 64*size.MiB))
	bad := false
	lines, err := loglines.Scan(in, func(m loglines.Match) {
		e := here.Explain(m)
		warning := m.Cause == loglines.Setting || m.Cause == loglines.THP
		bad = bad || !warning && (e.PossibleHere == nil || *e.PossibleHere)
		w.Match(e)
	})
	if err := errors.Join(err, w.Close(lines)); err != nil {
		return err
	}
	if bad {
		return errBad
	}
	return nil
}

// openLog opens what is to be explained.
func openLog(s streams, o explainOptions) (io.ReadCloser, error) {
	switch {
	case o.kernelLog:
		b, err := probe.KernelLog()
		if errors.Is(err, os.ErrPermission) {
			return nil, hinted{err, "run as root, or pass it: 'dmesg | overcheck explain --log -'"}
		}
		return io.NopCloser(bytes.NewReader(b)), err
	case o.log == "-":
		return io.NopCloser(s.in), nil
	}
	return os.Open(o.log)
}
