package lovagetest

import (
	"context"
	"log/slog"
	"os"
	"sync"
	"testing"

	"github.com/lovage-go/lovage"
	"github.com/lovage-go/lovage/backend"
	"github.com/lovage-go/lovage/broker"
	"github.com/lovage-go/lovage/memory"
	"github.com/lovage-go/lovage/worker"
)

// App is an app on a store in memory. It records what is sent. Its methods are
// safe for concurrent use, but fail the test only when called from its own
// goroutine.
type App struct {
	*lovage.App
	// Store is the broker and result store of this app alone.
	Store *memory.Store

	t testing.TB
	*state
}

// state is shared by the views of an app that For makes.
type state struct {
	mu      sync.Mutex // guards what follows
	sent    []Sent
	workers []*Worker
}

// For returns the same app for assertions in the name of t, such as a subtest.
func (x *App) For(t testing.TB) *App {
	view := *x
	view.t = t
	return &view
}

// New returns an app whose broker and result store are one fresh store in
// memory; the URLs of cfg are not used. Logs go to the test's output. When the
// test ends the workers are stopped, the app is closed, and the test fails if a
// message is still claimed or a worker has a slot taken.
func New(t testing.TB, cfg lovage.Config, opts ...lovage.AppOption) *App {
	t.Helper()
	return On(t, memory.New(), cfg, opts...)
}

// On is New with a store that the caller made: one with faults, or one that
// several apps share.
func On(t testing.TB, store *memory.Store, cfg lovage.Config, opts ...lovage.AppOption) *App {
	t.Helper()
	x := &App{Store: store, t: t, state: new(state)}
	all := []lovage.AppOption{
		lovage.WithLogger(slog.New(slog.NewTextHandler(t.Output(), nil))),
		lovage.WithBroker(func(context.Context) (broker.Conn, error) { return store.Broker(), nil }),
		lovage.WithBackend(func(context.Context) (backend.Backend, error) { return store.Backend(), nil }),
	}
	x.App = lovage.New(t.Name(), cfg, append(all, opts...)...)
	x.App.Signals.AfterTaskPublish.Connect(func(_ context.Context, e lovage.AfterTaskPublish) { x.record(e) })
	t.Cleanup(x.close)
	return x
}

// Main runs the tests of a package, in place of m.Run and os.Exit. A test binary
// that starts a worker with a process pool needs it: the pool starts the binary
// again for its children.
func Main(m *testing.M) {
	if lovage.IsChild() {
		os.Stderr.WriteString(worker.ErrChild.Error() + "\n")
		os.Exit(1)
	}
	os.Exit(m.Run())
}

// Worker is a worker in the test's process.
type Worker struct {
	*worker.Worker
	x      *App
	cancel context.CancelFunc
	done   chan struct{}
	err    error // once done is closed
}

// Start starts a worker and returns when it consumes. It has four slots unless
// cfg says otherwise.
func (x *App) Start(cfg worker.Config) *Worker {
	x.t.Helper()
	if cfg.Concurrency == 0 {
		cfg.Concurrency = 4
	}
	ready := make(chan struct{})
	told := cfg.Ready
	cfg.Ready = func(i worker.Info) {
		if told != nil {
			told(i)
		}
		close(ready)
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(x.t.Context()))
	w := &Worker{Worker: worker.New(x.App, cfg), x: x, cancel: cancel, done: make(chan struct{})}
	x.mu.Lock()
	x.workers = append(x.workers, w)
	x.mu.Unlock()
	go func() {
		defer close(w.done)
		w.err = w.Run(ctx)
	}()
	select {
	case <-ready:
	case <-w.done:
		x.t.Fatalf("lovagetest: the worker did not start: %v", w.err)
	}
	return w
}

// Shutdown stops the worker warm and waits until it is gone. It returns what Run
// returned.
func (w *Worker) Shutdown() error {
	w.cancel()
	<-w.done
	return w.err
}

func (x *App) close() {
	x.mu.Lock()
	workers := x.workers
	x.mu.Unlock()
	for _, w := range workers {
		if err := w.Shutdown(); err != nil {
			x.t.Errorf("lovagetest: worker %s: %v", w.Hostname(), err)
		}
		if s := w.Stats(); s.SlotsUsed > 0 || s.Active > 0 || s.Finishing > 0 {
			x.t.Errorf("lovagetest: worker %s ended with %d slots taken, %d runs active, %d unfinished", w.Hostname(), s.SlotsUsed, s.Active, s.Finishing)
		}
	}
	ctx := context.Background()
	if err := x.App.Close(ctx); err != nil {
		x.t.Errorf("lovagetest: close the app: %v", err)
	}
	if len(workers) == 0 {
		return
	}
	conn := x.Store.Broker()
	defer conn.Close()
	lengths, err := conn.Lengths(ctx)
	if err != nil {
		x.t.Errorf("lovagetest: count the queues: %v", err)
	}
	for name, n := range lengths {
		if n.Claimed > 0 {
			x.t.Errorf("lovagetest: %d messages of queue %q are still claimed", n.Claimed, name)
		}
	}
}
