package worker

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"github.com/lovage-go/lovage"
	"github.com/lovage-go/lovage/backend"
	"github.com/lovage-go/lovage/broker"
	"github.com/lovage-go/lovage/control"
	"github.com/lovage-go/lovage/events"
	"github.com/lovage-go/lovage/internal/proc"
	"github.com/lovage-go/lovage/worker/internal/pool"
	"github.com/lovage-go/lovage/worker/internal/prefork"
)

// Errors of Run.
var (
	// ErrStuck: as many runs as Config.StuckLimit allows go on past their hard
	// time limit. The process should be replaced.
	ErrStuck = errors.New("worker: too many runs ignore their hard time limit: restart the process")
	// ErrRestart: the worker was told to start anew, by SIGHUP, and has stopped.
	// The process should execute itself again.
	ErrRestart = errors.New("worker: told to restart")
	// ErrChild: the process was started as a child of a process pool that this
	// version of the program does not know.
	ErrChild = errors.New("worker: this process was started as a pool child by another version of the program: stop that worker and start it anew")

	errLeaseLost = lovage.ErrLeaseLost
	errRunning   = errors.New("worker: Run is called twice")
)

// Worker runs the tasks of an App. Its methods are safe for concurrent use; Run
// is called once.
type Worker struct {
	app     *lovage.App
	cfg     Config
	conf    *lovage.Config // the App's settings, defaults filled in
	log     *slog.Logger
	logInfo bool
	back    backend.Backend // nil: no results are kept
	dedup   bool            // the results of tasks that come again are looked for
	base    context.Context // of runs and finishes: it does not end with Run's
	work    context.Context // of loops; it ends last

	parts     []part       // the steps of the worker,
	linkParts []part       // and of each connection
	health    *http.Server // nil: nobody may ask

	strict, sorted bool // how queues take turns: see order.go

	strategies map[string]*strategy
	unknown    *strategy
	pool       *pool.Pool[*job]
	scaler     *autoscaler     // nil: the pool keeps its size
	children   *prefork.Pool   // nil: all tasks run in this process
	entry      context.Context // ends when nothing is started any more
	noEntry    context.CancelFunc
	window     window
	alarms     *alarms
	revokes    revoked
	stamps     revoked // keys are those of stampKey
	keeper     keeper
	db         stateDB
	recalled   atomic.Bool // what the result store had is among the revokes
	fleet      fleet
	gossip     gossip
	strays     strays
	asking     context.Context // of questions to other workers; set by Run
	suspects   suspects
	notes      broker.Notes       // what was here and went back
	events     *events.Dispatcher // nil: no events
	commands   *control.Registry  // nil: no remote control
	count      counters

	stops      chan stopRequest
	room       chan struct{} // there may be room for a claim
	idle       chan struct{} // there may be nothing left to wait for
	linked     chan struct{} // closed when the first connection is there
	cutoff     atomic.Pointer[error]
	began      atomic.Bool
	since      time.Time     // set by Run
	met        chan struct{} // closed when the worker is ready
	prepared   atomic.Bool   // it has initialised its tasks
	ready      atomic.Bool   // it has connected
	halting    atomic.Bool   // it claims no more
	restart    atomic.Bool   // told to start anew
	taskEvents atomic.Bool
	deaf       atomic.Bool  // to remote control
	dialing    progress     // of the loop that connects
	claims     progress     // of the loop that claims
	reading    progress     // of the loop that reads what is claimed
	unread     atomic.Int64 // messages that are claimed and not read
	sought     atomic.Int64 // messages whose losses are asked for: they will want slots
	group      sync.WaitGroup

	tuning sync.Mutex // one change of queues or pool at a time, by remote control

	mu       sync.Mutex // guards what follows
	queues   []broker.Queue
	jobs     map[*job]struct{}
	runs     map[string]*job // by task id, those whose message may come again meanwhile
	holding  map[*job]*alarm // for their time, where the broker cannot park
	links    map[*link]struct{}
	link     *link
	attended chan struct{} // closed when the steps of the last link are stopped
	stopping bool
	closing  bool // links are closed, and no new one is taken
}

