package lovage

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"runtime/debug"
	"time"

	"github.com/lovage-go/lovage/broker"
	"github.com/lovage-go/lovage/internal/proc"
	"github.com/lovage-go/lovage/protocol"
)

// Outcome is how a run ended.
type Outcome struct {
	// State is SUCCESS, FAILURE, RETRY, REVOKED, IGNORED or REJECTED. Empty:
	// the run did not end here and the message goes back to its queue.
	State   State
	Result  any
	Info    *ErrorInfo    // for every state but SUCCESS and IGNORED
	Runtime time.Duration // of BeforeStart, Around and Run
	Delay   time.Duration // RETRY: until the next run
	Requeue bool          // REJECTED: back to the queue
	Timeout bool          // FAILURE at the hard time limit
	Lost    bool          // FAILURE because the worker died
	// Cancelled: RETRY because the connection was lost. The message itself goes
	// back, and none is sent in its place.
	Cancelled bool
	Unbound   bool // FAILURE because the task does not take the message's arguments
	// Stored is the result, as JSON, of a SUCCESS that the result store has of an
	// earlier run: what follows it is done as far as it was not, and no hook runs.
	Stored json.RawMessage
	// Fenced: the message has gone to another worker, or the result could not
	// be kept; nothing of this run counts and no later hook ran.
	Fenced error
	// Later: a LaterFinisher was given the effects and has not answered yet. The
	// outcome is in the effects, and final when it has.
	Later bool
}

// Repr is the result as Python would print it, shortened, for people.
func (o *Outcome) Repr() string {
	if text, ok := o.Result.(Shown); ok {
		return string(text)
	}
	if o.Stored != nil {
		var v any
		if err := jsonCodec.Unmarshal(o.Stored, &v); err == nil {
			return reprResult(v, defaultReprSize)
		}
	}
	return reprResult(o.Result, defaultReprSize)
}

// Shown is a result of which only the Repr is known: that of a run in a child of
// the process.
type Shown string

// Effects are all that the end of a run causes, as data.
type Effects struct {
	Request *Request
	Outcome *Outcome
	// Publish are the follow-ups: callbacks, errbacks, the next step, a retry.
	Publish []*protocol.Message
	// Store are the results to keep: the run's own, if any, first.
	Store []*protocol.Record

	// Ends are the chords that this run completes; made by CountChords.
	Ends []*broker.ChordEnd

	full     []*protocol.Message // Publish with all headers, also in protocol 1
	starts   []chordStart
	parts    []chordPart
	ends     []chordEnd // Ends, and what happens here after each
	errbacks []errbackCall
}

// Finisher makes effects happen, all or none where the stores allow it, and
// settles the message. An error means that they did not happen and will not:
// the claim was lost, or the process ends.
type Finisher interface {
	Finish(ctx context.Context, e *Effects) error
}

// FinisherFunc makes a function a Finisher.
type FinisherFunc func(ctx context.Context, e *Effects) error

// Finish calls f.
func (f FinisherFunc) Finish(ctx context.Context, e *Effects) error { return f(ctx, e) }

// LaterFinisher is a Finisher that nobody needs to wait for, so that a run costs
// no goroutine while its end is kept. It is used for tasks after whose end nothing
// of the user's runs: no hook, no interceptor, no signal of an end.
type LaterFinisher interface {
	Finisher
	// FinishLater takes note of the effects and returns. then is to be called once
	// with what Finish would have returned.
	FinishLater(ctx context.Context, e *Effects, then func(error))
}

// hookTimeout bounds the hooks that run after the end of a task: they get a
// context of their own, since that of the run may be cancelled already.
const hookTimeout = 5 * time.Minute

