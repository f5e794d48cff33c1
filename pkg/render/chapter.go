package render

import (
	"fmt"
	"io"
	"strings"

	"github.com/overcheck/overcheck/docs"
)

// Chapter writes a page of the manual for a terminal.
func Chapter(w io.Writer, c docs.Chapter, colored bool) error {
	t := text{styles: newStyles(colored)}
	for line := range strings.Lines(c.Text) {
		heading := strings.TrimLeft(line, "#")
		if heading == line {
			t.WriteString(strings.ReplaceAll(line, "`", ""))
			continue
		}
		t.line("%s", t.key(strings.TrimSpace(heading)))
	}
	_, err := w.Write(t.Bytes())
	return err
}

// Contents writes the list of the chapters.
func Contents(w io.Writer, all []docs.Chapter, colored bool) error {
	t := text{styles: newStyles(colored)}
	widest := 0
	for _, c := range all {
		widest = max(widest, len(c.ID))
	}
	for i, c := range all {
		if i == 0 || all[i-1].Finding != c.Finding {
			if i > 0 {
				t.line("")
			}
			t.line("%s", t.key(map[bool]string{false: "concepts", true: "findings"}[c.Finding]))
		}
		sentence, _, _ := strings.Cut(c.Summary(), ". ")
		t.wrapped(fmt.Sprintf("  %-*s  ", widest, c.ID), strings.ReplaceAll(strings.TrimSuffix(sentence, "."), "`", ""))
	}
	_, err := w.Write(t.Bytes())
	return err
}