// New returns a worker for the tasks of app. It does no I/O and starts nothing.
func New(app *lovage.App, cfg Config) *Worker {
	raw, conf := app.Config(), app.Settings()
	w := &Worker{
		app: app, conf: &conf, cfg: cfg.settled(&conf, &raw), log: app.Logger(),
		strategies: map[string]*strategy{},
		stops:      make(chan stopRequest, 8),
		room:       make(chan struct{}, 1), idle: make(chan struct{}, 1), linked: make(chan struct{}), met: make(chan struct{}),
		alarms: newAlarms(),
		jobs:   map[*job]struct{}{}, runs: map[string]*job{}, holding: map[*job]*alarm{}, links: map[*link]struct{}{},
	}
	most, changed := conf.WorkerRevokesMax, make(chan struct{}, 1)
	w.revokes = revoked{most: most, keep: conf.WorkerRevokeExpires, changed: changed}
	w.stamps = revoked{most: most, keep: conf.WorkerRevokeExpires, changed: changed}
	w.keeper = keeper{most: most, wake: make(chan struct{}, 1)}
	w.gossip.peers, w.gossip.ballots = map[string]Peer{}, map[string]*ballot{}
	w.db = stateDB{path: w.cfg.StateDB, wake: changed}
	slots := or(w.cfg.Autoscale.Min, w.cfg.Concurrency)
	w.pool = pool.New(slots, (*job).run)
	w.scaler = newAutoscaler(w)
	w.window.most = w.cfg.LookAhead
	if cfg.LookAhead == 0 && w.cfg.LookAhead > 0 {
		w.window.each = max(raw.WorkerPrefetchMultiplier, 0)
	}
	w.window.resize(slots)
	return w
}

// Hostname is the worker's node name.
func (w *Worker) Hostname() string { return w.cfg.Hostname }

// Run consumes until ctx ends or Stop is called, and then stops warm: it claims
// no more, hands back what it has not started, and waits for what runs. It
// returns nil after a shutdown, warm or cold, when all that it started is gone,
// but for runs that ignored a hard limit or a cold shutdown. The App stays open.
//
// In a child of a process pool Run serves that pool, closes the App, and ends
// the process: what follows it in main happens in the parent alone.
func (w *Worker) Run(ctx context.Context) (err error) {
	if proc.IsChild() {
		return fmt.Errorf("%w: %w", ErrChild, prefork.Serve(ctx, w.app))
	}
	if w.began.Swap(true) {
		return errRunning
	}
	w.base, w.since = context.WithoutCancel(ctx), time.Now()
	w.entry, w.noEntry = context.WithCancel(w.base)
	defer w.noEntry()
	defer w.closeChildren()
	if err := w.openHealth(); err != nil {
		return err
	}
	defer w.closeHealth()
	work, quit := context.WithCancelCause(w.base) // ends last
	w.work = work
	steps, stop, err := w.begin(ctx)
	defer func() {
		quit(nil)
		w.group.Wait()
		if steps != nil {
			w.app.Signals.WorkerShutdown.Send(w.base, lovage.WorkerShutdown{Hostname: w.cfg.Hostname})
		}
		if err == nil && w.restart.Load() {
			err = ErrRestart
		}
	}()
	if steps == nil {
		return err
	}
	if stop == nil {
		stop = &stopRequest{how: Warm}
		consuming, stopClaims := context.WithCancelCause(ctx)
		defer stopClaims(nil)
		w.asking = consuming
		if w.commands != nil && !w.cfg.WithoutMingle {
			w.group.Go(func() { w.mingle(consuming) })
		}
		w.group.Go(func() { w.sweep(consuming) })
		ended := make(chan error, 1)
		w.group.Go(func() { ended <- guard(func() error { return w.consume(consuming) }) })
		select {
		case err = <-ended: // the connection was given up
		case <-ctx.Done():
		case *stop = <-w.stops:
			err = stop.err
		}
		if stop.how == Cold {
			stopClaims(errColdShutdown)
		}
		stopClaims(nil)
	}
	w.halting.Store(true)
	w.shutdown(*stop)
	steps.stop(w.cutoff.Load() != nil)
	return err
}

