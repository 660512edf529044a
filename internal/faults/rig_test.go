package faults_test

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"runtime/pprof"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/lovage-go/lovage"
	"github.com/lovage-go/lovage/backend/rpcbackend"
	"github.com/lovage-go/lovage/broker"
	"github.com/lovage-go/lovage/internal/testenv"
	"github.com/lovage-go/lovage/worker"
)

var (
	full = flag.Bool("battery", false, "run the full form: minutes")
	seed = flag.Uint64("seed", 1, "of what is sent and when it goes wrong")
)

// size picks a figure of the short form or of the full one.
func size[T any](short, long T) T {
	if *full {
		return long
	}
	return short
}

// patience is how long anything is waited for that is no consuming.
const patience = time.Minute

// within is how soon a worker must consume again once its server is well. The
// short form runs beside everything else and is patient.
func within() time.Duration { return size(30*time.Second, 5*time.Second) }

// stores are the servers of one test.
type stores struct {
	through lovage.Config // what the worker is given: by the proxies
	direct  lovage.Config // for clients, who are not what is tested
	broker  *testenv.Proxy
	results *testenv.Proxy // the same one where broker and results share a server
	forgets bool           // results may be lost
	asks    bool           // each result is waited for from its call on; what is lost is told
	resends bool           // a run whose ack is lost has sent its callbacks, and the next one sends them again
}

// fault is done to a rig. It returns when the server is well again.
type fault struct {
	name string
	// repeats says why a task may run twice; empty: each runs exactly once.
	repeats string
	// deaths says why deaths may be counted though nobody died.
	deaths string
	do     func(r *rig)
}

// rig is a worker in this process with tasks that wait, run and end all the time.
type rig struct {
	*testing.T
	stores
	rnd    *rand.Rand
	w      *worker.Worker
	stop   func() // stops the worker, warm, and wants it to end well
	client *lovage.App
	nap    *lovage.Handle[napArgs, string]
	after  *lovage.Handle[string, lovage.None]
	ledger *ledger
	log    *logbook
	cfg    worker.Config

	asking context.Context // of those who wait for results
	enough context.CancelFunc
	waits  sync.WaitGroup

	fed     int          // tasks that feed has made
	refused atomic.Int64 // tasks that could not be sent
}

type napArgs struct {
	ID     string
	Millis int
}

// ledger is what really happened, kept outside of the stores.
type ledger struct {
	mu     sync.Mutex
	sent   map[string]bool // confirmed
	starts map[string]int
	ended  map[string]time.Time
	ends   map[string]int            // OnSuccess: the effects of the run are kept
	linked map[string]map[string]int // runs of the callbacks of a task, by their ids
	got    map[string]error          // answers to who has waited from the call on
	news   chan struct{}             // closed at each change
}

func (l *ledger) note(do func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	do()
	close(l.news)
	l.news = make(chan struct{})
}

