package lovage

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"sort"
	"sync"
	"sync/atomic"
	"time"

	"github.com/lovage-go/lovage/backend"
	"github.com/lovage-go/lovage/broker"
	"github.com/lovage-go/lovage/control"
	"github.com/lovage-go/lovage/events"
	"github.com/lovage-go/lovage/internal/proc"
	"github.com/lovage-go/lovage/serializer"
)

// App holds the tasks of a program, its configuration and its connections.
// New does no I/O: broker and result store are opened at first use. An App is
// safe for concurrent use; tasks are declared before its first use and not
// after.
type App struct {
	// Signals are this App's signals.
	Signals Signals

	name    string
	conf    *resolved
	cfg     Config
	confErr error
	log     *slog.Logger
	logLeft bool // log is slog's default: nobody chose it
	rand    *randomness

	mu           sync.Mutex
	frozen       bool
	tasks        map[string]*Definition
	errbacks     map[string]ErrbackFunc
	bases        map[string]func() Base
	defaultBase  func() Base
	routers      []RouterFunc
	interceptors []any
	intercepted  bool // runs are, by one of them

	freezeOnce sync.Once
	freezeErr  error
	told       atomic.Bool // that it is frozen
	publish    publishFunc
	execute    executeFunc
	router     *router
	accept     serializer.Accept
	limits     serializer.Limits
	codecs     *serializer.Registry

	openBroker  func(context.Context) (broker.Conn, error)
	openBackend func(context.Context) (backend.Backend, error)
	conn        Lazy[broker.Conn]
	back        Lazy[backend.Backend]
	events      Lazy[*events.Dispatcher]
	clock       events.Clock
	controlOnce sync.Once
	control     *control.Client
	choice      struct { // of brokers
		sync.Mutex
		of map[string]*failover // by broker_url
	}
	declared sync.Map // queue name -> struct{}: declared on conn

	origin string
	closed bool
}

// AppOption configures New.
type AppOption func(*App)

// WithLogger sets the logger; the default is slog's default logger.
func WithLogger(l *slog.Logger) AppOption { return func(a *App) { a.log = l } }

// WithRand sets the source of ids, jitter and tickets; the default is crypto/rand.
// A seeded source makes a run repeatable.
func WithRand(src io.Reader) AppOption { return func(a *App) { a.rand = newRandomness(src) } }

// WithDefaultTask makes new instances of a base class for every task that
// brings none of its own (Celery's task_cls).
func WithDefaultTask(new func() Base) AppOption { return func(a *App) { a.defaultBase = new } }

// WithBroker sets how the broker is opened, in place of broker_url.
func WithBroker(open func(context.Context) (broker.Conn, error)) AppOption {
	return func(a *App) { a.openBroker = open }
}

// WithBackend sets how the result store is opened, in place of result_backend.
func WithBackend(open func(context.Context) (backend.Backend, error)) AppOption {
	return func(a *App) { a.openBackend = open }
}

// WithRouter adds a function that says where calls go (a router of Celery's
// task_routes). Functions are asked in the order in which they were added, before
// the patterns of [Config.TaskRoutes]; calls that name a queue or an exchange
// themselves are asked about by none. The Pattern and Regexp of what it returns
// mean nothing.
func WithRouter(f RouterFunc) AppOption {
	return func(a *App) { a.routers = append(a.routers, f) }
}

// New returns an App. name is shown to people and is part of the embedded
// store's file name; it need not be unique.
func New(name string, cfg Config, opts ...AppOption) *App {
	a := &App{
		name:  name,
		cfg:   cfg,
		tasks: map[string]*Definition{},

		errbacks: map[string]ErrbackFunc{},
		bases:    map[string]func() Base{},
	}
	for _, o := range opts {
		o(a)
	}
	if a.log == nil {
		a.log, a.logLeft = slog.Default(), true
	}
	if a.rand == nil {
		a.rand = newRandomness(nil)
	}
	a.origin = fmt.Sprintf("gen%d@%s", proc.PID(), proc.Hostname())
	a.conf, a.confErr = a.cfg.resolve()
	a.watchSignals()
	return a
}

