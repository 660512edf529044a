package lovage_test

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/lovage-go/lovage"
	"github.com/lovage-go/lovage/backend"
	"github.com/lovage-go/lovage/broker"
	"github.com/lovage-go/lovage/memory"
)

// AddArgs are those of the Python task def add(x, y=0).
type AddArgs struct {
	X int
	Y int `lovage:"y,default=0"`
}

func add(_ context.Context, in AddArgs) (int, error) { return in.X + in.Y, nil }

// diary is what happened, in order.
type diary struct {
	mu    sync.Mutex
	lines []string
}

func (d *diary) write(format string, args ...any) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.lines = append(d.lines, fmt.Sprintf(format, args...))
}

func (d *diary) read() []string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.Clone(d.lines)
}

// take returns what happened since the last take.
func (d *diary) take() []string {
	d.mu.Lock()
	defer d.mu.Unlock()
	lines := d.lines
	d.lines = nil
	return lines
}

// Handle makes a diary a log handler; lines look like "log INFO text".
func (d *diary) Handle(_ context.Context, r slog.Record) error {
	line := "log " + r.Level.String() + " " + r.Message
	r.Attrs(func(a slog.Attr) bool {
		if a.Key == "traceback" {
			line += " +traceback"
		}
		return true
	})
	d.write("%s", line)
	return nil
}
func (d *diary) Enabled(context.Context, slog.Level) bool { return true }
func (d *diary) WithAttrs([]slog.Attr) slog.Handler       { return d }
func (d *diary) WithGroup(string) slog.Handler            { return d }

// world is one store, one App on it, and a worker that runs one message at a time.
type world struct {
	t     testing.TB
	app   *lovage.App
	store *memory.Store
	log   *diary
	cons  broker.Consumer
	conn  broker.Conn
	// finished sees what each run causes, before it happens.
	finished func(*lovage.Effects)
}

func on(store *memory.Store) []lovage.AppOption {
	return []lovage.AppOption{
		lovage.WithBroker(func(context.Context) (broker.Conn, error) { return store.Broker(), nil }),
		lovage.WithBackend(func(context.Context) (backend.Backend, error) { return store.Backend(), nil }),
	}
}

func newWorld(t testing.TB, cfg lovage.Config, opts ...lovage.AppOption) *world {
	t.Helper()
	w := &world{t: t, store: memory.New(), log: &diary{}}
	opts = append(append(on(w.store), lovage.WithLogger(slog.New(w.log))), opts...)
	w.app = lovage.New("t", cfg, opts...)
	t.Cleanup(func() {
		if w.cons != nil {
			_ = w.cons.Close()
			_ = w.conn.Close()
		}
		_ = w.app.Close(context.Background())
	})
	return w
}

func (w *world) ctx() context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	w.t.Cleanup(cancel)
	return ctx
}

// claim takes the next message of a queue.
func (w *world) claim(queues ...string) *broker.Delivery {
	w.t.Helper()
	if w.cons == nil {
		if len(queues) == 0 {
			queues = []string{"celery"}
		}
		qs, err := w.app.Queues(queues...)
		if err == nil {
			w.conn, err = w.app.OpenBroker(w.ctx())
		}
		if err == nil {
			w.cons, err = w.conn.Consume(w.ctx(), broker.ConsumeConfig{Queues: qs})
		}
		if err != nil {
			w.t.Fatal(err)
		}
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Hour)
	defer cancel()
	ds, err := w.cons.Claim(ctx, 1)
	if err != nil {
		w.t.Fatalf("claim: %v", err)
	}
	return &ds[0]
}

func (w *world) receive(d *broker.Delivery) *lovage.Request {
	w.t.Helper()
	r, err := w.app.Receive(d)
	if err != nil {
		w.t.Fatal(err)
	}
	r.Hostname = "celery@test"
	return r
}

// finisher publishes, stores and settles, as Celery's worker does in this order.
func (w *world) finisher(d *broker.Delivery) lovage.Finisher {
	return lovage.FinisherFunc(func(ctx context.Context, e *lovage.Effects) error {
		if w.finished != nil {
			w.finished(e)
		}
		if len(e.Publish) > 0 {
			if err := w.app.PublishMessages(ctx, e.Publish...); err != nil {
				return err
			}
		}
		if len(e.Store) > 0 {
			b, err := w.app.Backend(ctx)
			if err == nil {
				err = b.Store(ctx, e.Store...)
			}
			if err != nil {
				return err
			}
		}
		action := broker.Ack
		switch {
		case e.Outcome.State == "" || e.Outcome.Requeue:
			action = broker.Requeue
		case e.Outcome.State == lovage.Rejected:
			action = broker.DeadLetter
		}
		return w.cons.Settle(ctx, broker.Settlement{Delivery: d, Action: action, Reason: "rejected"})
	})
}

// run executes the next message.
func (w *world) run(queues ...string) lovage.Outcome {
	w.t.Helper()
	return w.runIn(context.Background(), queues...)
}

func (w *world) runIn(ctx context.Context, queues ...string) lovage.Outcome {
	w.t.Helper()
	d := w.claim(queues...)
	return w.app.Execute(ctx, w.receive(d), w.finisher(d))
}

// waiting counts the messages that are ready or delayed in a queue.
func (w *world) waiting(queue string) int {
	w.t.Helper()
	conn, err := w.app.Broker(w.ctx())
	if err != nil {
		w.t.Fatal(err)
	}
	l, err := conn.(broker.Lengther).Lengths(w.ctx(), queue)
	if err != nil {
		w.t.Fatal(err)
	}
	return l[queue].Ready + l[queue].Delayed
}

func (w *world) state(id string) lovage.State {
	w.t.Helper()
	s, err := w.app.Result(id).State(w.ctx())
	if err != nil {
		w.t.Fatal(err)
	}
	return s
}

func must[T any](t testing.TB) func(T, error) T {
	return func(v T, err error) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

func equal[T comparable](t testing.TB, what string, got, want T) {
	t.Helper()
	if got != want {
		t.Errorf("%s: got %v, want %v", what, got, want)
	}
}

func equalLines(t testing.TB, got, want []string) {
	t.Helper()
	if !slices.Equal(got, want) {
		t.Errorf("got\n  %s\nwant\n  %s", strings.Join(got, "\n  "), strings.Join(want, "\n  "))
	}
}

// panics calls f and returns what it panicked with.
func panics(t testing.TB, f func()) (text string) {
	t.Helper()
	defer func() {
		p := recover()
		if p == nil {
			t.Error("no panic")
		}
		text = fmt.Sprint(p)
	}()
	f()
	return
}

func contains(t testing.TB, text string, parts ...string) {
	t.Helper()
	for _, p := range parts {
		if !strings.Contains(text, p) {
			t.Errorf("%q is not in: %s", p, text)
		}
	}
}
