package worker_test

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/lovage-go/lovage"
	"github.com/lovage-go/lovage/backend"
	"github.com/lovage-go/lovage/broker"
	"github.com/lovage-go/lovage/control"
	"github.com/lovage-go/lovage/worker"
)

// peerOf starts another worker on the same store, with an app of its own.
func (x *world) peerOf(conf lovage.Config, cfg worker.Config, tasks func(*lovage.App)) (app *lovage.App, stop func()) {
	x.t.Helper()
	app = lovage.New("peer", conf, lovage.WithLogger(slog.New(slog.NewTextHandler(x.log, &slog.HandlerOptions{Level: slog.LevelDebug}))),
		lovage.WithBroker(func(context.Context) (broker.Conn, error) { return x.store.Broker(), nil }),
		lovage.WithBackend(func(context.Context) (backend.Backend, error) { return x.store.Backend(), nil }))
	tasks(app)
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- worker.New(app, cfg).Run(ctx) }()
	synctest.Wait()
	return app, func() {
		x.t.Helper()
		cancel()
		if err := <-ended; err != nil {
			x.t.Errorf("peer: %v", err)
		}
		if err := app.Close(context.Background()); err != nil {
			x.t.Errorf("peer: %v", err)
		}
	}
}

func withTask(name string) func(*lovage.App) {
	return func(app *lovage.App) {
		lovage.Func(app, name, func(context.Context, lovage.Args) (any, error) { return name, nil })
	}
}

func TestMingle(t *testing.T) {
	t.Parallel()
	in(t, setup{tasks: withTask("t"), cfg: worker.Config{Hostname: "a@host"}}, func(x *world) {
		ctx := context.Background()
		replies, err := x.app.Control().Broadcast(ctx, "revoke", map[string]any{"task_id": "gone"}, one)
		want(x, ask(x, replies, err), "tasks {'gone'} flagged as revoked")
		x.app.Clock().Adjust(5000)
		pause(10 * time.Second)

		// Without a result store there is only mingle to learn it from.
		app := lovage.New("peer", lovage.Config{}, lovage.WithBroker(func(context.Context) (broker.Conn, error) { return x.store.Broker(), nil }),
			lovage.WithLogger(slog.New(slog.NewTextHandler(x.log, nil))))
		withTask("t")(app)
		running, cancel := context.WithCancel(ctx)
		ready := make(chan time.Duration, 1)
		began := time.Now()
		w := worker.New(app, worker.Config{Hostname: "b@host", Ready: func(worker.Info) { ready <- time.Since(began) }})
		ended := make(chan error, 1)
		go func() { ended <- w.Run(running) }()
		if took := <-ready; took > 0 {
			x.t.Errorf("the start took %s, want it not to wait for the others", took)
		}
		pause(2 * time.Second)
		o := control.Options{Reply: true, Destination: []string{"b@host"}}
		replies, err = x.app.Control().Inspect(ctx, "revoked", nil, o)
		if err != nil || len(replies) != 1 || string(replies[0].Value) != `["gone"]` {
			x.t.Errorf("revoked: got %v, %v; want what the other knew", replies, err)
		}
		if got := app.Clock().Value(); got < 5000 {
			x.t.Errorf("clock: got %d, want the other's", got)
		}
		x.wantLog(1, "mingle: synced with a@host")
		x.wantLog(0, "is shared with") // they know the same tasks
		cancel()
		if err := <-ended; err != nil {
			x.t.Error(err)
		}
		if err := app.Close(ctx); err != nil {
			x.t.Error(err)
		}
	})
}

func TestMingleOff(t *testing.T) {
	t.Parallel()
	var asked atomic.Int64
	hello := control.Command{Name: "hello", Run: func(context.Context, control.Node, control.Args) (any, error) { asked.Add(1); return nil, nil }}
	in(t, setup{cfg: worker.Config{Hostname: "a@host", WithoutMingle: true, Commands: []control.Command{hello}}}, func(x *world) {
		_, stop := x.peerOf(lovage.Config{}, worker.Config{Hostname: "b@host", WithoutMingle: true}, withTask("t"))
		pause(3 * time.Second)
		stop()
		if asked := asked.Load(); asked != 0 {
			x.t.Errorf("asked %d times, want never", asked)
		}
		_, stop = x.peerOf(lovage.Config{}, worker.Config{Hostname: "c@host"}, withTask("t"))
		pause(3 * time.Second)
		stop()
		if asked := asked.Load(); asked != 1 {
			x.t.Errorf("asked %d times, want once", asked)
		}
	})
}

func TestSharedQueuesAreToldOnce(t *testing.T) {
	t.Parallel()
	in(t, setup{tasks: withTask("go.add"), cfg: worker.Config{Hostname: "go@host"}}, func(x *world) {
		_, stop := x.peerOf(lovage.Config{}, worker.Config{Hostname: "py@host"}, withTask("py.add"))
		_, away := x.peerOf(lovage.Config{}, worker.Config{Hostname: "own@host", Queues: []string{"own"}}, withTask("own.add"))
		pause(5 * time.Minute)
		x.wantLog(1, `Queue celery is shared with go@host, but the workers do not know the same tasks: py.add only this one; go.add only the others;`)
		x.wantLog(1, "is shared with")
		away()
		stop()
	})
}

