package matrix_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/lovage-go/lovage"
	"github.com/lovage-go/lovage/backend"
	"github.com/lovage-go/lovage/broker"
	"github.com/lovage-go/lovage/events"
	"github.com/lovage-go/lovage/internal/testenv"
	"github.com/lovage-go/lovage/worker"
)

// plan is what another process of this test needs to know: a child of a pool, or
// a worker that is to be killed.
type plan struct {
	Broker, Results, Ledger string
	Hostname                string
	Concurrency             int
	Pool                    string
	Lease                   time.Duration
}

const planKey = "LOVAGE_MATRIX"

// stores are the servers of one world.
type stores struct {
	conf  lovage.Config
	opts  []lovage.AppOption // of stores that live in this process
	proxy *testenv.Proxy     // between worker and broker; nil: there is none
	near  *lovage.Config     // the worker's, through the proxy
}

// world is a set of stores, a ledger, and a client that looks at both.
type world struct {
	*testing.T
	place
	stores
	cells  []cell
	ledger *ledger
	client *lovage.App
	conn   broker.Conn
	back   backend.Backend
	heard  *events.Receiver
	log    *logbook

	app *lovage.App
	w   *worker.Worker // of this process
	fin chan error
}

type logbook struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (l *logbook) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(p)
}

func (l *logbook) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.String()
}

func (l *logbook) tail() string {
	s := l.String()
	return s[max(0, len(s)-8000):]
}

// logged waits until the worker has logged something.
func (x *world) logged(text string) {
	x.Helper()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for late := time.After(patience); !strings.Contains(x.log.String(), text); {
		select {
		case <-tick.C:
		case <-late:
			x.Fatalf("not logged after %v: %s\n%s", patience, text, x.log.tail())
		}
	}
}

func appOf(conf lovage.Config, log *slog.Logger, opts ...lovage.AppOption) *lovage.App {
	return lovage.New("matrix", conf, append(opts, lovage.WithLogger(log))...)
}

