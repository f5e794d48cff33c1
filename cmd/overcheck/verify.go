package main

import (
	"errors"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/overcheck/overcheck/pkg/kernel"
	"github.com/overcheck/overcheck/pkg/probe"
	"github.com/overcheck/overcheck/pkg/render"
	"github.com/overcheck/overcheck/pkg/size"
	"github.com/overcheck/overcheck/pkg/verdict"
)

func newVerify(s streams) *cobra.Command {
	var (
		o         common
		sizeFlag  string
		transient bool
	)
	c := &cobra.Command{
		Use:   "verify [PID]",
		Short: "Ask the kernel itself, without forking, and compare",
		Long: `verify puts the fork's charges to the kernel itself: for each of the process's
charged mappings it maps as much in its own address space, never touches it, and
unmaps it. That runs the very check that fork() would run, in the mode in force.
Nothing is forked, and of the process only smaps is read.

In modes 0 and 1 no other process can notice; a question that is refused leaves
a line in the kernel's log, since 6.1. In mode 2 the charge is real for the
microseconds that it is held, and in them another process's allocation may be
refused that would have fitted; so it wants --allow-transient-charge there.

Exit codes: 0 the kernel would admit the fork, 1 it would refuse it, or that
depends on a privilege that is not known, or the model disagrees, 2 it could not
be asked. Only the commit check is asked for: 'overcheck pid' judges the other
obstacles too.`,
		Example: `  overcheck verify 4127
  overcheck verify 4127 --allow-transient-charge
  overcheck verify --size 12GiB`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			p, err := o.parse(s)
			if err != nil {
				return err
			}
			return runVerify(s, o, p, args, sizeFlag, transient)
		},
	}
	o.addOutput(c)
	c.Flags().StringVar(&sizeFlag, "size", "", "no process: one mapping of `SIZE`, and as much in many")
	c.Flags().BoolVar(&transient, "allow-transient-charge", false, "in mode 2, charge it for some microseconds: another process may be refused memory meanwhile")
	return c
}

func runVerify(s streams, o common, p settings, args []string, sizeFlag string, transient bool) error {
	if (len(args) == 1) == (sizeFlag != "") {
		return hinted{errors.New("want either a process id or --size"), "see 'overcheck verify --help'"}
	}
	host, err := p.host()
	if err != nil {
		return err
	}
	if why := host.Inapplicable(); why != "" {
		return fmt.Errorf("%w: %s", probe.ErrCannotAsk, why)
	}
	if err := mayCharge(host, transient); err != nil {
		return err
	}
	var worlds []kernel.Facts
	var subjects []string
	if sizeFlag != "" {
		b, err := size.Parse(sizeFlag)
		if err == nil && b <= 0 {
			err = fmt.Errorf("size %q: want more than nothing", sizeFlag)
		}
		if err == nil && b > probe.AddressSpace {
			err = fmt.Errorf("%w: %s does not fit an address space", probe.ErrCannotAsk, b)
		}
		if err != nil {
			return fmt.Errorf("--size: %w", err)
		}
		shell, err := p.collector.Shell(host)
		if err != nil {
			return err
		}
		pages := func(b size.Bytes) size.Bytes { return (b + host.PageSize - 1) / host.PageSize * host.PageSize }
		worlds = append(worlds, ofSizes(host, shell, pages(b)), ofSizes(host, shell, pieces(pages(b))...))
		subjects = []string{"one mapping of " + b.String(), b.String() + " in many mappings"}
	} else {
		pid, err := parsePid(args[0])
		if err != nil {
			return err
		}
		f := kernel.Facts{Host: host}
		if f.Process, err = p.collector.Process(pid, host); err != nil {
			return err
		}
		if err := smaps(p, &f); err != nil {
			return err
		}
		if f.Process.Source != kernel.FromSmaps {
			return fmt.Errorf("%w: this kernel's smaps does not show which mappings are charged", probe.ErrCannotAsk)
		}
		worlds = append(worlds, f)
		subjects = []string{fmt.Sprintf("%s (pid %d): fork", f.Process.Comm, pid)}
	}
	var vs []verdict.Verification
	for i, f := range worlds {
		v, err := verify(p, f, subjects[i], transient)
		if err != nil {
			return err
		}
		vs = append(vs, v)
	}
	write := func(w io.Writer) error { return render.VerificationText(p.colored)(w, vs) }
	if o.output == "json" {
		write = func(w io.Writer) error { return render.VerificationJSON(w, vs) }
	}
	if err := write(s.out); err != nil {
		return err
	}
	for _, v := range vs {
		if v.Kernel != kernel.Succeeds || !v.Agrees {
			return errBad
		}
	}
	return nil
}

