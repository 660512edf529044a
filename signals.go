package lovage

import (
	"context"
	"fmt"
	"log/slog"
	"reflect"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/lovage-go/lovage/broker"
	"github.com/lovage-go/lovage/protocol"
)

// Signal is an event that code of the program may observe. Receivers run one
// after the other, in the order of their connection, where the signal is sent; a
// panic in one is logged and stops neither the others nor the sender. Connect is
// safe at any time, also in a receiver: who connects while a signal is sent hears
// the next one.
type Signal[E any] struct {
	mu        sync.Mutex
	receivers atomic.Pointer[[]receiver[E]]
	next      int
	failed    func(ctx context.Context, p *PanicError)
}

type receiver[E any] struct {
	id   int
	f    func(context.Context, E)
	from []string // senders; all if there are none
}

// sender is an event that says who sent it, in Celery's sense: the name of a task,
// of a worker's node or of an App.
type sender interface{ Sender() string }

// Connect adds a receiver and returns what removes it again. With senders it hears
// only theirs; see the Sender method of each event.
func (s *Signal[E]) Connect(f func(context.Context, E), senders ...string) (disconnect func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.next++
	id := s.next
	var list []receiver[E]
	if p := s.receivers.Load(); p != nil {
		list = append(list, *p...)
	}
	list = append(list, receiver[E]{id, f, slices.Clone(senders)})
	s.receivers.Store(&list)
	return func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		var kept []receiver[E]
		for _, r := range *s.receivers.Load() {
			if r.id != id {
				kept = append(kept, r)
			}
		}
		s.receivers.Store(&kept)
	}
}

// Connected reports whether anybody listens; senders use it to save work.
func (s *Signal[E]) Connected() bool {
	p := s.receivers.Load()
	return p != nil && len(*p) > 0
}

// Send calls every receiver.
func (s *Signal[E]) Send(ctx context.Context, e E) {
	p := s.receivers.Load()
	if p == nil {
		return
	}
	from, named := any(e).(sender)
	for _, r := range *p {
		if len(r.from) > 0 && named && !slices.Contains(r.from, from.Sender()) {
			continue
		}
		if err := guard(func() error { r.f(ctx, e); return nil }); err != nil && s.failed != nil {
			if pe, ok := err.(*PanicError); ok {
				s.failed(ctx, pe)
			}
		}
	}
}

func (s *Signal[E]) onPanic(f func(context.Context, *PanicError)) { s.failed = f }

// watchSignals logs what panics in receivers.
func (a *App) watchSignals() {
	signals := reflect.ValueOf(&a.Signals).Elem()
	for i := range signals.NumField() {
		name := signals.Type().Field(i).Name
		signals.Field(i).Addr().Interface().(interface {
			onPanic(func(context.Context, *PanicError))
		}).onPanic(func(ctx context.Context, p *PanicError) {
			a.log.ErrorContext(ctx, "a signal receiver panicked", "signal", name, "panic", fmt.Sprint(p.Value), "traceback", string(p.Stack))
		})
	}
}

