package archtest_test

import (
	"encoding/json"
	"errors"
	"io"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/lovage-go/lovage"

// rule says what the packages that match one of Packages may import from this
// module, and which modules of others. Patterns are paths in the module: "." is
// the root, "x/..." is x and all below it. A later rule wins over an earlier one.
type rule struct {
	Packages []string
	May      []string
	Never    []string // though May would allow it
	Others   []string // module path prefixes; the standard library is always allowed
}

var (
	// wire is level 0: data at the bottom, which knows nobody.
	wire = []string{"protocol", "serializer", "schedule", "internal/..."}
	// codecs are the modules that level 0 may use.
	codecs = []string{
		"github.com/BurntSushi/toml", "github.com/goccy/", "github.com/google/uuid", "github.com/vmihailenco/",
		"github.com/andybalholm/brotli", "github.com/klauspost/compress", "github.com/dsnet/compress", "github.com/ulikunitz/xz",
		"golang.org/x/sys",
	}
	core     = with(wire, "broker", "backend", "events", "control", ".")
	anything = []string{"..."}
	// store is the SQL room: its drivers are heavy, so only those who need it link it.
	store = "internal/sqlstore"
)

var rules = []rule{
	{Packages: wire, May: wire, Never: []string{store}, Others: codecs},
	{Packages: []string{"protocol"}, May: []string{"internal/..."}, Never: []string{store}, Others: codecs},
	{Packages: []string{store}, May: wire, Others: with(codecs, "modernc.org/sqlite", "github.com/jackc/pgx")},
	{Packages: []string{"internal/redisconn"}, May: wire, Never: []string{store}, Others: with(codecs, "github.com/redis/rueidis")},
	{Packages: []string{"broker/..."}, May: with(wire, "broker"), Never: []string{store}, Others: []string{"github.com/", "golang.org/x/"}},
	{Packages: []string{"backend/..."}, May: with(wire, "backend"), Never: []string{store}, Others: []string{"github.com/", "golang.org/x/"}},
	{Packages: []string{"broker/sqlbroker"}, May: with(wire, "broker"), Others: codecs},
	{Packages: []string{"backend/sqlbackend"}, May: with(wire, "backend"), Others: codecs},
	{Packages: []string{"backend/rpcbackend"}, May: with(wire, "broker", "backend"), Never: []string{store}},
	{Packages: []string{"broker", "backend"}, May: wire, Never: []string{store}},
	{Packages: []string{"memory"}, May: with(wire, "broker", "backend"), Never: []string{store}},
	{Packages: []string{"events", "control", "migrate"}, May: with(wire, "broker"), Never: []string{store}},
	{Packages: []string{"."}, May: with(wire, "broker", "backend", "events", "control"), Never: []string{store}},
	{Packages: []string{"worker/..."}, May: with(core, "worker/..."), Never: []string{store}},
	{Packages: []string{"beat/..."}, May: with(core, "beat/..."), Never: []string{store}},
	{Packages: []string{"monitor/..."}, May: with(core, "monitor/..."), Never: []string{store}, Others: []string{"github.com/", "golang.org/x/"}},
	{Packages: []string{"cli/..."}, May: anything, Never: []string{"embedded", "lovagetest", "cmd/...", "examples/...", store}, Others: []string{"github.com/", "golang.org/x/"}},
	{Packages: []string{"lovagetest"}, May: anything, Never: []string{"embedded", "cli/...", "cmd/...", "examples/...", store}},
	{Packages: []string{"embedded"}, May: with(core, "broker/sqlbroker", "backend/sqlbackend"), Never: []string{store}},
	{Packages: []string{"cmd/...", "examples/..."}, May: anything, Never: []string{store}, Others: []string{"github.com/", "golang.org/x/", "modernc.org/sqlite"}},
}

func TestImportsPointDown(t *testing.T) {
	t.Parallel()
	for _, p := range packages(t, "./...") {
		dir := p.dir()
		r := ruleOf(dir)
		if r == nil {
			t.Errorf("package %s has no level: add it to the table in imports_test.go and docs/architecture.md", dir)
			continue
		}
		for _, imp := range p.Imports {
			if why := r.forbids(imp); why != "" {
				t.Errorf("%s imports %s: %s", dir, imp, why)
			}
		}
	}
}

// TestRootLinksNoDriver looks at everything that a program gets by importing the
// root package: a driver that is not wanted must cost nothing.
func TestRootLinksNoDriver(t *testing.T) {
	t.Parallel()
	deps := packages(t, "-deps", ".")
	if len(deps) < 50 {
		t.Fatalf("go list -deps gives %d packages, want the standard library at least", len(deps))
	}
	for _, p := range deps {
		dir := p.dir()
		if dir == "memory" || dir == store || strings.HasPrefix(dir, "broker/") || strings.HasPrefix(dir, "backend/") ||
			strings.HasPrefix(p.ImportPath, "modernc.org/") || strings.HasPrefix(p.ImportPath, "github.com/jackc/") {
			t.Errorf("the root package links %s", p.ImportPath)
		}
	}
}

func TestRules(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		from, imports string
		allowed       bool
	}{
		{"protocol", "encoding/json", true}, {"protocol", module + "/internal/pyjson", true}, {"protocol", module + "/serializer", false},
		{"protocol", module, false}, {"serializer", "github.com/klauspost/compress/zstd", true}, {"serializer", "github.com/spf13/cobra", false},
		{"broker", module + "/protocol", true}, {"broker", module + "/backend", false}, {"broker", module + "/broker/sqlbroker", false},
		{"broker/sqlbroker", module + "/" + store, true}, {"broker/redisbroker", module + "/" + store, false},
		{"broker/amqpbroker", module + "/backend", false}, {"backend/rpcbackend", module + "/broker", true}, {"backend/filebackend", module + "/broker", false},
		{".", module + "/events", true}, {".", module + "/memory", false}, {".", module + "/broker/sqlbroker", false}, {".", module + "/worker", false},
		{"worker", module, true}, {"worker/internal/pool", module + "/worker", true}, {"worker", module + "/beat", false}, {"beat", module + "/monitor", false},
		{"cli", module + "/worker", true}, {"cli", module + "/embedded", false}, {"cmd/lovage", module + "/embedded", true},
		{"lovagetest", module + "/memory", true}, {"events", module + "/broker", true}, {"control", module + "/worker", false},
	} {
		r := ruleOf(c.from)
		if r == nil {
			t.Errorf("%s has no rule", c.from)
			continue
		}
		if why := r.forbids(c.imports); (why == "") != c.allowed {
			t.Errorf("%s importing %s: got %q, want allowed %t", c.from, c.imports, why, c.allowed)
		}
	}
	if r := ruleOf("newthing"); r != nil {
		t.Errorf("a package that the table does not name has the rule %+v", r)
	}
}

