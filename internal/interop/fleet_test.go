package interop_test

import (
	"context"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/lovage-go/lovage"
	"github.com/lovage-go/lovage/backend"
	"github.com/lovage-go/lovage/broker"
	"github.com/lovage-go/lovage/internal/testenv"
	"github.com/lovage-go/lovage/serializer"
	"github.com/lovage-go/lovage/worker"
)

// Two ends of one fleet: who calls and who runs.
const (
	python = "py"
	golang = "go"
)

var languages = []string{python, golang}

// urls are a broker and a result store.
type urls struct{ Broker, Results string }

// site is what the tasks of a fleet need.
type site struct {
	urls
	Gate string // a directory; a file with the id of a t.progress lets it end
}

// project is the Celery project of both the Python worker and the Python client.
//
//go:embed project.py
var project string

// fleet is a worker of each language, each with a queue of its own and one that
// they share, and a client of each.
type fleet struct {
	urls
	app    *lovage.App // the client
	python *testenv.PythonSession
	celery *testenv.CeleryProcess
	golang *testenv.CeleryProcess // nil: the worker is in this process
	drops  bool                   // RabbitMQ drops what is sent too late, and nobody is told
	source string                 // of the Python half
	rpc    bool                   // a result goes to its caller, and to nobody else
	gate   string
}

// readers are the clients that can read the results of a client's calls.
func (f *fleet) readers(client string) []string {
	if f.rpc {
		return []string{client}
	}
	return languages
}

// queue names the queue that a language's workers alone consume, or all of them.
func queue(language string) string {
	if language == shared {
		return shared
	}
	return language + ".only"
}

const shared = "both"

func newApp(u urls, log io.Writer) *lovage.App {
	return lovage.New("interop", lovage.Config{
		BrokerURL: u.Broker, ResultBackend: u.Results, TaskDefaultQueue: shared,
		TaskQueues: []broker.Queue{
			broker.Named(shared), broker.Named(queue(python)), broker.Named(queue(golang)),
			{Name: "py.direct", Exchange: broker.Exchange{Name: "parcels", Type: "direct"}, RoutingKey: "py"},
			{Name: "go.direct", Exchange: broker.Exchange{Name: "parcels", Type: "direct"}, RoutingKey: "go"},
			{Name: "py.topic", Exchange: broker.Exchange{Name: "news", Type: "topic"}, RoutingKey: "py.#"},
			{Name: "go.topic", Exchange: broker.Exchange{Name: "news", Type: "topic"}, RoutingKey: "go.#"},
			{Name: "py.fanout", Exchange: broker.Exchange{Name: "alarm.py", Type: "fanout"}},
			{Name: "go.fanout", Exchange: broker.Exchange{Name: "alarm.go", Type: "fanout"}},
		},
	}, lovage.WithLogger(slog.New(slog.NewTextHandler(log, nil))))
}

// withTasks gives an app the tasks of project.py.
func withTasks(app *lovage.App, gate string) *lovage.App {
	lovage.Func(app, "t.add", func(_ context.Context, in struct {
		X int `lovage:"x"`
		Y int `lovage:"y,default=0"`
	}) (int, error) {
		return in.X + in.Y, nil
	})
	lovage.Func(app, "t.echo", func(_ context.Context, in lovage.Args) ([]any, error) {
		args := in.Positional
		if args == nil {
			args = []any{}
		}
		kwargs := in.Keyword
		if kwargs == nil {
			kwargs = map[string]any{}
		}
		return []any{args, kwargs}, nil
	})
	lovage.Func(app, "t.fail", func(_ context.Context, text string) (int, error) {
		return 0, &lovage.TaskError{Type: "ValueError", Module: "builtins", Args: []any{text, 17}}
	})
	lovage.Func(app, "t.again", func(ctx context.Context, until int) (int, error) {
		if n := lovage.RequestFrom(ctx).Retries; n < until {
			return 0, lovage.Retry(errors.New("not yet"), lovage.Countdown(50*time.Millisecond))
		}
		return until, nil
	}, lovage.MaxRetries(3))
	lovage.Func(app, "t.never", func(ctx context.Context, text string) (int, error) {
		return 0, lovage.Retry(&lovage.TaskError{Type: "KeyError", Module: "builtins", Args: []any{text}}, lovage.Countdown(10*time.Millisecond))
	}, lovage.MaxRetries(2))
	lovage.Func(app, "t.progress", func(ctx context.Context, n int) (string, error) {
		if err := lovage.RequestFrom(ctx).UpdateState(ctx, "PROGRESS", map[string]any{"done": n}); err != nil {
			return "", err
		}
		for {
			if _, err := os.Stat(filepath.Join(gate, lovage.RequestFrom(ctx).ID)); err == nil {
				return "ready", nil
			}
			select {
			case <-time.After(20 * time.Millisecond):
			case <-ctx.Done():
				return "", context.Cause(ctx)
			}
		}
	})
	lovage.Func(app, "t.late", func(_ context.Context, eta float64) (bool, error) {
		return float64(time.Now().UnixMicro())/1e6 >= eta, nil
	})
	lovage.Func(app, "t.nap", func(_ context.Context, seconds int) (string, error) {
		<-time.After(time.Duration(seconds) * time.Second)
		return "slept", nil
	})
	lovage.Func(app, "t.hold", func(_ context.Context, in struct{ Dir, Name string }) (string, error) {
		if err := os.WriteFile(filepath.Join(in.Dir, in.Name), nil, 0o600); err != nil {
			return "", err
		}
		for {
			if _, err := os.Stat(filepath.Join(in.Dir, "end")); err == nil {
				return "held", nil
			}
			<-time.After(10 * time.Millisecond)
		}
	})
	lovage.Func(app, "t.failed", func(_ context.Context, id string) (string, error) { return "told of " + id, nil })
	return app
}