// Signals are the signals of one App, with the names that Celery gives them.
// The App's own are sent once, at its first use. Those of a run are sent in the
// process that runs the task; TaskReceived, TaskRevoked, TaskRejected and
// TaskUnknown by the consuming worker. docs/signals.md lists them with their order.
type Signals struct {
	OnConfigure      Signal[OnConfigure]
	OnAfterConfigure Signal[OnAfterConfigure]
	OnAfterFinalize  Signal[OnAfterFinalize]

	BeforeTaskPublish Signal[BeforeTaskPublish]
	AfterTaskPublish  Signal[AfterTaskPublish]

	TaskReceived      Signal[TaskReceived]
	TaskPrerun        Signal[TaskPrerun]
	TaskPostrun       Signal[TaskPostrun]
	TaskSuccess       Signal[TaskSuccess]
	TaskFailure       Signal[TaskFailure]
	TaskRetry         Signal[TaskRetry]
	TaskRevoked       Signal[TaskRevoked]
	TaskRejected      Signal[TaskRejected]
	TaskUnknown       Signal[TaskUnknown]
	TaskInternalError Signal[TaskInternalError]

	CelerydInit        Signal[CelerydInit]
	CelerydAfterSetup  Signal[CelerydAfterSetup]
	WorkerInit         Signal[WorkerInit]
	WorkerReady        Signal[WorkerReady]
	WorkerShuttingDown Signal[WorkerShuttingDown]
	WorkerShutdown     Signal[WorkerShutdown]
	HeartbeatSent      Signal[HeartbeatSent]

	SetupLogging     Signal[SetupLogging]
	AfterSetupLogger Signal[AfterSetupLogger]

	WorkerBeforeCreateProcess Signal[WorkerBeforeCreateProcess]
	WorkerProcessInit         Signal[WorkerProcessInit]
	WorkerProcessShutdown     Signal[WorkerProcessShutdown]

	UserPreloadOptions Signal[UserPreloadOptions]
}

// OnConfigure is sent before the App's settings are final; receivers may change
// them. An App is in use from then on: receivers must not call or declare tasks.
type OnConfigure struct{ Config *Config }

// OnAfterConfigure is sent when the App's settings are final, with every default
// filled in.
type OnAfterConfigure struct{ Settings Config }

// OnAfterFinalize is sent when the App is ready for use: no task is declared any
// more.
type OnAfterFinalize struct{ App *App }

// BeforeTaskPublish is sent before a message goes out; receivers may change it.
type BeforeTaskPublish struct {
	Task    string
	Message *protocol.Message
}

// AfterTaskPublish is sent when the broker has the message.
type AfterTaskPublish struct {
	Task    string
	Message *protocol.Message
}

// TaskReceived is sent when a worker has taken a message for a task it knows.
type TaskReceived struct {
	Hostname string // of the worker
	Request  *Request
}

// TaskPrerun is sent before anything of the task runs.
type TaskPrerun struct {
	Task    *Definition
	Request *Request
}

// TaskPostrun is sent last, whatever the outcome.
type TaskPostrun struct {
	Task    *Definition
	Request *Request
	State   State
	Result  any
}

// TaskSuccess is sent after OnSuccess.
type TaskSuccess struct {
	Task    *Definition
	Request *Request
	Result  any
	Runtime time.Duration
}

// TaskFailure is sent after OnFailure.
type TaskFailure struct {
	Task    *Definition
	Request *Request
	Info    *ErrorInfo
}

// TaskRetry is sent after OnRetry.
type TaskRetry struct {
	Task    *Definition
	Request *Request
	Info    *ErrorInfo
	Delay   time.Duration
}

// TaskRevoked is sent when a task is dropped as expired or revoked. Signal is the
// number of the operating system's that a Terminated run was ended with.
type TaskRevoked struct {
	Request    *Request
	Terminated bool
	Signal     int // 0: none
	Expired    bool
}

// TaskRejected is sent for a message that could not be read as a task. The
// message is the claimed one: leave it as it is.
type TaskRejected struct {
	Hostname string // of the worker
	Queue    string
	Message  *broker.Delivery
	Body     []byte
	Err      error
}

// TaskUnknown is sent for a task that no registration names.
type TaskUnknown struct {
	Hostname string // of the worker
	Name     string
	ID       string
	Message  *broker.Delivery
	Err      error
}

// TaskInternalError is sent when a hook or the runtime itself fails in a way
// that changes neither state nor ack.
type TaskInternalError struct {
	Task    *Definition
	Request *Request
	Where   string // "OnSuccess", "AfterReturn" ...
	Err     error
}

// CelerydInit is sent first, by worker.Run and the worker command; receivers may
// change the settings for the node of this name.
type CelerydInit struct {
	Hostname string
	Config   *Config
}