// begin does what comes before the first connection. A word to stop ends it
// early; without steps there is nothing to shut down.
func (w *Worker) begin(ctx context.Context) (begun *steps, stop *stopRequest, err error) {
	starting, abort := context.WithCancelCause(ctx)
	defer abort(nil)
	ended := make(chan error, 1)
	go func() {
		ended <- guard(func() (err error) {
			if err = w.prepare(starting); err != nil {
				return err
			}
			life, end := context.WithCancelCause(w.work) // outlives the start
			defer context.AfterFunc(starting, func() { end(errToldToStop) })()
			begun, err = w.startSteps(life, "worker", w.parts, nil)
			return err
		})
	}()
	for {
		select {
		case err = <-ended:
			if (stop != nil || ctx.Err() != nil) && (errors.Is(err, context.Canceled) || errors.Is(err, errToldToStop)) {
				err = nil
			}
			return begun, stop, err
		case r := <-w.stops:
			stop = &r
			abort(errToldToStop)
		}
	}
}

var errToldToStop = errors.New("worker: told to stop")

// prepare does what needs no step.
func (w *Worker) prepare(ctx context.Context) (err error) {
	if err := w.app.Freeze(); err != nil {
		return err
	}
	w.app.Signals.WorkerInit.Send(ctx, lovage.WorkerInit{Hostname: w.cfg.Hostname})
	w.logInfo = w.log.Enabled(ctx, slog.LevelInfo)
	if w.parts, err = w.life().ordered(); err != nil {
		return err
	}
	if w.linkParts, err = w.connected().ordered(); err != nil {
		return err
	}
	if w.queues, err = w.queuesOf(); err != nil {
		return err
	}
	if err := w.readOrder(); err != nil {
		return err
	}
	w.app.Signals.CelerydAfterSetup.Send(ctx, lovage.CelerydAfterSetup{Hostname: w.cfg.Hostname, Queues: &w.queues})
	if len(w.queues) == 0 {
		return errors.New("worker: no queue is left to consume: ExcludeQueues (-X) names them all")
	}
	if w.scaler != nil && w.cfg.Pool == poolSolo {
		return errors.New("worker: the pool solo has one slot and no autoscaler: use goroutine or prefork, or leave Autoscale out")
	}
	if err := w.buildStrategies(); err != nil {
		return err
	}
	if *w.conf.WorkerEnableRemoteControl {
		if w.commands, err = control.NewRegistry(w.cfg.Commands...); err != nil {
			return err
		}
	}
	if err := w.settleRunners(ctx); err != nil {
		return err
	}
	if err := w.openBackend(ctx); err != nil {
		return err
	}
	w.keeper.never = w.back == nil
	w.deduplicate()
	w.recall(ctx, recallTime)
	if w.cfg.Purge {
		if err := w.purge(ctx); err != nil {
			return err
		}
	}
	w.taskEvents.Store(w.cfg.TaskEvents)
	if w.conf.WorkerUnknownTask == "return" && w.commands == nil {
		w.log.Warn("worker_unknown_task is return, which needs remote control: without it no other worker can be asked, and the messages become dead letters")
	}
	if w.hasEvents() {
		w.events = w.app.NewDispatcher(nil, w.cfg.Hostname)
	}
	w.prepared.Store(true)
	return nil
}

// hasEvents: remote control may switch them on, and gossip answers by them.
func (w *Worker) hasEvents() bool {
	return w.cfg.TaskEvents || !w.cfg.WithoutHeartbeat || w.gossips() || *w.conf.WorkerEnableRemoteControl
}