// stranger sends a call of a task that the world's worker does not know.
func (x *world) stranger(name, id string) {
	x.t.Helper()
	stamped(x, fmt.Sprintf(`{"lang": "py", "task": %q, "id": %q, "root_id": %q}`, name, id, id))
}

func TestUnknownTaskFails(t *testing.T) {
	t.Parallel()
	in(t, setup{conf: lovage.Config{WorkerUnknownTask: "fail"}}, func(x *world) {
		x.stranger("py.add", "s1")
		pause(time.Second)
		x.wantState("s1", lovage.Failure)
		if l := x.lengths("celery"); l.Ready+l.Delayed+l.Dead != 0 {
			x.t.Errorf("queue: got %+v, want nothing: the message was rejected", l)
		}
		x.wantLog(1, "Received unregistered task of type 'py.add'. The message is rejected.")
	})
}

func TestUnknownTaskReturns(t *testing.T) {
	t.Parallel()
	for name, store := range map[string]bool{"Parked": true, "Held": false} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := setup{conf: lovage.Config{WorkerUnknownTask: "return"}, cfg: worker.Config{Hostname: "go@host", Concurrency: 1}, tasks: withTask("go.add")}
			if !store {
				s.conn = func(c broker.Conn) broker.Conn { return noParkConn{c, c.(broker.Fanouter)} }
			}
			in(t, s, func(x *world) {
				var asked atomic.Int64
				count := control.Command{Name: "registered", Run: func(_ context.Context, n control.Node, _ control.Args) (any, error) {
					asked.Add(1)
					return []string{"py.add", "py.nap"}, nil
				}}
				// The peer knows the task, and at first does not take from the queue:
				// it is full.
				busy, stop := x.peerOf(lovage.Config{}, worker.Config{Hostname: "py@host", Concurrency: 1, LookAhead: -1, Commands: []control.Command{count}}, func(app *lovage.App) {
					withTask("py.add")(app)
					lovage.Func(app, "py.nap", func(ctx context.Context, _ lovage.Args) (any, error) {
						time.Sleep(time.Minute)
						return nil, nil
					})
				})
				pause(5 * time.Second)
				nap, err := busy.Task("py.nap")
				if err != nil {
					x.t.Fatal(err)
				}
				if _, err := nap.Delay(context.Background(), lovage.Args{}); err != nil {
					x.t.Fatal(err)
				}
				pause(10 * time.Second) // whoever met it, it has come to the peer
				asked.Store(0)
				before := x.w.Stats().Received
				for i := range 20 {
					x.stranger("py.add", fmt.Sprint("s", i))
				}
				pause(30 * time.Second)
				met := x.w.Stats().Received - before
				if met < 20 || met > 20*30 {
					x.t.Errorf("met 20 messages %d times in 30 s, want them back again and again, and no hot loop", met)
				}
				if asked := asked.Load(); asked < 1 || asked > 3 {
					x.t.Errorf("asked %d times in 30 s, want 1 to 3", asked)
				}
				pause(3 * time.Minute)
				for i := range 20 {
					x.wantState(fmt.Sprint("s", i), lovage.Success)
				}

				// Nobody knows it: a dead letter, once everybody was asked.
				x.stranger("nobody.knows", "s99")
				pause(30 * time.Second)
				x.wantState("s99", lovage.Failure)
				if dead := x.dead(); store && (len(dead) != 1 || dead[0].TaskID != "s99") { // the other broker has none
					x.t.Errorf("dead letters: got %+v, want s99", dead)
				}
				x.wantLog(1, "Task py.add is not known here")

				// The peer is gone: its tasks are nobody's once it is forgotten.
				stop()
				pause(3 * time.Minute)
				x.stranger("py.add", "s100")
				pause(time.Minute)
				x.wantState("s100", lovage.Failure)
				if strings.Contains(x.log.String(), "internal error") {
					x.t.Error(x.log)
				}
			})
		})
	}
}

func TestUnknownTaskReturnsOnlyWithRemoteControl(t *testing.T) {
	t.Parallel()
	off := false
	in(t, setup{conf: lovage.Config{WorkerUnknownTask: "return", WorkerEnableRemoteControl: &off}}, func(x *world) {
		x.wantLog(1, "worker_unknown_task is return, which needs remote control")
		x.stranger("py.add", "s1")
		pause(time.Second)
		x.wantState("s1", lovage.Failure)
		if dead := x.dead(); len(dead) != 1 {
			x.t.Errorf("dead letters: got %+v, want one", dead)
		}
	})
}

// noParkConn is a broker that can fan out and neither park nor keep dead letters.
type noParkConn struct {
	broker.Conn
	broker.Fanouter
}

func (c noParkConn) Features() broker.Features {
	f := c.Conn.Features()
	f.Park, f.Delay, f.DeadLetter = false, false, false
	return f
}