// wait waits until the ledger says so.
func (l *ledger) wait(limit time.Duration, is func() bool) bool {
	late := time.After(limit)
	for {
		l.mu.Lock()
		ok, news := is(), l.news
		l.mu.Unlock()
		if ok {
			return true
		}
		select {
		case <-news:
		case <-late:
			return false
		}
	}
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

func (l *logbook) count(text string) int { return strings.Count(l.String(), text) }

func (r *rig) app(conf lovage.Config, log io.Writer) (*lovage.App, *lovage.Handle[napArgs, string]) {
	conf.TaskDefaultQueue = "q"
	app := lovage.New("faults", conf, lovage.WithLogger(slog.New(slog.NewTextHandler(log, nil))))
	nap := lovage.Func(app, "faults.nap", func(_ context.Context, in napArgs) (string, error) {
		r.ledger.note(func() { r.ledger.starts[in.ID]++ })
		<-time.After(time.Duration(in.Millis) * time.Millisecond)
		return in.ID, nil
	})
	r.after = lovage.Proc(app, "faults.after", func(ctx context.Context, parent string) error {
		r.ledger.note(func() { r.ledger.linked[parent][lovage.RequestFrom(ctx).ID]++ })
		return nil
	}, lovage.IgnoreResult(true))
	app.Signals.TaskSuccess.Connect(func(_ context.Context, s lovage.TaskSuccess) {
		if s.Task.Name() == "faults.nap" {
			r.ledger.note(func() { r.ledger.ends[s.Request.ID]++; r.ledger.ended[s.Request.ID] = time.Now() })
		}
	})
	return app, nap
}

// start starts the worker, and returns when it consumes.
func (r *rig) start() {
	app, _ := r.app(r.through, r.log)
	ready := make(chan struct{})
	r.cfg.Hostname, r.cfg.Concurrency, r.cfg.Ready = "faults@%h", 4, func(worker.Info) { close(ready) }
	r.w = worker.New(app, r.cfg)
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- r.w.Run(ctx) }()
	var once sync.Once
	end := func() {
		cancel()
		select {
		case err := <-ended:
			if err != nil {
				r.Errorf("worker: %v", err)
			}
		case <-time.After(patience): // an end that the store has not answered is waited for, 30 s
			var stacks bytes.Buffer
			_ = pprof.Lookup("goroutine").WriteTo(&stacks, 1)
			r.Errorf("the worker does not stop; log:\n%s\n%s", r.tail(), &stacks)
			return
		}
		if err := app.Close(context.Background()); err != nil {
			r.Errorf("close: %v", err)
		}
	}
	r.stop = func() { once.Do(end) }
	r.Cleanup(r.stop)
	select {
	case <-ready:
	case err := <-ended:
		ended <- err
		r.Fatalf("worker: %v", err)
	case <-time.After(patience):
		r.Fatalf("the worker is not ready after %v:\n%s", patience, r.tail())
	}
}

func (r *rig) tail() string {
	s := r.log.String()
	return s[max(0, len(s)-6000):]
}

// send sends a task around the proxy. Whoever gets an error does not know
// whether it was sent, and it is not in the ledger.
func (r *rig) send(ctx context.Context, id string, d time.Duration, link bool) error {
	opts := []lovage.CallOption{lovage.TaskID(id)}
	if link {
		r.ledger.note(func() { r.ledger.linked[id] = map[string]int{} })
		opts = append(opts, lovage.Link(r.after.After()))
	}
	_, err := r.nap.Delay(ctx, napArgs{id, int(d.Milliseconds())}, opts...)
	if err == nil {
		r.ledger.note(func() { r.ledger.sent[id] = true })
	}
	if err == nil && r.asks {
		r.waits.Go(func() {
			got, err := r.client.Result(id).Get(r.asking)
			if err == nil && got != any(id) {
				err = fmt.Errorf("the result is %v", got)
			}
			r.ledger.note(func() { r.ledger.got[id] = err })
		})
	}
	return err
}

// answered ends the waits for results. What was sent before a task whose result
// comes has come, or is lost.
func (r *rig) answered() {
	r.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	for i := 0; ; i++ {
		id := name("last", i)
		if r.send(ctx, id, 0, false) == nil && r.ledger.wait(5*time.Second, func() bool { _, ok := r.ledger.got[id]; return ok }) {
			break
		}
		if ctx.Err() != nil {
			r.Fatalf("no result comes to the caller any more: %+v\n%s", r.w.Stats(), r.tail())
		}
		r.ledger.note(func() { delete(r.ledger.sent, id) })
	}
	r.enough()
	r.waits.Wait()
}

// feed keeps some tasks waiting until the returned function is called. One in
// ten runs for long enough to live through what is done meanwhile.
func (r *rig) feed() (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	rnd := rand.New(rand.NewPCG(*seed, 7))
	wg.Go(func() {
		for ; ctx.Err() == nil; r.fed++ {
			i := r.fed
			few := func() bool { return len(r.ledger.sent)-len(r.ledger.ends) < 40 }
			if !r.ledger.wait(100*time.Millisecond, few) {
				continue
			}
			d := time.Duration(rnd.IntN(30)) * time.Millisecond
			if i%10 == 0 {
				d = time.Duration(200+rnd.IntN(1000)) * time.Millisecond
			}
			bounded, end := context.WithTimeout(ctx, 2*time.Second)
			if r.send(bounded, name("t", i), d, i%5 == 0) != nil {
				r.refused.Add(1)
				<-time.After(20 * time.Millisecond)
			}
			end()
		}
	})
	return func() { cancel(); wg.Wait() }
}

