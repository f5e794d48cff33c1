package main

import (
	"github.com/overcheck/overcheck/pkg/kernel"
)

func explainLog(s streams, o explainOptions, p settings, f kernel.Facts) error { return nil }
