package battery_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"runtime"
	"runtime/debug"
	"strings"
	"syscall"
	"time"

	"github.com/lovage-go/lovage"
	_ "github.com/lovage-go/lovage/backend/redisbackend"
	_ "github.com/lovage-go/lovage/backend/sqlbackend"
	_ "github.com/lovage-go/lovage/broker/amqpbroker"
	_ "github.com/lovage-go/lovage/broker/redisbroker"
	_ "github.com/lovage-go/lovage/broker/sqlbroker"
	"github.com/lovage-go/lovage/internal/proc"
	"github.com/lovage-go/lovage/protocol"
	"github.com/lovage-go/lovage/worker"
)

// work is the argument of battery.work and battery.kill.
type work struct {
	ID     string
	Millis int
	Mix    string
	Due    int64 // in ms; 0: at once
	Bytes  int   // that it takes
}

// flaky is the argument of battery.flaky, which fails as often and is tried
// again after as many milliseconds.
type flaky struct{ Failures, Millis int }

// What the limits of a task are, and how long after its own a deaf one returns.
const (
	softLimit = 200 * time.Millisecond
	hardLimit = 300 * time.Millisecond
	tooLate   = 3 * time.Second
)

type parts struct {
	app    *lovage.App
	ledger *ledger
	work   *lovage.Handle[work, string]
	kill   *lovage.Handle[work, string]
	after  *lovage.Handle[string, string]
	flaky  *lovage.Handle[flaky, int]
}

func newParts(r role, l *ledger, log *slog.Logger) *parts {
	app := lovage.New("battery", lovage.Config{BrokerURL: r.Broker, ResultBackend: r.Results}, lovage.WithLogger(log))
	p := &parts{app: app, ledger: l}
	var innocent, killer []lovage.TaskOption
	if r.Mix != "crash" { // there, who dies beside a killer too often is given up, and counted
		innocent = append(innocent, lovage.MaxWorkerLosses(lovage.NoLimit))
	}
	if r.Losses > 0 {
		killer = append(killer, lovage.MaxWorkerLosses(r.Losses))
	}
	p.work = lovage.Func(app, "battery.work", p.run, innocent...)
	p.kill = lovage.Func(app, "battery.kill", p.run, killer...)
	p.after = lovage.Func(app, "battery.after", func(ctx context.Context, parent string) (string, error) {
		l.write("after", parent, lovage.RequestFrom(ctx).ID, os.Getpid())
		return parent, nil
	}, innocent...)
	p.flaky = lovage.Func(app, "battery.flaky", func(ctx context.Context, in flaky) (int, error) {
		if n := lovage.RequestFrom(ctx).Retries; n < in.Failures {
			return 0, lovage.Retry(errors.New("once more"), lovage.Countdown(time.Duration(in.Millis)*time.Millisecond))
		}
		return in.Failures, nil
	})
	return p
}

func (p *parts) run(ctx context.Context, in work) (string, error) {
	r := lovage.RequestFrom(ctx)
	p.ledger.write("start", in.ID, r.Retries, os.Getpid())
	if in.Due > time.Now().UnixMilli() {
		p.ledger.write("early", in.ID)
	}
	select {
	case <-time.After(time.Duration(in.Millis) * time.Millisecond):
	case <-ctx.Done():
		return "", context.Cause(ctx)
	}
	defer func() { p.ledger.write("end", in.ID, r.Retries, os.Getpid()) }()
	switch f := fateOf(in.ID, in.Mix); f.name {
	case "fail":
		return "", errors.New("meant to fail")
	case "retry":
		if r.Retries == 0 {
			return "", lovage.Retry(errors.New("once more"), lovage.Countdown(50*time.Millisecond))
		}
	case "ignore":
		return "", lovage.ErrIgnore
	case "reject":
		return "", lovage.Reject(errors.New("not wanted"), false)
	case "panic":
		panic("meant to")
	case "soft":
		<-ctx.Done()
		return "", context.Cause(ctx)
	case "hard":
		<-time.After(hardLimit + tooLate)
	case "deaf":
		select {}
	case "leak":
		for range 100 {
			go func() { select {} }()
		}
	case "hoard":
		keepAlive = touched(in.Bytes)
	default:
		if f.kills {
			die(f.name)
		}
	}
	return "done " + in.ID, nil
}

// keepAlive is what a task has taken and not given back.
var keepAlive []byte

// touched is memory that the system has really given.
func touched(n int) []byte {
	b := make([]byte, n)
	for i := 0; i < n; i += os.Getpagesize() {
		b[i] = 1
	}
	return b
}

// die ends this process.
func die(how string) {
	self := os.Getpid()
	switch how {
	case "kill":
		_ = syscall.Kill(self, syscall.SIGKILL)
	case "exit":
		os.Exit(7)
	case "segv":
		_ = syscall.Kill(self, syscall.SIGSEGV)
	case "alone":
		go panic("meant to, alone")
	case "overflow":
		debug.SetMaxStack(1 << 20)
		deeper(0)
	case "memory":
		starve()
	}
	select {}
}