// Execute runs a request that Receive made, as Celery's tracer does in the
// process of the task: hooks, body, classification, effects, late hooks,
// signals, log. ctx is cancelled by the caller with a cause that says why:
// ErrSoftTimeLimit, ErrRevoked, ErrShutdown, ErrLeaseLost.
func (a *App) Execute(ctx context.Context, r *Request, fin Finisher) Outcome {
	if err := a.Freeze(); err != nil {
		return Outcome{Info: newErrorInfo(err, ""), Fenced: err}
	}
	if r.def == nil {
		out := Outcome{State: Failure, Info: notRegistered(r.Task)}
		return a.Conclude(ctx, r, out, fin)
	}
	once := &onceFinisher{Finisher: fin}
	if a.endsQuietly(r.def) {
		once.later, _ = fin.(LaterFinisher)
	}
	var out Outcome
	err := guard(func() error { out = a.execute(ctx, r, once); return nil })
	switch {
	case once.outcome != nil && err == nil:
	case once.outcome != nil: // an interceptor panicked after the end of the run
		out = *once.outcome
		a.internalError(ctx, r, "interceptor", err)
	case err != nil: // an interceptor panicked before the end of the run
		out = a.Conclude(ctx, r, Outcome{State: Failure, Info: newErrorInfo(err, r.def.where)}, once)
	case out.Fenced == nil: // an interceptor refused the run: its outcome counts
		if out.State == "" && out.Info == nil { // not meant to be tried for ever
			out.State = Failure
		}
		if out.Info == nil && out.State != Success && out.State != StateIgnored {
			out.Info = newErrorInfo(errRefused, r.def.where)
		}
		out = a.Conclude(ctx, r, out, once)
	}
	return out
}

var errRefused = errors.New("an interceptor refused the run and gave no reason")

// onceFinisher knows whether, and how, a run has come to its end.
type onceFinisher struct {
	Finisher
	outcome *Outcome
	later   LaterFinisher // nil: Finish is waited for
}

func (f *onceFinisher) Finish(ctx context.Context, e *Effects) error {
	f.outcome = e.Outcome
	return f.Finisher.Finish(ctx, e)
}

// endsQuietly reports whether nothing of the user's runs after the end of a task.
func (a *App) endsQuietly(d *Definition) bool {
	h, s := &d.hooks, &a.Signals
	return !h.late() && h.onFailure == nil && h.onRetry == nil && !a.intercepted &&
		!s.TaskSuccess.Connected() && !s.TaskFailure.Connected() && !s.TaskRetry.Connected() && !s.TaskPostrun.Connected() &&
		!s.AfterTaskPublish.Connected() && !a.conf.TaskSendSentEvent
}

func notRegistered(name string) *ErrorInfo {
	return &ErrorInfo{Err: fmt.Errorf("%w: %q", ErrNotRegistered, name), Type: "NotRegistered", Module: moduleCelery, Args: []any{name}}
}

func (a *App) executeNow(ctx context.Context, r *Request, fin Finisher) Outcome {
	d := r.def
	ctx = context.WithValue(ctx, requestKey, r)
	if a.Signals.TaskPrerun.Connected() {
		a.Signals.TaskPrerun.Send(ctx, TaskPrerun{Task: d, Request: r})
	}
	start := time.Now()
	value, err := d.perform(ctx, r)
	out := d.classify(ctx, r, value, err)
	out.Runtime = time.Since(start)
	if once, ok := fin.(*onceFinisher); !d.hooks.late() && !(ok && once.later != nil) {
		r.giveUpSlot()
	}
	if a.finish(ctx, r, &out, fin, true) {
		return Outcome{Later: true}
	}
	return out
}