func ruleOf(dir string) *rule {
	for i := len(rules) - 1; i >= 0; i-- {
		if matches(rules[i].Packages, dir) {
			return &rules[i]
		}
	}
	return nil
}

// forbids says why imp may not be imported, or nothing.
func (r *rule) forbids(imp string) string {
	if imp == module || strings.HasPrefix(imp, module+"/") {
		dir := (listed{ImportPath: imp}).dir()
		if !matches(r.May, dir) || matches(r.Never, dir) {
			return "it may import " + strings.Join(r.May, ", ") + " and not " + strings.Join(with(r.Never, "what is above it"), ", ")
		}
		return ""
	}
	host, _, _ := strings.Cut(imp, "/")
	if !strings.Contains(host, ".") || slices.ContainsFunc(r.Others, func(prefix string) bool { return strings.HasPrefix(imp, prefix) }) {
		return ""
	}
	return "that module is not on its list of others"
}

func matches(patterns []string, dir string) bool {
	return slices.ContainsFunc(patterns, func(p string) bool {
		if p == "..." {
			return true
		}
		if below, ok := strings.CutSuffix(p, "/..."); ok {
			return dir == below || strings.HasPrefix(dir, below+"/")
		}
		return dir == p
	})
}

func with(list []string, more ...string) []string { return append(slices.Clone(list), more...) }

// listed is a package as go list tells it.
type listed struct {
	ImportPath string
	Imports    []string
}

// dir is the path in the module, "." for the root.
func (p listed) dir() string {
	if p.ImportPath == module {
		return "."
	}
	return strings.TrimPrefix(p.ImportPath, module+"/")
}

func packages(t *testing.T, args ...string) (out []listed) {
	t.Helper()
	cmd := exec.Command("go", append([]string{"list", "-json=ImportPath,Imports"}, args...)...)
	cmd.Dir = root
	text, err := cmd.Output()
	if err != nil {
		var exit *exec.ExitError
		if errors.As(err, &exit) {
			t.Fatalf("go list: %s", exit.Stderr)
		}
		t.Fatal(err)
	}
	for d := json.NewDecoder(strings.NewReader(string(text))); ; {
		var p listed
		if err := d.Decode(&p); errors.Is(err, io.EOF) {
			return out
		} else if err != nil {
			t.Fatal(err)
		}
		out = append(out, p)
	}
}

// root is the top of the repository, seen from this package.
var root = filepath.Join("..", "..")