func newWorld(t *testing.T, p place, s stores, cells []cell) *world {
	t.Helper()
	x := &world{T: t, place: p, stores: s, cells: cells, log: &logbook{}}
	quiet := slog.New(slog.NewTextHandler(&logbook{}, nil))
	x.client = appOf(s.conf, quiet, s.opts...)
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	var err error
	if x.back, err = x.client.Backend(ctx); err != nil {
		t.Fatal(err)
	}
	if x.conn, err = x.client.Broker(ctx); err != nil {
		t.Fatal(err)
	}
	if x.heard, err = events.Listen(ctx, x.conn, events.ListenConfig{}); err != nil {
		t.Fatal(err)
	}
	x.ledger = openLedger(t, x.state, x.onRun)
	t.Cleanup(func() {
		if err := errors.Join(x.heard.Close(), x.client.Close(context.Background())); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	return x
}

// state is what the result store has of a task.
func (x *world) state(id string) string {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	recs, err := x.back.Fetch(ctx, id)
	if err != nil {
		return err.Error()
	}
	return string(recs[0].State)
}

func (x *world) onRun(id string) {
	if strings.HasPrefix(id, string(terminated)) {
		x.w.Revoke(true, id)
	}
}

// send sends all cells.
func (x *world) send() {
	x.Helper()
	tasks := map[settings]*lovage.Handle[Order, string]{}
	for _, s := range allSettings() {
		tasks[s] = lovage.Remote[Order, string](x.client, "matrix."+s.String(), lovage.IgnoreResult(s.ignore))
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	for _, c := range x.cells {
		if _, err := tasks[c.settings].Delay(ctx, Order{string(c.end)}, c.options()...); err != nil {
			x.Fatal(err)
		}
	}
}

func (x *world) plan(cfg worker.Config) string {
	p := plan{x.conf.BrokerURL, x.conf.ResultBackend, x.ledger.path, cfg.Hostname, cfg.Concurrency, cfg.Pool, cfg.Lease}
	if p.Broker == "" { // a child opens neither: its parent keeps what it causes
		p.Broker, p.Results = "memory://none", "memory://none"
	}
	text, err := json.Marshal(p)
	if err != nil {
		x.Fatal(err)
	}
	return string(text)
}

// start starts a worker in this process and returns when it consumes.
func (x *world) start(cfg worker.Config) {
	x.Helper()
	conf := x.conf
	if x.near != nil {
		conf = *x.near
	}
	x.app = appOf(conf, slog.New(slog.NewTextHandler(x.log, nil)), x.opts...)
	declare(x.app, x.ledger.path)
	ready := make(chan struct{})
	cfg.TaskEvents, cfg.WithoutMingle, cfg.Pool = true, true, x.pool
	cfg.LookAhead = -1 // what is handed back unstarted is received twice
	cfg.Ready = func(worker.Info) { close(ready) }
	cfg.ChildEnv = []string{planKey + "=" + x.plan(cfg)}
	x.w, x.fin = worker.New(x.app, cfg), make(chan error, 1)
	go func() { x.fin <- x.w.Run(context.Background()) }()
	select {
	case <-ready:
	case err := <-x.fin:
		x.Fatalf("worker: %v\n%s", err, x.log.tail())
	case <-time.After(patience):
		x.Fatalf("the worker is not ready\n%s", x.log.tail())
	}
}

// ended wants the worker to have stopped well.
func (x *world) ended() {
	x.Helper()
	select {
	case err := <-x.fin:
		if err != nil {
			x.Errorf("worker: %v", err)
		}
	case <-time.After(patience):
		x.Fatalf("the worker does not stop: %+v\n%s", x.w.Stats(), x.log.tail())
	}
	if err := x.app.Close(context.Background()); err != nil {
		x.Errorf("close: %v", err)
	}
}

// settle waits until nothing is left to do: no message, no run, and each cell has
// run as often as the model says. Where one does not, the comparison tells.
func (x *world) settle() {
	x.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for calm := 0; calm < 3 || !x.done(); { // a message on its way from queue to worker is in neither
		all, err := x.conn.(broker.Lengther).Lengths(ctx, queue)
		n, s := all[queue], x.w.Stats()
		if calm++; err != nil || n.Ready > 0 || n.Claimed > 0 || n.Delayed > 0 || s.SlotsUsed+s.Active+s.Reserved+s.Finishing > 0 || !x.began() {
			calm = 0
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			if calm >= 3 {
				return
			}
			x.Fatalf("not settled: %+v, %v; %+v\nnever ran: %v\n%s", n, err, s, x.missing(), x.log.tail())
		}
	}
}

// done reports whether each cell has been received and run as often as it is to be.
func (x *world) done() bool {
	x.ledger.mu.Lock()
	defer x.ledger.mu.Unlock()
	for _, c := range x.cells {
		received, runs := expect(c, x.place).again()
		if a := x.ledger.tasks[c.id()]; a == nil || a.runs < runs || received > 1 && a.back == nil {
			return false
		}
	}
	return true
}

// began reports whether each cell has run.
func (x *world) began() bool {
	x.ledger.mu.Lock()
	defer x.ledger.mu.Unlock()
	return x.ledger.running(x.cells)()
}

// missing are the cells that have not run, with what they did.
func (x *world) missing() (list []string) {
	x.ledger.mu.Lock()
	defer x.ledger.mu.Unlock()
	for _, c := range x.cells {
		if !x.ledger.running([]cell{c})() {
			list = append(list, fmt.Sprintf("%s %+v", c.id(), x.ledger.tasks[c.id()]))
		}
	}
	return list
}

const queue = "celery"

// hearStarted collects events until each cell has begun for monitors too.
func (x *world) hearStarted() {
	x.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	for n := 0; n < len(x.cells); {
		e, err := x.heard.Next(ctx)
		if err != nil {
			x.Fatalf("after %d starts: %v\n%s", n, err, x.log.tail())
		}
		if e.Type == events.TaskStarted {
			n++
		}
		x.hear(e)
	}
}

// listen collects events until a number of workers have gone offline.
func (x *world) listen(workers int) {
	x.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	for workers > 0 {
		e, err := x.heard.Next(ctx)
		if err != nil {
			x.Fatalf("the end of the events: %v\n%s", err, x.log.tail())
		}
		if e.Type == events.WorkerOffline {
			workers--
		}
		x.hear(e)
	}
}

// hear notes an event.
func (x *world) hear(e events.Event) {
	if events.Group(e.Type) != "task" {
		return
	}
	x.ledger.mu.Lock()
	defer x.ledger.mu.Unlock()
	if a := x.ledger.tasks[e.UUID]; a != nil {
		a.events = append(a.events, e.Type)
	}
}

// observed is what each cell came to.
func (x *world) observed() map[cell]outcome {
	x.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	list, err := x.conn.(broker.DeadLetterer).DeadLetters(ctx, "", "", 10_000)
	if err != nil {
		x.Fatal(err)
	}
	dead := map[string]bool{}
	for _, d := range list {
		dead[d.TaskID] = true
	}
	out := map[cell]outcome{}
	for _, c := range x.cells {
		id := c.id()
		a := x.ledger.tasks[id]
		if a == nil {
			x.Fatalf("%s was never received\n%s", c, x.log.tail())
		}
		o := outcome{State: a.state, Fate: acked, Steps: a.steps, Events: a.first()}
		switch {
		case a.runs > 2:
			o.Fate = fmt.Sprintf("ran %d times", a.runs)
		case a.back != nil:
			o.Fate = a.fate()
		case dead[id]:
			o.Fate = deadLetter
		}
		if a.back == nil {
			o.State = x.state(id)
		} else if dead[id] {
			o.Fate += ", and a " + deadLetter
		}
		out[c] = o
	}
	return out
}

// fate is that of a message which came again.
func (a *account) fate() string {
	switch {
	case a.runs == 1:
		return known
	case a.back.Retries > 0:
		return sentAgain
	case a.back.Losses > 0:
		return redelivered
	}
	return inQueue
}

// firstRun takes the events of the second run, which ended well, out of those of
// both: how these mingle is up to the scheduler.
func firstRun(list []string) []string {
	list = slices.Clone(list)
	for _, second := range []string{events.TaskReceived, events.TaskStarted, events.TaskSucceeded} {
		for i := len(list) - 1; i >= 0; i-- {
			if list[i] == second {
				list = slices.Delete(list, i, i+1)
				break
			}
		}
	}
	return list
}

// child is what this program does as a child of a pool, or as a worker that is to
// be killed.
func child(text string) error {
	var p plan
	if err := json.Unmarshal([]byte(text), &p); err != nil {
		return err
	}
	app := appOf(lovage.Config{BrokerURL: p.Broker, ResultBackend: p.Results}, slog.New(slog.NewTextHandler(os.Stderr, nil)))
	declare(app, p.Ledger)
	return worker.Run(context.Background(), app, worker.Config{Hostname: p.Hostname, Concurrency: p.Concurrency, Pool: p.Pool, Lease: p.Lease, TaskEvents: true, WithoutMingle: true, LookAhead: -1})
}