// perform runs Init if need be, BeforeStart and the body inside Around.
func (d *Definition) perform(ctx context.Context, r *Request) (v any, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = &PanicError{Value: p, Stack: debug.Stack()}
		}
	}()
	if err := d.life.start(ctx); err != nil {
		return nil, err
	}
	if d.set.TrackStarted && d.app.stores() && !r.IgnoreResult && !d.set.IgnoreResult {
		meta := map[string]any{"pid": proc.PID(), "hostname": r.Hostname}
		if err := d.app.storeState(ctx, r, Started, meta); err != nil {
			r.Log().Warn("STARTED was not stored", "error", err)
		}
	}
	if d.hooks.beforeStart != nil {
		if err := d.hooks.beforeStart(ctx, r); err != nil {
			return nil, err
		}
	}
	if d.hooks.around == nil {
		return d.run(ctx, r.Task, json.RawMessage(r.Args), json.RawMessage(r.Kwargs))
	}
	return d.hooks.around(ctx, r, func(ctx context.Context) (any, error) {
		return d.run(ctx, r.Task, json.RawMessage(r.Args), json.RawMessage(r.Kwargs))
	})
}

// classify decides what an end means. What the body says outright (Retry,
// Ignore, Reject) comes before what befell its context.
func (d *Definition) classify(ctx context.Context, r *Request, value any, err error) Outcome {
	if err == nil {
		return Outcome{State: Success, Result: value}
	}
	var retry *RetryError
	var reject *RejectError
	switch {
	case errors.Is(err, ErrIgnore):
		return Outcome{State: StateIgnored}
	case errors.As(err, &retry):
		return d.retry(r, retry)
	case errors.As(err, &reject) && !d.retriesOn(err):
		return d.reject(reject)
	}
	if cause := context.Cause(ctx); cause != nil {
		switch {
		case errors.Is(cause, ErrLeaseLost):
			return Outcome{Info: newErrorInfo(err, d.where), Fenced: ErrLeaseLost}
		case errors.Is(cause, ErrRevoked):
			return Terminated()
		case errors.Is(cause, ErrShutdown) && d.set.AcksLate:
			return Outcome{Info: newErrorInfo(cause, d.where)}
		case errors.Is(cause, ErrSoftTimeLimit) && !errors.Is(err, ErrSoftTimeLimit):
			err = fmt.Errorf("%w: %w", ErrSoftTimeLimit, err)
		}
	}
	if d.retriesOn(err) {
		return d.retry(r, &RetryError{Cause: err, opts: options{countdown: d.autoDelay(r)}})
	}
	info := newErrorInfo(err, d.where)
	info.Expected = matchesAny(err, d.opts.throws)
	return Outcome{State: Failure, Info: info, Unbound: d.refused(err)}
}

// retriesOn reports whether the declaration asks to retry on an error.
func (d *Definition) retriesOn(err error) bool {
	return matchesAny(err, d.opts.retryOn) && !matchesAny(err, d.opts.dontRetryOn)
}

func revokedInfo(why string) *ErrorInfo {
	return &ErrorInfo{Err: fmt.Errorf("%w: %s", ErrRevoked, why), Type: "TaskRevokedError", Module: moduleCelery, Args: []any{why}}
}

// Expired is the outcome of a task that was not started in time.
func Expired() Outcome { return Outcome{State: Revoked, Info: revokedInfo("expired")} }

// RevokedOutcome is the outcome of a task that was revoked before it ran.
func RevokedOutcome() Outcome { return Outcome{State: Revoked, Info: revokedInfo("revoked")} }

// Terminated is the outcome of a run that was revoked and killed.
func Terminated() Outcome { return Outcome{State: Revoked, Info: revokedInfo("terminated")} }

// TimedOut is the outcome of a run that passed its hard time limit.
func TimedOut(limit time.Duration) Outcome {
	return Outcome{State: Failure, Timeout: true, Runtime: limit, Info: &ErrorInfo{
		Err: ErrTimeLimit, Type: "TimeLimitExceeded", Module: moduleBilliard, Args: []any{limit.Seconds()},
	}}
}

// LostWorker is the outcome of a run whose process died.
func LostWorker(reason string) Outcome {
	return Outcome{State: Failure, Lost: true, Info: &ErrorInfo{
		Err: fmt.Errorf("%w: %s", ErrWorkerLost, reason), Type: "WorkerLostError", Module: moduleBilliard, Args: []any{reason},
	}}
}

