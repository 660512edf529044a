package endtoend_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/lovage-go/lovage"
	_ "github.com/lovage-go/lovage/backend/sqlbackend"
	"github.com/lovage-go/lovage/broker"
	_ "github.com/lovage-go/lovage/broker/sqlbroker"
	"github.com/lovage-go/lovage/cli"
	_ "github.com/lovage-go/lovage/memory"
	"github.com/lovage-go/lovage/protocol"
	"github.com/lovage-go/lovage/worker"
)

// patience bounds every wait for another goroutine.
const patience = time.Minute

// world is one store, seen by a client, by workers and by command lines, each
// with an App of its own as processes have.
type world struct {
	t      *testing.T
	url    string
	conf   lovage.Config
	tasks  func(*lovage.App)
	client *lovage.App
	log    *logbook
}

func newWorld(t *testing.T, url string, conf lovage.Config) *world {
	t.Helper()
	x := &world{t: t, url: url, conf: conf, log: newLogbook(), tasks: withAdd}
	x.client = lovage.New("client", lovage.Config{BrokerURL: url, ResultBackend: url}, lovage.WithLogger(slog.New(slog.DiscardHandler)))
	lovage.Remote[addArgs, int](x.client, "t.add")
	t.Cleanup(func() {
		if err := x.client.Close(context.Background()); err != nil {
			t.Errorf("the client's Close: %v", err)
		}
	})
	return x
}

// file is a URL of a new SQLite store.
func file(t *testing.T) string { return "sqlite://" + filepath.Join(t.TempDir(), "store.db") }

type addArgs struct {
	X int
	Y int `lovage:"y,default=0"`
}

func withAdd(app *lovage.App) {
	lovage.Func(app, "t.add", func(_ context.Context, in addArgs) (int, error) { return in.X + in.Y, nil })
}

// app is a new App on the store, with the world's tasks.
func (x *world) app() *lovage.App {
	conf := x.conf
	conf.BrokerURL, conf.ResultBackend = x.url, x.url
	app := lovage.New("proj", conf, lovage.WithLogger(slog.New(x.log)))
	x.tasks(app)
	return app
}

func (x *world) ctx() context.Context {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(x.t.Context()), patience)
	x.t.Cleanup(cancel)
	return ctx
}

// running is a worker with what it signalled.
type running struct {
	app      *lovage.App
	w        *worker.Worker
	rejected chan lovage.TaskRejected
	unknown  chan lovage.TaskUnknown
	stop     func()
}

// start runs a worker; stop, which the end of the test calls too, wants a warm
// end with nothing left in its hands.
func (x *world) start() *running {
	x.t.Helper()
	app := x.app()
	r := &running{app: app, rejected: make(chan lovage.TaskRejected, 16), unknown: make(chan lovage.TaskUnknown, 16)}
	app.Signals.TaskRejected.Connect(func(_ context.Context, e lovage.TaskRejected) { r.rejected <- e })
	app.Signals.TaskUnknown.Connect(func(_ context.Context, e lovage.TaskUnknown) { r.unknown <- e })
	ready, ended := make(chan struct{}), make(chan error, 1)
	r.w = worker.New(app, worker.Config{Concurrency: 2, Ready: func(worker.Info) { close(ready) }})
	ctx, cancel := context.WithCancel(context.WithoutCancel(x.t.Context()))
	go func() { ended <- r.w.Run(ctx) }()
	var once sync.Once
	r.stop = func() {
		once.Do(func() {
			cancel()
			if err := receive(x.t, ended); err != nil {
				x.t.Errorf("the worker ended with %v, want nil", err)
			}
			if s := r.w.Stats(); s.SlotsUsed != 0 || s.Active != 0 || s.Reserved != 0 || s.Finishing != 0 || s.Stuck != 0 {
				x.t.Errorf("at the worker's end: %+v, want nothing in its hands", s)
			}
			if err := app.Close(context.Background()); err != nil {
				x.t.Errorf("the worker's app: Close: %v", err)
			}
		})
	}
	x.t.Cleanup(r.stop)
	receive(x.t, ready)
	return r
}

// receive waits for a value.
func receive[T any](t *testing.T, c <-chan T) (v T) {
	t.Helper()
	select {
	case v = <-c:
	case <-time.After(patience):
		t.Fatalf("nothing came within %s", patience)
	}
	return v
}