// Name is the name given to New.
func (a *App) Name() string { return a.name }

// Config returns a copy of the configuration.
func (a *App) Config() Config { return a.cfg }

// Settings returns the configuration with every default filled in, as the
// runtime uses it. It is for workers and tools.
func (a *App) Settings() Config {
	full := a.cfg.withDefaults()
	if full.WorkerConcurrency == 0 {
		full.WorkerConcurrency = proc.CPUs()
	}
	if full.BrokerConnectionRetryOnStartup == nil {
		full.BrokerConnectionRetryOnStartup = full.BrokerConnectionRetry
	}
	return full
}

// Logger is the App's logger.
func (a *App) Logger() *slog.Logger { return a.log }

// SetDefaultLogger replaces the logger of an App that was given none by
// WithLogger. It is for what formats a program's log, such as package cli, and
// must be called before the App's first use.
func (a *App) SetDefaultLogger(l *slog.Logger) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.logLeft && !a.frozen {
		a.log = l
	}
}

// UseLogger replaces the logger, whoever chose it. It is for the children of a
// process pool, whose parent writes their lines, and must be called before
// anything runs.
func (a *App) UseLogger(l *slog.Logger) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.log = l
}

// Configure changes the configuration before the App's first use, for sources
// that are read after declaration: file, environment, command line. What is
// noteworthy comes back as warnings.
func (a *App) Configure(change func(*Config) ([]Warning, error)) error {
	a.mu.Lock()
	if a.frozen {
		a.mu.Unlock()
		return errors.New("lovage: Configure after the app's first use")
	}
	warnings, err := change(&a.cfg)
	a.conf, a.confErr = a.cfg.resolve()
	err = errors.Join(err, a.confErr)
	a.mu.Unlock()
	for _, w := range warnings {
		a.log.Warn(w.String(), "setting", w.Setting, "source", w.Source)
	}
	return err
}

// RegisterBase names a base class for configuration: task_cls = name makes it
// the default class of the App.
func (a *App) RegisterBase(name string, new func() Base) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.frozen {
		panic("lovage: RegisterBase after the app's first use")
	}
	if _, dup := a.bases[name]; dup {
		panic(fmt.Sprintf("lovage: base %q is registered twice", name))
	}
	a.bases[name] = new
}

// Freeze ends the time of declarations: options are merged, routes and accept
// lists resolved, interceptors chained. It is implied by the first call or run;
// calling it at start shows mistakes of the configuration there.
func (a *App) Freeze() error {
	a.freezeOnce.Do(func() {
		if a.Signals.OnConfigure.Connected() {
			_ = a.Configure(func(c *Config) ([]Warning, error) { // confErr keeps what is wrong
				a.Signals.OnConfigure.Send(context.Background(), OnConfigure{Config: c})
				return nil, nil
			})
		}
		a.mu.Lock()
		a.frozen = true
		if a.freezeErr = a.confErr; a.freezeErr == nil {
			a.freezeErr = a.resolve()
		}
		a.mu.Unlock()
		if a.freezeErr == nil {
			a.warnOfOptions()
		}
	})
	if a.freezeErr == nil && !a.told.Load() && !a.told.Swap(true) { // no sync.Once: receivers use the App
		if a.Signals.OnAfterConfigure.Connected() {
			a.Signals.OnAfterConfigure.Send(context.Background(), OnAfterConfigure{Settings: a.Settings()})
		}
		a.Signals.OnAfterFinalize.Send(context.Background(), OnAfterFinalize{App: a})
	}
	return a.freezeErr
}

