package cli_test

import (
	"bytes"
	"cmp"
	"context"
	"crypto/rand"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"testing"

	"github.com/lovage-go/lovage"
	"github.com/lovage-go/lovage/broker"
	"github.com/lovage-go/lovage/cli"
	_ "github.com/lovage-go/lovage/memory"
)

var update = flag.Bool("update", false, "rewrite the files in testdata")

// shell runs command lines against one named store.
type shell struct {
	t     *testing.T
	url   string
	back  string // of results; default: url
	env   []string
	stdin string
	setup func(*lovage.App)
	opts  []cli.Option
}

func newShell(t *testing.T) *shell {
	// A store is kept by its name for as long as the process: -count asks for another.
	return &shell{t: t, url: "memory://" + strings.NewReplacer("/", "-", "#", "-").Replace(t.Name()) + "-" + rand.Text()}
}

type addArgs struct{ X, Y int }

func add(_ context.Context, in addArgs) (int, error) { return in.X + in.Y, nil }

// app is a new App on the shell's store: each command is a process of its own.
func (s *shell) app() *lovage.App {
	app := lovage.New("proj", lovage.Config{BrokerURL: s.url, ResultBackend: cmp.Or(s.back, s.url)})
	lovage.Func(app, "proj.add", add)
	if s.setup != nil {
		s.setup(app)
	}
	return app
}

// run is one command line.
func (s *shell) run(args ...string) (code int, stdout, stderr string) {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(s.t.Context(), patience)
	defer cancel()
	var out, errw bytes.Buffer
	opts := append([]cli.Option{cli.Environ(s.env)}, s.opts...)
	code = cli.Run(ctx, s.app(), args, strings.NewReader(s.stdin), &out, &errw, opts...)
	return code, out.String(), errw.String()
}

// ok is a command line that must succeed, quietly.
func (s *shell) ok(args ...string) string {
	s.t.Helper()
	code, stdout, stderr := s.run(args...)
	if code != cli.ExitOK || stderr != "" {
		s.t.Fatalf("%q exits with %d, stderr %q; want 0 and none", args, code, stderr)
	}
	return stdout
}

// transcript is a command line with all it printed, as in a terminal.
func (s *shell) transcript(args ...string) string {
	s.t.Helper()
	code, stdout, stderr := s.run(args...)
	var b strings.Builder
	b.WriteString("$ proj " + strings.Join(args, " ") + "\n" + stdout)
	if stderr != "" {
		b.WriteString("[stderr]\n" + stderr)
	}
	if code != 0 {
		b.WriteString("[exit code " + strconv.Itoa(code) + "]\n")
	}
	return b.String()
}

var (
	uuids    = regexp.MustCompile(`[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}`)
	revision = regexp.MustCompile(`"revision":"[0-9a-f]*",?`)
	lines    = regexp.MustCompile(`_test\.go:\d+`)
	cpus     = regexp.MustCompile(`"cpus":\d+|cpus:\d+`)
	stamps   = regexp.MustCompile(`\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)?`)
)

// golden compares text with a file of testdata, in which what differs from run
// to run has a name.
func golden(t *testing.T, name, text string) {
	t.Helper()
	text = uuids.ReplaceAllString(text, "<uuid>")
	text = lines.ReplaceAllString(text, "_test.go:<line>")
	text = revision.ReplaceAllString(text, "")
	text = cpus.ReplaceAllStringFunc(text, func(m string) string { return strings.TrimRight(m, "0123456789") + "<cpus>" })
	text = stamps.ReplaceAllString(text, "<time>")
	text = strings.NewReplacer(runtime.Version(), "<go>", strings.TrimPrefix(runtime.Version(), "go"), "<go>",
		runtime.GOOS, "<os>", runtime.GOARCH, "<arch>").Replace(text)
	path := filepath.Join("testdata", name+".txt")
	if *update {
		if err := os.MkdirAll("testdata", 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatalf("%v: run the test with -update", err)
	}
	if text != string(want) {
		t.Errorf("%s differs: got\n%s\nwant\n%s", path, text, want)
	}
}

func brokerAway(context.Context) (broker.Conn, error) {
	return nil, fmt.Errorf("connect to the broker: %w", broker.ErrUnavailable)
}
