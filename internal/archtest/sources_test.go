package archtest_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// maxLines is the hard limit of a source file; the aim is 100 to 400.
const maxLines = 600

// random names the files that may use a source of randomness, with the reason.
// Everything else takes what it needs from the App.
var random = map[string]string{
	"rand.go":                     "the App's source",
	"internal/proc/rand.go":       "the process's own",
	"memory/fault.go":             "a fault plan is replayed from its seed",
	"internal/sqlstore/lock.go":   "the token that tells owners of a store apart",
	"internal/redisconn/token.go": "names of consumers and delivery tags, unique among all processes",
	"broker/amqpbroker/token.go":  "names of consumers, queues and dead letters, unique among all processes",
	"internal/sqlstore/commit.go": "jitter of a busy database, below the App",
}

// process are the calls that say who this process is, for internal/proc alone.
var process = map[string]bool{"Hostname": true, "Getpid": true, "Getppid": true, "Environ": true}

// registrars are the only calls that an init may make.
var registrars = map[string]bool{"broker.Register": true, "backend.Register": true, "lovage.SetDefaultURLs": true}

func TestSourcesKeepTheRules(t *testing.T) {
	t.Parallel()
	n := 0
	for path, file := range sources(t) {
		n++
		for _, complaint := range judge(path, file.fset, file.ast, file.lines) {
			t.Error(complaint)
		}
	}
	if n < 20 {
		t.Errorf("looked at %d files; where are the others?", n)
	}
}

// TestRulesSeeBreaches shows that each rule would notice.
func TestRulesSeeBreaches(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		path, text string
		lines      int
		breaches   int
	}{
		"Hostname":          {"worker/w.go", `package worker; import "os"; func f() { os.Hostname() }`, 1, 1},
		"RenamedOS":         {"worker/w.go", `package worker; import sys "os"; var pid = sys.Getpid()`, 1, 1},
		"ProcMay":           {"internal/proc/p.go", `package proc; import "os"; var pid = os.Getpid()`, 1, 0},
		"ExampleMay":        {"examples/x/main.go", `package main; import "os"; func main() { println(os.Getpid()) }`, 1, 0},
		"Random":            {"beat/b.go", `package beat; import _ "math/rand/v2"`, 1, 1},
		"RandomAllowed":     {"rand.go", `package lovage; import _ "crypto/rand"`, 1, 0},
		"LongFile":          {"beat/b.go", `package beat`, maxLines + 1, 1},
		"Init":              {"cli/c.go", `package cli; func init() { println() }`, 1, 1},
		"InitOfDriver":      {"memory/m.go", `package memory; import "github.com/lovage-go/lovage/broker"; func init() { broker.Register(nil, "memory") }`, 1, 0},
		"InitOfDriverDoing": {"memory/m.go", `package memory; import "github.com/lovage-go/lovage/broker"; func init() { broker.Register(nil, "memory"); println() }`, 1, 1},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			fset := token.NewFileSet()
			file, err := parser.ParseFile(fset, c.path, c.text, 0)
			if err != nil {
				t.Fatal(err)
			}
			if got := judge(c.path, fset, file, c.lines); len(got) != c.breaches {
				t.Errorf("got %q, want %d complaints", got, c.breaches)
			}
		})
	}
}

// judge returns what is wrong with a non-test file.
func judge(path string, fset *token.FileSet, file *ast.File, lines int) (complaints []string) {
	complain := func(at token.Pos, text string) {
		complaints = append(complaints, path+": "+strings.TrimPrefix(fset.Position(at).String(), path+":")+": "+text)
	}
	if lines > maxLines {
		complain(file.Package, "the file is longer than 600 lines: split it by its nouns")
	}
	user := strings.HasPrefix(path, "examples/")
	osName := ""
	for _, imp := range file.Imports {
		switch imp.Path.Value {
		case `"os"`:
			if osName = "os"; imp.Name != nil {
				osName = imp.Name.Name
			}
		case `"math/rand"`, `"math/rand/v2"`, `"crypto/rand"`:
			if random[path] == "" && !user {
				complain(imp.Pos(), "randomness comes from the App; "+imp.Path.Value+" is for the files listed in sources_test.go")
			}
		}
	}
	ast.Inspect(file, func(node ast.Node) bool {
		switch n := node.(type) {
		case *ast.SelectorExpr:
			pkg, ok := n.X.(*ast.Ident)
			if ok && osName != "" && pkg.Name == osName && process[n.Sel.Name] && !user && filepath.ToSlash(filepath.Dir(path)) != "internal/proc" {
				complain(n.Pos(), "os."+n.Sel.Name+" is for internal/proc alone")
			}
		case *ast.FuncDecl:
			if n.Name.Name == "init" && n.Recv == nil && !registers(n) {
				complain(n.Pos(), "an init may only register a driver")
			}
		}
		return true
	})
	return complaints
}

// registers reports whether fn does nothing but register drivers.
func registers(fn *ast.FuncDecl) bool {
	for _, stmt := range fn.Body.List {
		expr, ok := stmt.(*ast.ExprStmt)
		if !ok {
			return false
		}
		call, ok := expr.X.(*ast.CallExpr)
		if !ok {
			return false
		}
		sel, ok := call.Fun.(*ast.SelectorExpr)
		if !ok {
			return false
		}
		pkg, ok := sel.X.(*ast.Ident)
		if !ok || !registrars[pkg.Name+"."+sel.Sel.Name] {
			return false
		}
	}
	return true
}

type source struct {
	fset  *token.FileSet
	ast   *ast.File
	lines int
}

// sources parses the module's files, without tests, test data and other modules.
func sources(t *testing.T) map[string]source {
	t.Helper()
	out := map[string]source{}
	walk(t, func(path string, text []byte) {
		if !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
			return
		}
		fset := token.NewFileSet()
		file, err := parser.ParseFile(fset, path, text, parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		out[path] = source{fset, file, strings.Count(string(text), "\n")}
	})
	return out
}

// walk visits the text files of the module, by path from its root.
func walk(t *testing.T, visit func(path string, text []byte)) {
	t.Helper()
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(root, path)
		if err != nil {
			return err
		}
		if d.IsDir() {
			_, other := os.Stat(filepath.Join(path, "go.mod"))
			if name := d.Name(); rel != "." && (other == nil || name == "testdata" || name == "bin" || strings.HasPrefix(name, ".") || strings.HasPrefix(name, "_")) {
				return filepath.SkipDir
			}
			return nil
		}
		if !d.Type().IsRegular() || !(strings.HasSuffix(rel, ".go") || strings.HasSuffix(rel, ".md")) {
			return nil
		}
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		visit(filepath.ToSlash(rel), text)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}