// openBackend opens the result store, waiting for one that is away as it does
// for a broker.
func (w *Worker) openBackend(ctx context.Context) (err error) {
	for wait, tries := firstBackoff, 1; ; wait, tries = w.longer(wait), tries+1 {
		w.back, err = w.app.Backend(ctx)
		switch {
		case err == nil:
			return nil
		case errors.Is(err, lovage.ErrNoBackend):
			w.back = nil
			return nil
		}
		if e := w.giveUp(err, tries); e != nil || ctx.Err() != nil {
			return fmt.Errorf("open the result store: %w", err)
		}
		if tries == 1 {
			w.log.Error("the result store cannot be opened; trying again: "+err.Error(), "error", err)
		}
		select {
		case <-time.After(wait):
		case <-ctx.Done():
		}
	}
}

// purge empties the worker's queues.
func (w *Worker) purge(ctx context.Context) error {
	conn, err := w.app.Broker(ctx)
	if err != nil {
		return err
	}
	p, ok := conn.(broker.Purger)
	if !ok {
		return fmt.Errorf("worker: purge: %w by this broker", broker.ErrUnsupported)
	}
	total := 0
	for _, q := range w.consumed() {
		n, err := p.Purge(ctx, q.Name)
		if err != nil && !errors.Is(err, broker.ErrNoQueue) {
			return fmt.Errorf("purge queue %q: %w", q.Name, err)
		}
		total += n
	}
	w.log.Info(fmt.Sprintf("purge: Erased %d messages from the queue.", total), "messages", total)
	return nil
}

// becomeReady tells the world, once.
func (w *Worker) becomeReady() {
	var names []string
	for _, q := range w.consumed() {
		names = append(names, q.Name)
	}
	size, _, _ := w.pool.Counts()
	w.log.Info(w.cfg.Hostname+" ready.", "queues", names, "concurrency", size)
	if w.events != nil {
		w.online()
	}
	close(w.met)
	w.app.Signals.WorkerReady.Send(w.base, lovage.WorkerReady{Hostname: w.cfg.Hostname, PID: proc.PID()})
	if w.cfg.Ready != nil {
		w.cfg.Ready(Info{Hostname: w.cfg.Hostname, PID: proc.PID(), Concurrency: size, Queues: names})
	}
}

// counted counts a settlement.
func (w *Worker) counted(a broker.Action) {
	if a == broker.DeadLetter || a == broker.Reject {
		w.count.dead.Add(1)
	}
}

// stick counts a run past its hard limit and stops the worker at the cap.
func (w *Worker) stick() {
	n := w.count.stuck.Add(1)
	if w.cfg.StuckLimit > 0 && n == int64(w.cfg.StuckLimit) {
		w.log.Error("too many runs ignore their hard time limit; the worker stops", "stuck", n)
		w.request(stopRequest{how: Warm, err: ErrStuck})
	}
}

// forever runs a loop of a link, and again if it panics, until the link closes.
func (w *Worker) forever(l *link, name string, loop func()) {
	for l.ctx.Err() == nil {
		if err := guard(func() error { loop(); return nil }); err != nil {
			w.log.Error("worker: "+name+" panicked and starts anew", "error", err)
			select {
			case <-time.After(firstBackoff):
			case <-l.ctx.Done():
			}
		}
	}
}

// rescue turns a panic of the worker's own code into a log line, so that it
// costs one message its turn and nobody else anything.
func (w *Worker) rescue(where string, then func(error)) {
	if p := recover(); p != nil {
		err := fmt.Errorf("worker: %s: panic: %v\n%s", where, p, debug.Stack())
		w.log.Error("worker: internal error", "where", where, "error", err)
		then(err)
	}
}

func guard(f func() error) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("panic: %v\n%s", p, debug.Stack())
		}
	}()
	return f()
}

func ring(ch chan struct{}) {
	select {
	case ch <- struct{}{}:
	default:
	}
}
