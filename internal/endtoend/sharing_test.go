package endtoend_test

import (
	"context"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/lovage-go/lovage"
	_ "github.com/lovage-go/lovage/backend/redisbackend"
	"github.com/lovage-go/lovage/broker"
	_ "github.com/lovage-go/lovage/broker/amqpbroker"
	_ "github.com/lovage-go/lovage/broker/redisbroker"
	"github.com/lovage-go/lovage/control"
	"github.com/lovage-go/lovage/internal/testenv"
	"github.com/lovage-go/lovage/worker"
)

// onEachBroker runs a test with each broker, and results beside it.
func onEachBroker(t *testing.T, test func(t *testing.T, calls, results string)) {
	redis := func(t *testing.T) string { s := testenv.Redis(t); return s.URL(s.DB(t)) }
	for name, open := range map[string]func(t *testing.T) (calls, results string){
		"Memory":   func(t *testing.T) (string, string) { return "memory://" + t.Name(), "memory://" + t.Name() },
		"SQLite":   func(t *testing.T) (string, string) { url := file(t); return url, url },
		"Redis":    func(t *testing.T) (string, string) { url := redis(t); return url, url },
		"RabbitMQ": func(t *testing.T) (string, string) { return testenv.RabbitMQ(t).Vhost(t), redis(t) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			calls, results := open(t)
			test(t, calls, results)
		})
	}
}

// runs notes who ran what, in order.
type runs struct {
	mu   sync.Mutex
	list []run
	bell chan struct{}
	held chan struct{} // closed when those that are held may end
}

type run struct {
	worker, task, queue string
	at                  time.Time
}

func newRuns() *runs { return &runs{bell: make(chan struct{}, 1), held: make(chan struct{})} }

func (r *runs) note(worker string, req *lovage.Request) {
	r.mu.Lock()
	r.list = append(r.list, run{worker, req.Task, req.Delivery.Queue, time.Now()})
	r.mu.Unlock()
	select {
	case r.bell <- struct{}{}:
	default:
	}
}

// until waits until so many runs of those that are meant have begun, and returns
// all of that time.
func (r *runs) until(t *testing.T, n int, meant func(run) bool) []run {
	t.Helper()
	late := time.After(patience)
	for {
		r.mu.Lock()
		count, list := 0, append([]run(nil), r.list...)
		r.mu.Unlock()
		for _, x := range list {
			if meant(x) {
				count++
			}
		}
		if count >= n {
			return list
		}
		select {
		case <-r.bell:
		case <-late:
			var when []string
			for _, x := range list {
				if x.task == "t.limited" {
					when = append(when, x.worker+" "+x.at.Sub(list[0].at).Round(10*time.Millisecond).String())
				}
			}
			t.Fatalf("%d of %d runs within %s: %v", count, n, patience, when)
		}
	}
}

func (r *runs) task(name string) func(run) bool { return func(x run) bool { return x.task == name } }

func count(list []run, meant func(run) bool) (n int) {
	for _, x := range list {
		if meant(x) {
			n++
		}
	}
	return n
}

// hold is how long a run takes that ends when the test says so.
const hold = -1

// crew starts a worker whose tasks are noted: t.limited, 2/s in each worker;
// t.free; and t.slow, which takes as long as it is told, in milliseconds, or is held.
func crew(t *testing.T, name string, conf lovage.Config, cfg worker.Config, log *runs) *worker.Worker {
	t.Helper()
	app := lovage.New("crew", conf, lovage.WithLogger(slog.New(slog.DiscardHandler)))
	body := func(ctx context.Context, millis int) (int, error) {
		log.note(name, lovage.RequestFrom(ctx))
		if millis == hold {
			<-log.held
		}
		<-time.After(time.Duration(millis) * time.Millisecond)
		return 0, nil
	}
	lovage.Func(app, "t.limited", body, lovage.RateLimit("2/s"))
	lovage.Func(app, "t.free", body)
	lovage.Func(app, "t.slow", body)
	ready, ended := make(chan struct{}), make(chan error, 1)
	cfg.Hostname, cfg.Ready = name+"@test", func(worker.Info) { close(ready) }
	w := worker.New(app, cfg)
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	go func() { ended <- w.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := receive(t, ended); err != nil {
			t.Errorf("worker %s: %v", name, err)
		}
		_ = app.Close(context.Background())
	})
	receive(t, ready)
	return w
}