// start starts the fleet, of threads and goroutines or of processes; it ends with
// the test.
func start(t *testing.T, u urls, processes bool) *fleet {
	t.Helper()
	f := &fleet{urls: u, app: newApp(u, io.Discard), drops: strings.HasPrefix(u.Broker, "amqp:"), rpc: strings.HasPrefix(u.Results, "rpc:"), gate: t.TempDir()}
	t.Cleanup(func() { f.app.Close(context.Background()) })
	f.source = fmt.Sprintf("BROKER, RESULTS, GATE = %q, %q, %q\n", u.Broker, u.Results, f.gate) + project
	started := make(chan struct{})
	pool := "threads"
	if processes {
		pool = "prefork"
	}
	go func() { // both take their time
		defer close(started)
		if processes {
			f.golang = testenv.Again(t, roleKey, role{Prefork: &site{u, f.gate}}.String())
		}
	}()
	if !processes {
		runGo(t, withTasks(newApp(u, io.Discard), f.gate), goConfig())
	}
	f.celery = testenv.CeleryWorker(t, "project", f.source, "-P", pool, "-c", "4", "-n", "py@test",
		"-Q", shared+","+queue(python)+",py.direct,py.topic,py.fanout", "--prefetch-multiplier=1", "--without-gossip", "--without-mingle")
	f.python = testenv.StartPython(t, map[string]string{"project": f.source}, "import project; project.serve()")
	<-started
	return f
}

// goConfig is what the Go worker is given.
func goConfig() worker.Config {
	return worker.Config{Hostname: "go@test", Concurrency: slots, Queues: []string{shared, queue(golang), "go.direct", "go.topic", "go.fanout"}}
}

// open lets a t.progress end.
func (f *fleet) open(t *testing.T, id string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(f.gate, id), nil, 0o600); err != nil {
		t.Fatal(err)
	}
}

// send has a client of a language send a call.
func (f *fleet) send(t *testing.T, language string, c call) {
	t.Helper()
	if language == python {
		if _, err := f.ask("send", c); err != nil {
			t.Errorf("%s: Python cannot send: %v", c.Name, err)
		}
		return
	}
	ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
	defer cancel()
	if f.rpc {
		if err := f.expectCallbacks(ctx, c); err != nil {
			t.Errorf("%s: %v", c.Name, err)
			return
		}
	}
	if _, err := f.app.Send(ctx, c.Task, lovage.Args{Positional: c.Args, Keyword: c.Kwargs}, c.Options.forGo(f.app)...); err != nil {
		t.Errorf("%s: Go cannot send: %v", c.Name, err)
	}
}

// expectCallbacks has the results of a call's callbacks come here: without
// reply_to they go to the worker that sends the callback.
func (f *fleet) expectCallbacks(ctx context.Context, c call) error {
	store, err := f.app.Backend(ctx)
	if err != nil {
		return err
	}
	for _, cb := range c.Options.callbacks() {
		if cb.ReplyTo, err = store.(backend.Expecter).Expect(ctx, cb.ID); err != nil {
			return err
		}
	}
	return nil
}

// outcome is what a client sees of a task that has ended.
type outcome struct {
	State  string `json:"state"`
	Result any    `json:"result,omitempty"`
	Type   string `json:"type,omitempty"`
	Module string `json:"module,omitempty"`
	Args   []any  `json:"args,omitempty"`
	Traced bool   `json:"traced,omitempty"` // it has a traceback
}

func (o outcome) String() string { return text(o) }

// text is a value as JSON with kombu's type tags.
func text(v any) string {
	b, err := serializer.JSON.Marshal(v)
	if err != nil {
		return err.Error()
	}
	return string(b)
}

// outcome has a client of a language wait for a result.
func (f *fleet) outcome(t *testing.T, language, id string) (o outcome) {
	t.Helper()
	if language == python {
		raw, err := f.ask("outcome", map[string]any{"id": id})
		if err == nil {
			err = serializer.JSON.Unmarshal(raw, &o)
		}
		if err != nil {
			t.Errorf("Python cannot read the result: %v", err)
		}
		return o
	}
	ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
	defer cancel()
	res := f.app.Result(id)
	got, err := res.Get(ctx)
	state, stateErr := res.State(ctx)
	if stateErr != nil {
		t.Errorf("Go cannot read the state: %v", stateErr)
	}
	o.State = string(state)
	if te, ok := errors.AsType[*lovage.TaskError](err); ok {
		o.Type, o.Module, o.Args, o.Traced = te.Type, te.Module, te.Args, te.Traceback != ""
	} else if err != nil {
		t.Errorf("Go cannot read the result: %v", err)
	}
	o.Result = got
	return o
}

// ask has the Python client do something.
func (f *fleet) ask(what string, arg any) ([]byte, error) {
	line, err := serializer.JSON.Marshal(map[string]any{"do": what, "with": arg})
	if err != nil {
		return nil, err
	}
	raw, err := f.python.Ask(line)
	if err != nil {
		return nil, err
	}
	var answer struct {
		OK    json.RawMessage `json:"ok"`
		Error string          `json:"error"`
	}
	if err := json.Unmarshal(raw, &answer); err != nil {
		return nil, fmt.Errorf("%w in %.300s", err, raw)
	}
	if answer.Error != "" {
		return nil, errors.New(answer.Error)
	}
	return answer.OK, nil
}