// mayCharge refuses to ask in mode 2 unless that was allowed.
func mayCharge(h kernel.Host, transient bool) error {
	if h.Mode != kernel.Never || transient {
		return nil
	}
	return hinted{
		fmt.Errorf("%w: in mode 2 the question itself is charged for some microseconds", probe.ErrCannotAsk),
		"--allow-transient-charge, if another process may be refused memory meanwhile",
	}
}

// verify asks the kernel, and reads the host once more right before: what
// overcheck has charged itself is part of the question, and the mode may have
// changed.
func verify(p settings, f kernel.Facts, subject string, transient bool) (v verdict.Verification, err error) {
	const tries = 8
	for range tries {
		var requests []kernel.Request
		var answers []kernel.Answer
		if f.Host, err = p.host(); err != nil {
			return v, err
		}
		if err := mayCharge(f.Host, transient); err != nil {
			return v, err
		}
		for _, cap := range f.Caps() {
			r, a, err := ask(p, f, cap)
			if err != nil {
				return v, err
			}
			requests, answers = append(requests, r), append(answers, a)
		}
		after, err := p.host()
		if err != nil {
			return v, err
		}
		// overcheck's own heap may have grown, or the mode have changed, in between.
		if after.OwnCharge == f.Host.OwnCharge && after.Mode == f.Host.Mode {
			return verdict.Compare(f, after, subject, requests, answers), nil
		}
	}
	return v, fmt.Errorf("%w: the mode, or what overcheck itself has charged, keeps changing: try again", probe.ErrCannotAsk)
}

// ask puts one question.
func ask(p settings, f kernel.Facts, cap bool) (r kernel.Request, a kernel.Answer, err error) {
	self, err := p.collector.OwnVM()
	if err != nil {
		return r, a, err
	}
	r = f.Request(cap, self)
	if a, err = probe.Ask(r); err != nil {
		return r, a, err
	}
	if r.Excess > 0 && !a.Admitted {
		return r, a, fmt.Errorf("%w: the fork needs %s less than what overcheck itself takes, and even that is refused", probe.ErrCannotAsk, r.Excess)
	}
	return r, a, nil
}

// ofSizes is a process that does not exist, charged for mappings of these sizes.
func ofSizes(h kernel.Host, shell kernel.Process, sizes ...size.Bytes) kernel.Facts {
	p := shell
	p.Charge, p.Largest, p.Charged = 0, 0, len(sizes)
	f := kernel.Facts{Host: h}
	var at kernel.Address
	for _, b := range sizes {
		p.Charge += b
		p.Largest = max(p.Largest, b)
		f.Mappings = append(f.Mappings, kernel.Mapping{Start: at, End: at + kernel.Address(b)})
		at += kernel.Address(b)
	}
	p.ChargeMin, p.ChargeMax, p.LargestMin, p.LargestMax = p.Charge, p.Charge, p.Largest, p.Largest
	p.TotalVM = max(p.TotalVM, p.Charge)
	f.Process = p
	return f
}

// pieces splits b into mappings of 64 MiB, or of a thousandth of it.
func pieces(b size.Bytes) (sizes []size.Bytes) {
	for piece := max(64*size.MiB, b/1000/size.MiB*size.MiB); b > 0; b -= min(b, piece) {
		sizes = append(sizes, min(b, piece))
	}
	return sizes
}