func (a *App) resolve() (err error) {
	base := a.defaultBase
	if base == nil && a.conf.TaskCls != "" {
		var ok bool
		if base, ok = a.bases[a.conf.TaskCls]; !ok {
			return fmt.Errorf("task_cls %q names no registered base class: call app.RegisterBase with that name (registered: %v)", a.conf.TaskCls, sortedKeys(a.bases))
		}
	}
	a.limits = serializer.Limits{MaxBytes: a.conf.TaskMaxMessageSize}
	a.codecs = serializer.NewRegistry()
	if a.router, err = newRouter(a.conf, a.routers, a.rand.uuid); err != nil {
		return err
	}
	a.publish = publishChain(a.interceptors, a.publishNow)
	a.execute = executeChain(a.interceptors, a.executeNow)
	a.intercepted = slices.ContainsFunc(a.interceptors, func(i any) bool { _, ok := i.(ExecuteInterceptor); return ok })
	if a.accept, err = serializer.ParseAccept(a.conf.AcceptContent); err != nil {
		return fmt.Errorf("accept_content: %w", err)
	}
	if err := a.checkResultCodec(); err != nil {
		return err
	}
	for _, d := range a.sortedLocked() {
		if err := d.finalize(base); err != nil {
			return err
		}
	}
	return a.addBuiltins()
}

func (a *App) sortedLocked() []*Definition {
	list := make([]*Definition, 0, len(a.tasks))
	for _, d := range a.tasks {
		list = append(list, d)
	}
	sort.Slice(list, func(i, j int) bool { return list[i].name < list[j].name })
	return list
}

// Lookup finds the task that is registered here under a name, to run it.
// Tasks known only by Remote are not found.
func (a *App) Lookup(name string) (*Definition, bool) {
	if a.Freeze() != nil {
		return nil, false
	}
	d, ok := a.tasks[name]
	if !ok || d.remote {
		return nil, false
	}
	return d, true
}

// Tasks returns the tasks that can run here, by name, without the built-in ones.
func (a *App) Tasks() []*Definition { return a.runnable(false) }

// Builtins returns the tasks that Celery has in every app and that run here too:
// celery.chord_unlock, celery.map and others.
func (a *App) Builtins() []*Definition { return a.runnable(true) }

func (a *App) runnable(builtin bool) []*Definition {
	_ = a.Freeze()
	a.mu.Lock()
	defer a.mu.Unlock()
	var list []*Definition
	for _, d := range a.sortedLocked() {
		if !d.remote && d.builtin == builtin {
			list = append(list, d)
		}
	}
	return list
}

// Init runs Init of the tasks given, or of every registered one, once per
// process: a worker calls it before it is ready. The first error names its task,
// ends it and stays: a task is not initialised twice. ctx reaches the hooks, its
// cancellation too.
func (a *App) Init(ctx context.Context, tasks ...*Definition) error {
	if err := a.Freeze(); err != nil {
		return err
	}
	if len(tasks) == 0 {
		tasks = a.Tasks()
	}
	for _, d := range tasks {
		if err := d.life.init(ctx); err != nil {
			return err
		}
	}
	return nil
}

// Close closes what the App has opened: the tasks and their resources, the last
// name first, then events, broker and result store. Call it when all use has
// ended; what comes later is ErrClosed. A second call does nothing.
func (a *App) Close(ctx context.Context) error {
	a.mu.Lock()
	if a.closed {
		a.mu.Unlock()
		return nil
	}
	a.closed = true
	list := a.sortedLocked()
	a.mu.Unlock()
	var errs []error
	for i := len(list) - 1; i >= 0; i-- {
		if list[i].life != nil {
			errs = append(errs, list[i].life.stop(ctx))
		}
	}
	errs = append(errs, a.events.Close(ctx), a.conn.Close(ctx), a.back.Close(ctx))
	return errors.Join(errs...)
}

// checkResultCodec refuses a configuration under which results could be written
// and not read: records are JSON in this version.
func (a *App) checkResultCodec() error {
	codec, err := a.codecs.Lookup(a.conf.ResultSerializer)
	if err != nil {
		return fmt.Errorf("result_serializer: %w", err)
	}
	accept, err := serializer.ParseAccept(a.conf.ResultAcceptContent)
	if err != nil {
		return fmt.Errorf("result_accept_content: %w", err)
	}
	if err := accept.Check(codec.ContentType(), codec.Encoding()); err != nil {
		return fmt.Errorf("result_accept_content leaves out result_serializer: %w", err)
	}
	return nil
}

func sortedKeys[V any](m map[string]V) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	sort.Strings(keys)
	return keys
}

// now is the wire's time: UTC, microseconds.
func now() time.Time { return time.Now().UTC().Truncate(time.Microsecond) }
