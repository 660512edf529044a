package lovage

import (
	"context"
	"log/slog"
)

// Task is the base of every task class: embed it, or a base that embeds it.
//
// One instance is registered and serves every run of its task in the process,
// so Run and the hooks are called concurrently on one instance. Fields are set
// before registration or in Init; what changes later needs a lock; what belongs
// to one run is in its [Request]. A task is an actor that lives as long as its
// process, not an object made for each request.
//
// Hooks are methods that the class may have; they are found once, at
// registration:
//
//	TaskOptions() []TaskOption                  options of the class, below those of the declaration
//	Init(ctx) error                             once per process that runs tasks, before its first run
//	Close(ctx) error, or Close() error          once, when the process ends
//	Around(ctx, r, next) (any, error)           wraps Run (Celery's __call__)
//	BeforeStart(ctx, r) error                   before Run; its error fails the task
//	OnSuccess(ctx, r, result)                   after SUCCESS is stored
//	OnFailure(ctx, r, info)                     after FAILURE is stored
//	OnRetry(ctx, r, info)                       after the retry is sent and RETRY stored
//	AfterReturn(ctx, r, state, result, info)    last, after success and failure
//	Backoff(ctx, r, err) time.Duration          the delay before the next retry
//
// OnSuccess, OnFailure, OnRetry and AfterReturn may also return an error, which
// is logged and signalled and changes nothing else. Init and Close chain through
// the embedded bases by themselves: bases first for Init, last for Close, so that
// two bases that both have one are no conflict. The other hooks override as Go
// methods do: call t.Base.OnFailure(...) for super. Backoff gets a nil err for a
// Retry that names no cause.
//
// Structs without Task may be embedded too, as mixins: their methods that have
// the form of a hook are hooks, except Close() error, which library types have.
// A hook with another signature on the class or a base is a panic at
// registration, and so is one that two embedded types offer at one depth.
type Task struct {
	noCopy noCopy
	def    *Definition
}

func (t *Task) lovageTask() *Task { return t }

// Name is the name the task is registered under, empty before registration.
func (t *Task) Name() string {
	if t.def == nil {
		return ""
	}
	return t.def.name
}

// App is the App the task is registered with, nil before registration.
func (t *Task) App() *App {
	if t.def == nil {
		return nil
	}
	return t.def.app
}

// Log returns the task logger, with the running task's name and id if ctx is
// that of a run.
func (t *Task) Log(ctx context.Context) *slog.Logger {
	if r := RequestFrom(ctx); r != nil {
		return r.Log()
	}
	if t.def != nil {
		return t.def.app.log.With("task", t.def.name)
	}
	return slog.Default()
}

// Base is what a task class is. It can be satisfied only by embedding [Task].
type Base interface{ lovageTask() *Task }

// plain is the instance of a task that has no class of its own.
type plain struct{ Task }

// None is the result type of tasks that return nothing. On the wire it is null.
type None struct{}

// MarshalJSON writes null, which is what Python's None is.
func (None) MarshalJSON() ([]byte, error) { return []byte("null"), nil }

// UnmarshalJSON accepts anything.
func (*None) UnmarshalJSON([]byte) error { return nil }

// Self returns the instance of the running task as a T: its class, or the base
// that a plain function was declared with. It panics outside a run or if the
// instance is no T, naming both types: that is a mistake of the declaration.
func Self[T any](ctx context.Context) T {
	r := RequestFrom(ctx)
	if r == nil || r.def == nil {
		panic("lovage: Self is called outside a task's run")
	}
	v, ok := any(r.def.instance).(T)
	if !ok {
		panic(selfMismatch[T](r.def))
	}
	return v
}
