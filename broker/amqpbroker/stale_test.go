package amqpbroker_test

import (
	"context"
	"encoding/binary"
	"log/slog"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/lovage-go/lovage"
	"github.com/lovage-go/lovage/internal/testenv"
	"github.com/lovage-go/lovage/worker"
)

// TestStaleTags: the server closes the connections of a worker that runs a task.
// With worker_cancel_long_running_tasks_on_connection_loss the run is cancelled,
// without it goes on to its end; its message comes again by a new connection, and
// what is settled there is that, once, by its own tag: frames are recorded.
func TestStaleTags(t *testing.T) {
	t.Parallel()
	server := testenv.RabbitMQ(t)
	for name, on := range map[string]bool{"Cancelled": true, "RunsOn": false} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			vhost := server.Vhost(t)
			tp := newTap(t, server.Addr)
			results := testenv.Redis(t)
			conf := lovage.Config{BrokerURL: strings.Replace(vhost, server.Addr, tp.addr, 1), ResultBackend: results.URL(results.DB(t)), TaskDefaultQueue: "q",
				WorkerCancelLongRunningTasksOnConnectionLoss: &on}
			app := lovage.New("proj", conf, lovage.WithLogger(slog.New(slog.DiscardHandler)))
			var runs atomic.Int32
			started, again := make(chan struct{}, 2), make(chan struct{})
			ended := make(chan error, 1)
			long := lovage.Func(app, "t.long", func(ctx context.Context, in addArgs) (int, error) {
				started <- struct{}{}
				if runs.Add(1) > 1 {
					return in.X, nil
				}
				select {
				case <-ctx.Done():
				case <-again:
				}
				ended <- context.Cause(ctx)
				return in.X, context.Cause(ctx)
			})
			goWorkerWith(t, app, func(c *worker.Config) { c.Concurrency = 2 })
			ctx := limit(t, patience)
			res, err := long.Delay(ctx, addArgs{X: 7})
			if err != nil {
				t.Fatal(err)
			}
			wait := func(ch chan struct{}, what string) {
				t.Helper()
				select {
				case <-ch:
				case <-ctx.Done():
					t.Fatalf("not so: %s", what)
				}
			}
			wait(started, "the task has started")
			server.Control(t, "close_all_connections", "--vhost", vhostOf(vhost), "maintenance")
			if on {
				wait(started, "the task has started again")
			} else { // what comes again waits for the run, which goes on until the worker consumes again
				until(t, ctx, "the worker consumes again", func() bool {
					return len(slices.DeleteFunc(tp.all(), func(m method) bool { return m.name() != "60.20" || !strings.Contains(string(m.args), "\x01q") })) > 1
				})
				close(again)
			}
			if cause := <-ended; on != (cause != nil) {
				t.Errorf("the first run ended by %v, want it cancelled: %v", cause, on)
			}
			if n, err := res.Get(ctx); n != 7 || err != nil {
				t.Errorf("got %d, %v", n, err)
			}
			conn := open(t, vhost, nil)
			defer conn.Close()
			for tick := time.NewTicker(20 * time.Millisecond); ; <-tick.C { // the ack follows the result
				if len(settled(tp)) > 0 {
					break
				}
				if ctx.Err() != nil {
					t.Fatal("nothing was settled")
				}
			}
			list := settled(tp)
			if len(list) != 1 || list[0].name() != basicAck || binary.BigEndian.Uint64(list[0].args) != 1 {
				t.Fatalf("settled by %v, want one ack of tag 1", list)
			}
			for _, m := range tp.all() { // who consumed by the connection that the ack went by
				if m.name() == "60.20" && m.conn == list[0].conn {
					return
				}
			}
			t.Error("the ack went by a connection that does not consume")
		})
	}
}

// settled are the acks, rejects and nacks of q that a tap has seen.
func settled(tp *tap) (out []method) {
	for _, m := range tp.all() {
		switch m.name() {
		case basicAck, "60.90", "60.120":
			out = append(out, m)
		}
	}
	return out
}
