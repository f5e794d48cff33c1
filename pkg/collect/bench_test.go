package collect

import (
	"os"
	"testing"
)

func BenchmarkHost(b *testing.B) {
	for b.Loop() {
		c, err := New("/proc", "/sys", os.Getpagesize())
		if err != nil {
			b.Fatal(err)
		}
		if _, err := c.Host(false); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkProcess(b *testing.B) {
	c, h := live(b)
	for b.Loop() {
		if _, err := c.Process(1, h); err != nil {
			b.Fatal(err)
		}
	}
}