// Succeeded is the outcome of a message that comes again although its task has
// succeeded with this result.
func Succeeded(result json.RawMessage) Outcome { return Outcome{State: Success, Stored: result} }

// CancelledOutcome is the outcome of a run that was cancelled because the
// connection that it came by was lost.
func CancelledOutcome(cause error) Outcome {
	return Outcome{State: StateRetry, Cancelled: true, Info: &ErrorInfo{
		Err: cause, Type: "Retry", Module: moduleCelery, Args: []any{"cancelled by Celery"},
	}}
}

func (d *Definition) reject(e *RejectError) Outcome {
	reason := "no reason"
	if e.Reason != nil {
		reason = e.Reason.Error()
	}
	info := &ErrorInfo{Err: e, Type: "Reject", Module: moduleCelery, Args: []any{reason, e.Requeue}}
	info.Traceback = traceback(e, info, d.where)
	if e.Requeue && !d.set.AcksLate {
		// The message is acknowledged already: it cannot go back, and must not vanish.
		info.Args[0] = reason + " (not requeued: the task acknowledges early)"
		return Outcome{State: Failure, Info: info}
	}
	return Outcome{State: Rejected, Info: info, Requeue: e.Requeue}
}

// finish builds the effects, has them done, and runs what comes after. begun
// says that TaskPrerun was sent for the run. It reports whether the finisher does
// that later.
func (a *App) finish(ctx context.Context, r *Request, out *Outcome, fin Finisher, begun bool) (later bool) {
	ctx = context.WithoutCancel(ctx)
	e := a.settle(ctx, r, out)
	end := func(err error) {
		if err != nil && out.Fenced == nil {
			out.Fenced = err
		}
		if out.Fenced != nil {
			return
		}
		for _, m := range e.full {
			a.afterPublish(ctx, m.Headers.Task, m)
		}
		a.callErrbacks(ctx, e.errbacks)
		for _, end := range e.ends {
			if end.Won {
				for _, m := range end.full {
					a.afterPublish(ctx, m.Headers.Task, m)
				}
				a.callErrbacks(ctx, end.errbacks)
			}
		}
		a.conclude(ctx, r, out, begun)
	}
	if once, ok := fin.(*onceFinisher); ok && once.later != nil {
		if len(e.errbacks) == 0 && !e.Counts() && out.Fenced == nil {
			once.outcome = out
			once.later.FinishLater(ctx, e, end)
			return true
		}
		r.giveUpSlot() // a chord or an errback makes it a longer end
	}
	end(fin.Finish(ctx, e))
	return false
}

// settle builds the effects of an outcome. What cannot be made of a success or
// a retry is the task's failure; what cannot be made of a failure is reported
// and left out, so that the failure itself is always kept.
func (a *App) settle(ctx context.Context, r *Request, out *Outcome) *Effects {
	if out.Fenced != nil {
		return &Effects{Request: r, Outcome: out}
	}
	children := len(r.trail())
	e, err := a.effects(ctx, r, out)
	if err == nil {
		return e
	}
	r.dropChildren(children)
	where := ""
	if r.def != nil {
		where = r.def.where
	}
	var encode *encodeError
	switch {
	case out.State == StateRetry: // as Celery: a retry that cannot be sent is a Reject
		*out = r.def.reject(&RejectError{Reason: err})
	case errors.As(err, &encode):
		*out = Outcome{State: Failure, Runtime: out.Runtime, Info: encode.info()}
	default:
		*out = Outcome{State: Failure, Runtime: out.Runtime, Info: newErrorInfo(err, where)}
	}
	if e, err = a.effects(ctx, r, out); err != nil {
		a.internalError(ctx, r, "result", err)
		out.Fenced = err
	}
	return e
}