// CelerydAfterSetup is sent when a worker knows its queues and before it
// connects; receivers may change the list.
type CelerydAfterSetup struct {
	Hostname string
	Queues   *[]broker.Queue
}

// WorkerInit is sent before a worker starts its tasks and connects.
type WorkerInit struct{ Hostname string }

// WorkerReady is sent when a worker consumes.
type WorkerReady struct {
	Hostname string
	PID      int
}

// WorkerShuttingDown is sent when a shutdown begins: How is warm or cold. Signal
// is the name of the operating system's, "" if it was none; ExitCode is that of
// the worker command.
type WorkerShuttingDown struct {
	Hostname string
	How      string
	Signal   string
	ExitCode int
}

// WorkerShutdown is sent when a worker has stopped.
type WorkerShutdown struct{ Hostname string }

// HeartbeatSent is sent after each heartbeat of a worker.
type HeartbeatSent struct{ Hostname string }

// SetupLogging is sent by the worker command in place of making a log: with a
// receiver, the App logs as it was made to.
type SetupLogging struct {
	Level    slog.Level
	LogFile  string // "": standard error
	Format   string // in Celery's notation; "" is Celery's default
	Colorize bool
}

// AfterSetupLogger is sent when the worker command has made its log; receivers
// may wrap the handler. What a run logs has TaskFormat.
type AfterSetupLogger struct {
	Handler    *slog.Handler
	Level      slog.Level
	LogFile    string
	Format     string
	TaskFormat string
	Colorize   bool
}

// WorkerBeforeCreateProcess is sent by the worker before it starts a child of its
// process pool.
type WorkerBeforeCreateProcess struct{ Hostname string }

// WorkerProcessInit is sent in each child of a process pool, before Init of its
// tasks.
type WorkerProcessInit struct {
	Hostname string // of the worker
	PID      int
}

// WorkerProcessShutdown is sent in a child that ends in order, before Close of
// its tasks.
type WorkerProcessShutdown struct {
	Hostname string
	PID      int
}

// UserPreloadOptions is sent by the command line before it reads the settings,
// with the values of the flags that the program has added to every command.
type UserPreloadOptions struct {
	App     *App
	Options map[string]string // by flag, as text
}

// Sender is the App's name.
func (e OnAfterFinalize) Sender() string    { return e.App.Name() }
func (e UserPreloadOptions) Sender() string { return e.App.Name() }

// Sender is the task's name.
func (e BeforeTaskPublish) Sender() string { return e.Task }
func (e AfterTaskPublish) Sender() string  { return e.Task }
func (e TaskPrerun) Sender() string        { return e.Task.Name() }
func (e TaskPostrun) Sender() string       { return e.Task.Name() }
func (e TaskSuccess) Sender() string       { return e.Task.Name() }
func (e TaskFailure) Sender() string       { return e.Task.Name() }
func (e TaskRetry) Sender() string         { return e.Task.Name() }
func (e TaskRevoked) Sender() string       { return e.Request.Task }
func (e TaskInternalError) Sender() string { return e.Request.Task }

// Sender is the name of the worker's node.
func (e TaskReceived) Sender() string              { return e.Hostname }
func (e TaskRejected) Sender() string              { return e.Hostname }
func (e TaskUnknown) Sender() string               { return e.Hostname }
func (e CelerydInit) Sender() string               { return e.Hostname }
func (e CelerydAfterSetup) Sender() string         { return e.Hostname }
func (e WorkerInit) Sender() string                { return e.Hostname }
func (e WorkerReady) Sender() string               { return e.Hostname }
func (e WorkerShuttingDown) Sender() string        { return e.Hostname }
func (e WorkerShutdown) Sender() string            { return e.Hostname }
func (e HeartbeatSent) Sender() string             { return e.Hostname }
func (e WorkerBeforeCreateProcess) Sender() string { return e.Hostname }
func (e WorkerProcessInit) Sender() string         { return e.Hostname }
func (e WorkerProcessShutdown) Sender() string     { return e.Hostname }
