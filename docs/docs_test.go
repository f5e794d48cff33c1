package docs

import (
	"regexp"
	"strings"
	"testing"
)

// TestChapters: each opens with its id and a paragraph, keeps to 78 columns of
// plain words, and refers to chapters that there are.
func TestChapters(t *testing.T) {
	all := Chapters()
	if len(all) < 35 {
		t.Fatalf("%d chapters", len(all))
	}
	for _, c := range all {
		if !strings.HasPrefix(c.Text, "# "+c.ID+"\n\n") || c.Summary() == "" {
			t.Errorf("%s: it does not begin with its id and a summary", c.ID)
		}
		for i, line := range strings.Split(c.Text, "\n") {
			if len([]rune(line)) > 78 || strings.ContainsAny(line, "\t\r") || strings.TrimRight(line, " ") != line {
				t.Errorf("%s:%d: %q", c.ID, i+1, line)
			}
		}
		if c.Finding {
			for _, heading := range []string{"What it means", "How the kernel comes to it", "What to do", "What not to do"} {
				if !strings.Contains(c.Text, "\n## "+heading+"\n") {
					t.Errorf("%s: no section %q", c.ID, heading)
				}
			}
		}
		words := strings.Join(strings.Fields(c.Text), " ")
		for _, m := range regexp.MustCompile("`overcheck explain ([a-z0-9-]+)`").FindAllStringSubmatch(words, -1) {
			if len(Find(m[1])) == 0 {
				t.Errorf("%s: refers to %s, which is not there", c.ID, m[1])
			}
		}
	}
}