// good sends a task that must succeed: the worker lives.
func (x *world) good() {
	x.t.Helper()
	res, err := x.client.Send(x.ctx(), "t.add", lovage.Args{Positional: []any{40, 2}})
	if err != nil {
		x.t.Fatalf("a good task after the bad: %v", err)
	}
	if n, err := lovage.ResultOf[int](x.client, res.ID()).Get(x.ctx()); err != nil || n != 42 {
		x.t.Fatalf("a good task after the bad: got %d, %v, want 42\n%s", n, err, x.log)
	}
}

// inject publishes bytes as a foreign program may: headers are written member
// by member as they are, JSON or not.
func (x *world) inject(m raw) {
	x.t.Helper()
	msg := &protocol.Message{
		Headers: protocol.Headers{Extra: map[string]json.RawMessage{}}, Body: m.body, Queue: "celery",
		Properties: protocol.Properties{ContentType: m.contentType, ContentEncoding: m.encoding, CorrelationID: m.correlation},
	}
	if msg.Properties.ContentType == "" {
		msg.Properties.ContentType, msg.Properties.ContentEncoding = "application/json", "utf-8"
	}
	for k, v := range m.headers {
		msg.Headers.Extra[k] = json.RawMessage(v)
	}
	if err := x.client.PublishMessages(x.ctx(), msg); err != nil {
		x.t.Fatal(err)
	}
}

// raw is a message by hand.
type raw struct {
	headers               map[string]string
	body                  []byte
	contentType, encoding string
	correlation           string
}

// dead lists the dead letters, newest first.
func (x *world) dead() []broker.Dead {
	x.t.Helper()
	conn, err := x.client.Broker(x.ctx())
	if err != nil {
		x.t.Fatal(err)
	}
	list, err := conn.(broker.DeadLetterer).DeadLetters(x.ctx(), "", "", 100)
	if err != nil {
		x.t.Fatal(err)
	}
	return list
}

// run is a command line on the store, in a process of its own as far as the App
// goes.
func (x *world) run(args ...string) (code int, stdout, stderr string) {
	x.t.Helper()
	var out, errw bytes.Buffer
	app := lovage.New("proj", lovage.Config{BrokerURL: x.url, ResultBackend: x.url})
	code = cli.Run(x.ctx(), app, args, strings.NewReader(""), &out, &errw, cli.Environ(nil))
	return code, out.String(), errw.String()
}

// ok is a command line that must succeed.
func (x *world) ok(args ...string) string {
	x.t.Helper()
	code, stdout, stderr := x.run(args...)
	if code != cli.ExitOK {
		x.t.Fatalf("%q exits with %d: %s", args, code, stderr)
	}
	return stdout
}

// says wants every part in a text.
func says(t *testing.T, what, text string, parts ...string) {
	t.Helper()
	for _, p := range parts {
		if !strings.Contains(text, p) {
			t.Errorf("%s says %q, which lacks %q", what, text, p)
		}
	}
}

// logbook is a log that can be waited for.
type logbook struct {
	mu    sync.Mutex
	lines []string
	more  chan struct{} // closed by the next line
}

func newLogbook() *logbook { return &logbook{more: make(chan struct{})} }

func (l *logbook) Enabled(context.Context, slog.Level) bool { return true }
func (l *logbook) WithAttrs([]slog.Attr) slog.Handler       { return l }
func (l *logbook) WithGroup(string) slog.Handler            { return l }

func (l *logbook) Handle(_ context.Context, r slog.Record) error {
	line := fmt.Sprintf("%s %s", r.Level, r.Message)
	r.Attrs(func(a slog.Attr) bool { line += fmt.Sprintf(" %s=%v", a.Key, a.Value); return true })
	l.mu.Lock()
	defer l.mu.Unlock()
	l.lines = append(l.lines, line)
	close(l.more)
	l.more = make(chan struct{})
	return nil
}

func (l *logbook) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Join(l.lines, "\n")
}

// find gives the lines that hold a text.
func (l *logbook) find(text string) (out []string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, line := range l.lines {
		if strings.Contains(line, text) {
			out = append(out, line)
		}
	}
	return out
}

// await waits for a line that holds a text.
func (l *logbook) await(t *testing.T, text string) string {
	t.Helper()
	limit := time.After(patience)
	for {
		l.mu.Lock()
		more := l.more
		l.mu.Unlock()
		if found := l.find(text); len(found) > 0 {
			return found[0]
		}
		select {
		case <-more:
		case <-limit:
			t.Fatalf("no line of the log has %q:\n%s", text, l)
		}
	}
}
