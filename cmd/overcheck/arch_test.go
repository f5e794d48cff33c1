package main

import (
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/overcheck/overcheck/docs"
)

const module = "github.com/overcheck/overcheck/"

// TestArrows: who may import whom, of ours and of others.
func TestArrows(t *testing.T) {
	may := map[string][]string{
		"pkg/size":     {},
		"pkg/kernel":   {"pkg/size"},
		"pkg/smaps":    {"pkg/size", "pkg/kernel"},
		"pkg/collect":  {"pkg/size", "pkg/kernel", "pkg/smaps", "github.com/prometheus/procfs"},
		"pkg/loglines": {"pkg/size", "pkg/kernel"},
		"pkg/verdict":  {"pkg/size", "pkg/kernel", "pkg/loglines"},
		"pkg/probe":    {"pkg/size", "pkg/kernel", "golang.org/x/sys/unix"},
		"pkg/render":   {"docs", "pkg/size", "pkg/kernel", "pkg/verdict", "github.com/fatih/color"},
		"docs":         {},
		"cmd/overcheck": {
			"docs", "pkg/collect", "pkg/kernel", "pkg/loglines", "pkg/probe", "pkg/render", "pkg/size", "pkg/verdict",
			"github.com/spf13/cobra", "github.com/mattn/go-isatty",
		},
	}
	out, err := exec.Command("go", "list", "-f", "{{.ImportPath}} {{join .Imports \" \"}}", "../../...").Output()
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(out)) {
		f := strings.Fields(line)
		pkg := strings.TrimPrefix(f[0], module)
		allowed, known := may[pkg]
		if !known {
			t.Errorf("%s: a new room: say here what it may import", pkg)
		}
		for _, path := range f[1:] {
			path = strings.TrimPrefix(path, module)
			if standard := !strings.Contains(path, "."); standard && !strings.HasPrefix(path, "pkg/") && path != "docs" {
				continue
			}
			if !slices.Contains(allowed, path) {
				t.Errorf("%s imports %s", pkg, path)
			}
		}
	}
}

// TestHouseRules: no init, nothing but main exits, and no package below cmd names
// /proc or /sys: the roots are parameters.
func TestHouseRules(t *testing.T) {
	files, err := filepath.Glob("../../*/*/*.go")
	if err != nil || len(files) == 0 {
		t.Fatal(err)
	}
	for _, name := range files {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		file, err := parser.ParseFile(token.NewFileSet(), name, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		inPkg := strings.HasPrefix(name, "../../pkg/")
		ast.Inspect(file, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.FuncDecl:
				if n.Name.Name == "init" && n.Recv == nil {
					t.Errorf("%s: init()", name)
				}
			case *ast.SelectorExpr:
				if x, ok := n.X.(*ast.Ident); ok && x.Name == "os" && n.Sel.Name == "Exit" && filepath.Base(name) != "main.go" {
					t.Errorf("%s: os.Exit", name)
				}
			case *ast.BasicLit:
				if inPkg && n.Kind == token.STRING && regexp.MustCompile("^[\"`](/proc|/sys)[\"`]$").MatchString(n.Value) {
					t.Errorf("%s: %s", name, n.Value)
				}
			}
			return true
		})
	}
}

// TestManual runs every "$ overcheck ..." line of the console blocks in README.md
// and docs: it must not fail to give an answer.
func TestManual(t *testing.T) {
	pages, err := filepath.Glob("../../docs/*.md")
	if err != nil {
		t.Fatal(err)
	}
	bin := build(t, ".")
	dir := t.TempDir()
	if err := os.Symlink(bin, filepath.Join(dir, "overcheck")); err != nil {
		t.Fatal(err)
	}
	ran := 0
	for _, page := range append(pages, "../../README.md") {
		b, err := os.ReadFile(page)
		if err != nil {
			t.Fatal(err)
		}
		for _, block := range regexp.MustCompile("(?ms)^```console\n(.*?)^```").FindAllStringSubmatch(string(b), -1) {
			for _, m := range regexp.MustCompile(`(?m)^\$ (overcheck .*)$`).FindAllStringSubmatch(block[1], -1) {
				cmd := exec.Command("sh", "-c", m[1])
				cmd.Env = append(os.Environ(), "PATH="+dir+":"+os.Getenv("PATH"))
				out, err := cmd.CombinedOutput()
				if err != nil && cmd.ProcessState.ExitCode() != exitBad {
					t.Errorf("%s: $ %s: %v\n%s", filepath.Base(page), m[1], err, out)
				}
				ran++
			}
		}
	}
	if ran == 0 {
		t.Error("the manual has no examples")
	}
}

// TestFindingsHaveChapters: each id that pkg/verdict gives to a finding has a
// chapter, and no chapter is about a finding that is never made.
func TestFindingsHaveChapters(t *testing.T) {
	var source strings.Builder
	for _, name := range []string{"finding.go", "spawn.go", "verification.go"} {
		b, err := os.ReadFile("../../pkg/verdict/" + name)
		if err != nil {
			t.Fatal(err)
		}
		source.Write(b)
	}
	given := map[string]bool{}
	for _, m := range regexp.MustCompile(`(?:Finding\{\s*|ID: +|f\.ID, f\.Title = |near\()"([a-z0-9-]+)"`).FindAllStringSubmatch(source.String(), -1) {
		given[m[1]] = true
	}
	if len(given) < 25 {
		t.Fatalf("only %d ids: %v", len(given), given)
	}
	chapters := map[string]bool{}
	for _, c := range docs.Chapters() {
		if c.Finding {
			chapters[c.ID] = true
		}
	}
	for id := range given {
		if !chapters[id] {
			t.Errorf("docs/findings/%s.md is not there", id)
		}
	}
	for id := range chapters {
		if !given[id] {
			t.Errorf("docs/findings/%s.md is about no finding", id)
		}
	}
}