// caller is a client that sends many calls of a task.
func caller(t *testing.T, conf lovage.Config) (*lovage.App, func(task string, n, millis int, opts ...lovage.CallOption)) {
	t.Helper()
	app := lovage.New("caller", conf, lovage.WithLogger(slog.New(slog.DiscardHandler)))
	t.Cleanup(func() { _ = app.Close(context.Background()) })
	return app, func(task string, n, millis int, opts ...lovage.CallOption) {
		t.Helper()
		for range n {
			if _, err := app.Send(t.Context(), task, lovage.Args{Positional: []any{millis}}, opts...); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// TestRateLimitSharesAQueue: of two types in one queue the limited one does not
// hold the other up, and its messages are not hoarded: a second worker has its
// share of them, at its own rate.
func TestRateLimitSharesAQueue(t *testing.T) {
	t.Parallel()
	onEachBroker(t, func(t *testing.T, calls, results string) {
		const limited, free = 20, 30
		conf := lovage.Config{BrokerURL: calls, ResultBackend: results}
		log := newRuns()
		app, send := caller(t, conf)
		one := crew(t, "one", conf, worker.Config{Concurrency: 2}, log)
		two := crew(t, "two", conf, worker.Config{Concurrency: 2}, log)
		send("t.limited", limited, 0)
		send("t.free", free, 0)
		list := log.until(t, free, log.task("t.free"))
		if n := count(list, log.task("t.limited")); n == limited {
			t.Errorf("all %d limited tasks ran before the last of the others, which should flow", n)
		}
		if n := one.Stats().Parked + two.Stats().Parked; n == 0 {
			t.Error("no message was parked")
		}
		list = log.until(t, limited, log.task("t.limited"))
		at := map[string][]time.Time{}
		for _, x := range list {
			if x.task == "t.limited" {
				at[x.worker] = append(at[x.worker], x.at)
			}
		}
		for name, times := range at {
			// A start may be late, and the next one on time: half of the rate's time at least.
			if took, least := times[len(times)-1].Sub(times[0]), time.Duration(len(times)-1)*250*time.Millisecond; took < least {
				t.Errorf("worker %s: %d limited runs in %s, want %s at least", name, len(times), took, least)
			}
		}
		if len(at) != 2 {
			t.Errorf("limited runs by worker: got %d and %d, want both to have some", len(at["one"]), len(at["two"]))
		}
		// Another rate at run time: none at all.
		replies, err := app.Control().RateLimit(t.Context(), "t.limited", "0", control.Options{Reply: true, Limit: 2, Timeout: patience})
		if err != nil || len(replies) != 2 {
			t.Fatalf("rate_limit: got %v, %v, want two replies", replies, err)
		}
		send("t.limited", 400, 0) // at the old rate of both they would take 100 s
		log.until(t, limited+400, log.task("t.limited"))
	})
}

// TestSlowTasksAreNotHoarded: a worker that is busy with long tasks has none of
// the others in its hands, so that a second worker runs them.
func TestSlowTasksAreNotHoarded(t *testing.T) {
	t.Parallel()
	onEachBroker(t, func(t *testing.T, calls, results string) {
		conf := lovage.Config{BrokerURL: calls, ResultBackend: results}
		log := newRuns()
		_, send := caller(t, conf)
		one := crew(t, "one", conf, worker.Config{Concurrency: 1}, log)
		send("t.free", 40, 1) // it has seen short runs, and looks ahead
		log.until(t, 40, log.task("t.free"))
		t.Cleanup(func() { close(log.held) })
		send("t.slow", 1, hold)
		log.until(t, 1, log.task("t.slow"))
		send("t.free", 20, 1)
		crew(t, "two", conf, worker.Config{Concurrency: 1}, log)
		list := log.until(t, 60, log.task("t.free"))
		if n := count(list, func(x run) bool { return x.worker == "two" }); n != 20 {
			t.Errorf("short tasks of the second worker: got %d, want all 20 behind the long one", n)
		}
		if n := one.Stats().Reserved; n != 0 {
			t.Errorf("the busy worker still has %d messages that it does not run", n)
		}
	})
}

// TestQueuesTakeTurns: a flood in one queue does not starve another; where the
// queues have an order, the first one is emptied first.
func TestQueuesTakeTurns(t *testing.T) {
	t.Parallel()
	of := func(queue string) func(run) bool { return func(x run) bool { return x.queue == queue } }
	onEachBroker(t, func(t *testing.T, calls, results string) {
		strategies := []string{"round_robin", "priority", "sorted"}
		if strings.HasPrefix(calls, "amqp:") { // the server pushes from all queues at once
			strategies = strategies[:1]
		}
		for _, strategy := range strategies {
			t.Run(strategy, func(t *testing.T) {
				t.Parallel()
				conf := lovage.Config{
					BrokerURL: calls, ResultBackend: results,
					BrokerTransportOptions: map[string]any{"queue_order_strategy": strategy},
				}
				// The flood comes first by name and in the order; sorted is told by a worker
				// that names them the other way round.
				flood, other := strategy+"-a", strategy+"-b"
				queues := []string{flood, other}
				if strategy == "sorted" {
					queues = []string{other, flood}
				}
				log := newRuns()
				_, send := caller(t, conf)
				send("t.slow", 60, 20, lovage.Queue(flood))
				send("t.slow", 5, 20, lovage.Queue(other))
				crew(t, "one", conf, worker.Config{Concurrency: 1, LookAhead: -1, Queues: queues}, log)
				list := log.until(t, 65, func(run) bool { return true })
				last, before := 0, 0 // the last of the other queue; and of it before the flood's last ten
				for i, x := range list {
					if of(other)(x) {
						last = i
						if i < 50 {
							before++
						}
					}
				}
				switch {
				case strategy == "round_robin" && last > 40:
					t.Errorf("the last of five in the other queue ran after %d of the flood, want turns", last-4)
				case strategy != "round_robin" && before > 1:
					t.Errorf("%d of the other queue ran while the first one had more than ten, want it to be emptied first", before)
				}
			})
		}
	})
}

// TestQueuesAtRunTime: queues are added with all that describes them, and
// cancelled, while the worker runs.
func TestQueuesAtRunTime(t *testing.T) {
	t.Parallel()
	onEachBroker(t, func(t *testing.T, calls, results string) {
		conf := lovage.Config{BrokerURL: calls, ResultBackend: results, TaskDefaultQueue: "main", TaskQueues: []broker.Queue{broker.Named("main"), broker.Named("left")}}
		log := newRuns()
		app, send := caller(t, conf)
		crew(t, "one", conf, worker.Config{Concurrency: 1, ExcludeQueues: []string{"left"}}, log)
		ask := control.Options{Reply: true, Limit: 1, Timeout: patience}
		answer := func(want string) func([]control.Reply, error) {
			return func(replies []control.Reply, err error) {
				t.Helper()
				if err != nil || len(replies) != 1 || replies[0].OK() != want {
					t.Fatalf("got %v, %v, want %q", replies, err, want)
				}
			}
		}
		send("t.free", 1, 0, lovage.Queue("left")) // -X
		send("t.free", 1, 0, lovage.Queue("main"))
		list := log.until(t, 1, func(run) bool { return true })
		if list[0].queue != "main" {
			t.Errorf("the first run is from queue %s, which is excluded", list[0].queue)
		}
		for i, q := range []broker.Queue{
			{Name: "left"},
			{Name: "plain"},
			{Name: "direct", Exchange: broker.Exchange{Name: "parcels", Type: "direct"}, RoutingKey: "small"},
			{Name: "topic", Exchange: broker.Exchange{Name: "news", Type: "topic"}, RoutingKey: "sports.#"},
			{Name: "fanout", Exchange: broker.Exchange{Name: "alarm", Type: "fanout"}},
		} {
			answer("add consumer " + q.Name)(app.Control().AddConsumer(t.Context(), q, ask))
			address := []lovage.CallOption{lovage.Queue(q.Name)}
			if q.Exchange.Name != "" {
				address = []lovage.CallOption{lovage.Exchange(q.Exchange.Name), lovage.RoutingKey(map[string]string{"direct": "small", "topic": "sports.golf.open"}[q.Exchange.Type])}
			}
			if q.Name != "left" { // where one waits already
				send("t.free", 1, 0, address...)
			}
			list = log.until(t, 2+i, func(run) bool { return true })
			if got := list[1+i].queue; got != q.Name {
				t.Errorf("run %d is from queue %s, want %s", 1+i, got, q.Name)
			}
		}
		before := len(list)
		answer("no longer consuming from plain")(app.Control().CancelConsumer(t.Context(), "plain", ask))
		send("t.free", 1, 0, lovage.Queue("plain"))
		send("t.free", 1, 0, lovage.Queue("main"))
		list = log.until(t, before+1, func(run) bool { return true })
		if got := list[before].queue; got != "main" {
			t.Errorf("after the cancelling: a run from queue %s, want main", got)
		}
		answer("add consumer plain")(app.Control().AddConsumer(t.Context(), broker.Queue{Name: "plain"}, ask))
		list = log.until(t, before+2, func(run) bool { return true })
		if got := list[before+1].queue; got != "plain" {
			t.Errorf("after it was added again: a run from queue %s, want plain", got)
		}
	})
}
