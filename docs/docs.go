// Package docs holds the manual's chapters, which overcheck explain prints.
package docs

import (
	"embed"
	"io/fs"
	"path"
	"strings"
)

//go:embed findings/*.md concepts/*.md
var chapters embed.FS

// Chapter is one page of the manual, about a finding or a concept.
type Chapter struct {
	ID      string // as a finding's: "commit-limit-too-low"
	Finding bool
	Text    string // Markdown that reads well as it is, in 80 columns
}

// Chapters returns all of them, by kind and id.
func Chapters() (all []Chapter) {
	for _, kind := range []string{"concepts", "findings"} {
		names, _ := fs.Glob(chapters, kind+"/*.md") // the pattern is right
		for _, name := range names {
			text, _ := chapters.ReadFile(name) // embedded
			all = append(all, Chapter{strings.TrimSuffix(path.Base(name), ".md"), kind == "findings", string(text)})
		}
	}
	return all
}

// Find returns the chapters of an id: one may be a concept and a finding.
func Find(id string) (found []Chapter) {
	for _, c := range Chapters() {
		if c.ID == id {
			found = append(found, c)
		}
	}
	return found
}

// Summary is the chapter's first paragraph, on one line.
func (c Chapter) Summary() string {
	_, rest, _ := strings.Cut(c.Text, "\n")
	first, _, _ := strings.Cut(strings.TrimSpace(rest), "\n\n")
	return strings.Join(strings.Fields(first), " ")
}