func newRig(t *testing.T, s stores, cfg worker.Config) *rig {
	r := &rig{T: t, stores: s, cfg: cfg, rnd: rand.New(rand.NewPCG(*seed, 1)), log: &logbook{},
		ledger: &ledger{sent: map[string]bool{}, starts: map[string]int{}, ends: map[string]int{}, ended: map[string]time.Time{}, linked: map[string]map[string]int{}, got: map[string]error{}, news: make(chan struct{})}}
	r.asking, r.enough = context.WithCancel(context.Background())
	t.Cleanup(func() { r.enough(); r.waits.Wait() })
	// A client that sends again what may have arrived sends it twice.
	s.direct.TaskPublishRetry = new(false)
	r.client, r.nap = r.app(s.direct, io.Discard)
	t.Cleanup(func() { r.client.Close(context.Background()) })
	return r
}

// try does a fault to a worker at work and looks at what has become of it.
func try(t *testing.T, s stores, cfg worker.Config, f fault) *rig {
	r := newRig(t, s, cfg)
	r.start()
	stop := r.feed()
	if !r.ledger.wait(patience, func() bool { return len(r.ledger.ends) >= 20 }) {
		t.Fatalf("the worker does not work before anything is done to it:\n%s", r.tail())
	}
	f.do(r)
	took := r.consumes("after")
	stop()
	r.settled(f)
	if !t.Failed() {
		if n := r.lost(); n > 0 {
			t.Logf("%d results are lost, as who waited was told", n)
		}
		r.report(strings.TrimPrefix(t.Name(), "Test"), took, tally{})
	}
	return r
}

// lost counts the results that were lost, of which who waited was told.
func (r *rig) lost() (n int) {
	r.ledger.mu.Lock()
	defer r.ledger.mu.Unlock()
	for _, err := range r.ledger.got {
		if errors.Is(err, rpcbackend.ErrResultLost) {
			n++
		}
	}
	return n
}

// tally is what has come of a worker so far.
type tally struct{ sent, again, losses int }

func (r *rig) tally() (n tally) {
	r.ledger.mu.Lock()
	defer r.ledger.mu.Unlock()
	for _, runs := range r.ledger.starts {
		n.again += runs - 1
	}
	n.sent, n.losses = len(r.ledger.sent), r.log.count("consumer: connection lost")
	return n
}

// report logs a row of docs/battery.md.
func (r *rig) report(name string, took time.Duration, before tally) {
	n := r.tally()
	r.Logf("fault {%q: %q, \"tasks\": %d, \"repeated\": %d, \"again\": %q, \"losses\": %d}", "name", name,
		max(n.sent-before.sent, 0), n.again-before.again, took, n.losses-before.losses)
}

// consumes wants a task that is sent now to start in time.
func (r *rig) consumes(id string) time.Duration {
	r.Helper()
	well := time.Now()
	ctx, cancel := context.WithTimeout(context.Background(), within())
	defer cancel()
	for i := 0; ; i++ { // the client's connections have their own losses
		try := name(id+".", i)
		err := r.send(ctx, try, 0, false)
		if err == nil {
			id = try
			break
		}
		if ctx.Err() != nil {
			r.Fatalf("the server is not well: %v", err)
		}
		<-time.After(20 * time.Millisecond)
	}
	if !r.ledger.wait(within(), func() bool { return r.ledger.starts[id] > 0 }) {
		r.Errorf("%q did not start within %v of the server being well: %+v\n%s", id, within(), r.w.Stats(), r.tail())
	}
	return time.Since(well).Round(time.Millisecond)
}