func deeper(n int) int {
	var pad [1024]byte
	pad[n%1024] = 1
	if n < 0 { // never
		return 0
	}
	return deeper(n+1) + int(pad[0])
}

// runWorker is a worker process.
func runWorker(r role) error {
	l, err := openLedger(r.Ledger)
	if err != nil {
		return err
	}
	log := slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn}))
	p := newParts(r, l, log)
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	w := worker.New(p.app, worker.Config{
		Hostname: fmt.Sprintf("%s%d@%%h", r.Kind, os.Getpid()), Pool: r.Pool, Concurrency: r.Slots, Lease: r.Lease, MaxMemoryPerChild: r.Memory,
		Ready: func(worker.Info) { fmt.Println("ready") },
	})
	asked := make(chan os.Signal, 1)
	signal.Notify(asked, syscall.SIGUSR1)
	if !proc.IsChild() {
		go tell(w, asked)
	}
	if err := w.Run(ctx); err != nil {
		return err
	}
	return p.app.Close(context.Background())
}

// tell prints the state of a worker whenever it is asked for.
func tell(w *worker.Worker, asked <-chan os.Signal) {
	for range asked {
		s := w.Stats()
		b, err := json.Marshal(state{s.SlotsUsed, s.Active, s.Reserved, s.Finishing, s.Stuck, runtime.NumGoroutine(), fixed(), s.Processed})
		if err != nil {
			panic(err)
		}
		fmt.Println(string(b))
	}
}

// fixed counts the goroutines that are not of the pool, which keeps some for the
// next burst.
func fixed() (n int) {
	buf := make([]byte, 1<<20)
	for _, stack := range strings.Split(string(buf[:runtime.Stack(buf, true)]), "\n\n") {
		if !strings.Contains(stack, "worker/internal/pool.") {
			n++
		}
	}
	return n
}

// send sends a task, with what its fate asks for.
func (p *parts) send(ctx context.Context, in work) (err error) {
	opts := []lovage.CallOption{lovage.TaskID(in.ID)}
	f := fateOf(in.ID, in.Mix)
	switch f.name {
	case "chain":
		return p.chain(ctx, in)
	case "link":
		opts = append(opts, lovage.Link(p.after.S(in.ID)))
	case "eta":
		due := time.Now().Add(time.Second)
		in.Due = due.UnixMilli()
		opts = append(opts, lovage.ETA(due))
	case "soft":
		opts = append(opts, lovage.SoftTimeLimit(softLimit))
	case "hard", "deaf":
		opts = append(opts, lovage.TimeLimit(hardLimit))
	}
	h := p.work
	if f.kills {
		h = p.kill
	}
	_, err = h.Delay(ctx, in, opts...)
	return err
}

// steps are the ids of the later steps of a chain.
func steps(id string) []string { return []string{id + ":2", id + ":3"} }

// chain sends a chain of a task and two steps more.
func (p *parts) chain(ctx context.Context, in work) error {
	step := func(id string) string {
		return fmt.Sprintf(`{"task": "battery.after", "args": [%q], "kwargs": {}, "options": {"task_id": %q}, "subtask_type": null, "immutable": true}`, id, id)
	}
	ids := steps(in.ID)
	return p.app.PublishMessages(ctx, &protocol.Message{
		Queue: "celery", RoutingKey: "celery",
		Body:       fmt.Appendf(nil, `[[%q, %d, %q, 0, 0], {}, {"callbacks": null, "errbacks": null, "chain": [%s, %s], "chord": null}]`, in.ID, in.Millis, in.Mix, step(ids[1]), step(ids[0])),
		Headers:    protocol.Headers{Lang: "py", Task: "battery.work", ID: in.ID, RootID: in.ID},
		Properties: protocol.Properties{ContentType: "application/json", ContentEncoding: "utf-8", CorrelationID: in.ID, DeliveryMode: 2},
	})
}

// runProducer sends tasks and writes each id to its ledger once the store has
// confirmed it.
func runProducer(r role) error {
	l, err := openLedger(r.Ledger)
	if err != nil {
		return err
	}
	p := newParts(r, l, slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn})))
	ctx := context.Background()
	fmt.Println("ready")
	began := time.Now()
	for i := range r.Tasks {
		<-time.After(time.Until(began.Add(time.Duration(i) * r.Pace)))
		in := work{ID: fmt.Sprint(r.Prefix, "-", i), Millis: i % 23, Mix: r.Mix}
		if err := p.send(ctx, in); err != nil {
			return fmt.Errorf("send %s: %w", in.ID, err)
		}
		l.write("sent", in.ID)
	}
	return p.app.Close(ctx)
}