// until wants something to be so in time.
func (r *rig) until(limit time.Duration, what string, is func() bool) {
	r.Helper()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for late := time.After(limit); !is(); {
		select {
		case <-tick.C:
		case <-late:
			r.Fatalf("not so after %v: %s; %+v\n%s", limit, what, r.w.Stats(), r.tail())
		}
	}
}

// settled wants every task done, as often as the fault allows, nothing claimed
// and no slot taken.
func (r *rig) settled(f fault) {
	r.Helper()
	l := r.ledger
	patience := 2*r.cfg.Lease + patience
	done := func() bool {
		for id := range l.sent {
			if calls, linked := l.linked[id]; l.ends[id] == 0 || linked && len(calls) == 0 {
				return false
			}
		}
		return true
	}
	if !l.wait(patience, done) {
		var missing []string
		for id := range l.sent {
			if l.ends[id] == 0 {
				missing = append(missing, fmt.Sprintf("%s started %d", id, l.starts[id]))
			}
		}
		r.Fatalf("not done after %v: %v; %+v\n%s", patience, missing, r.w.Stats(), r.tail())
	}
	if r.asks {
		r.answered()
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	conn, err := r.client.Broker(ctx)
	if err != nil {
		r.Fatal(err)
	}
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		ls, err := conn.(broker.Lengther).Lengths(ctx, "q")
		s := r.w.Stats()
		lost, back := r.log.count("consumer: connection lost"), r.log.count("consumer: connection is back")
		if n := ls["q"]; err == nil && lost == back && n.Ready == 0 && n.Claimed <= 0 && n.Delayed <= 0 && n.Dead == 0 && s.SlotsUsed == 0 && s.Active == 0 && s.Finishing == 0 && s.Reserved == 0 {
			break
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			r.Fatalf("not idle after %v: queue %+v, %v; %d connections lost and %d back; worker %+v\n%s", patience, ls["q"], err, lost, back, s, r.tail())
		}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	for id := range l.sent {
		if r.asks {
			if err := l.got[id]; err != nil && !(r.forgets && errors.Is(err, rpcbackend.ErrResultLost)) {
				r.Errorf("%s: who waits for the result gets %v", id, err)
			}
			continue
		}
		if r.forgets {
			break
		}
		if got, err := r.client.Result(id).Get(ctx); err != nil || got != any(id) {
			r.Errorf("%s: the result is %v, %v", id, got, err)
		}
	}
	for id, n := range l.starts {
		if n != 1 && f.repeats == "" || l.ends[id] != 1 && l.ends[id] > n {
			r.Errorf("%s ran %d times and ended well %d times, want once", id, n, l.ends[id])
		}
	}
	callbacks := 0
	for id, calls := range l.linked {
		if len(calls) > 1 && !r.resends {
			r.Errorf("the callback of %s was sent %d times, want once", id, len(calls))
		}
		for _, n := range calls {
			if n != 1 && f.repeats == "" {
				r.Errorf("the callback of %s ran %d times, want once", id, n)
			}
			callbacks += n
		}
	}
	if s := r.w.Stats(); f.repeats == "" && (s.Fenced > 0 || int(s.Succeeded) != len(l.ends)+callbacks) {
		r.Errorf("%d runs counted as succeeded and %d as fenced, of %d that ended well\n%s", s.Succeeded, s.Fenced, len(l.ends)+callbacks, r.tail())
	}
	if s := r.w.Stats(); s.Losses > 0 && f.deaths == "" {
		r.Errorf("%d deaths are counted, and nobody died\n%s", s.Losses, r.tail())
	}
	if r.log.count("panic") > 0 {
		r.Errorf("a panic:\n%s", r.tail())
	}
	if errors.Is(ctx.Err(), context.DeadlineExceeded) {
		r.Error("out of time")
	}
}

type proxy = testenv.Proxy

// each does something to the proxies.
func (r *rig) each(do func(*proxy)) {
	do(r.broker)
	if r.results != r.broker {
		do(r.results)
	}
}

func name(what string, i int) string { return fmt.Sprintf("%s%d", what, i) }
