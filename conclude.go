package lovage

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
)

// Conclude ends a run that cannot speak for itself: out says how it ended
// (hard time limit, worker lost, revoked, expired, unknown). Effects, hooks and
// signals are those of its state; TaskPostrun only if the run had begun in this
// process, which is so at the hard time limit.
func (a *App) Conclude(ctx context.Context, r *Request, out Outcome, fin Finisher) Outcome {
	a.finish(context.WithValue(ctx, requestKey, r), r, &out, fin, out.Timeout)
	return out
}

// conclude is what follows a stored result, in Celery's order: hook, signal,
// log, AfterReturn, postrun.
func (a *App) conclude(ctx context.Context, r *Request, out *Outcome, begun bool) {
	d := r.def
	if out.Stored != nil {
		a.log.Info("Task "+r.Task+"["+r.ID+"] has succeeded before and is not run again", "task", r.Task, "id", r.ID)
		return
	}
	var hooks hookSet
	if d != nil {
		hooks = d.hooks
	}
	hook := func(where string, f func(context.Context) error) {
		hctx, cancel := context.WithTimeout(ctx, hookTimeout)
		defer cancel()
		if err := guard(func() error { return f(hctx) }); err != nil {
			a.internalError(ctx, r, where, err)
		}
	}
	switch out.State {
	case Success:
		if hooks.onSuccess != nil {
			hook("OnSuccess", func(ctx context.Context) error { return hooks.onSuccess(ctx, r, out.Result) })
		}
		if a.Signals.TaskSuccess.Connected() {
			a.Signals.TaskSuccess.Send(ctx, TaskSuccess{Task: d, Request: r, Result: out.Result, Runtime: out.Runtime})
		}
	case Failure, Rejected:
		if out.State == Failure && hooks.onFailure != nil {
			hook("OnFailure", func(ctx context.Context) error { return hooks.onFailure(ctx, r, out.Info) })
		}
		if !out.Requeue && a.Signals.TaskFailure.Connected() {
			a.Signals.TaskFailure.Send(ctx, TaskFailure{Task: d, Request: r, Info: out.Info})
		}
	case StateRetry:
		if hooks.onRetry != nil {
			hook("OnRetry", func(ctx context.Context) error { return hooks.onRetry(ctx, r, out.Info) })
		}
		if a.Signals.TaskRetry.Connected() {
			a.Signals.TaskRetry.Send(ctx, TaskRetry{Task: d, Request: r, Info: out.Info, Delay: out.Delay})
		}
	}
	a.logOutcome(ctx, r, out)
	if hooks.afterReturn != nil && (out.State == Success || out.State == Failure) {
		hook("AfterReturn", func(ctx context.Context) error {
			return hooks.afterReturn(ctx, r, out.State, out.Result, out.Info)
		})
	}
	if begun && a.Signals.TaskPostrun.Connected() {
		a.Signals.TaskPostrun.Send(ctx, TaskPostrun{Task: d, Request: r, State: out.State, Result: out.Result})
	}
}

// internalError reports what failed without changing state or ack.
func (a *App) internalError(ctx context.Context, r *Request, where string, err error) {
	attrs := []any{"task", r.Task, "id", r.ID, "where", where, "error", err}
	var p *PanicError
	if errors.As(err, &p) {
		attrs = append(attrs, "traceback", string(p.Stack))
	}
	a.log.Error(fmt.Sprintf("Task %s[%s] INTERNAL ERROR in %s: %v", r.Task, r.ID, where, err), attrs...)
	if a.Signals.TaskInternalError.Connected() {
		a.Signals.TaskInternalError.Send(ctx, TaskInternalError{Task: r.def, Request: r, Where: where, Err: err})
	}
}

// logOutcome writes the line that Celery's users look for.
func (a *App) logOutcome(ctx context.Context, r *Request, out *Outcome) {
	level, text := slog.LevelInfo, ""
	switch out.State {
	case Success:
		if !a.log.Enabled(ctx, level) {
			return
		}
		size := defaultReprSize
		if r.def != nil {
			size = r.def.set.ResultReprMaxSize
		}
		text = fmt.Sprintf("succeeded in %.6fs: %s", out.Runtime.Seconds(), reprResult(out.Result, size))
	case Failure:
		switch {
		case out.Info.Expected:
			text = "raised expected: " + out.Info.Repr()
		default:
			level, text = slog.LevelError, "raised unexpected: "+out.Info.Repr()
		}
	case StateRetry:
		text = "retry: " + retryText(out)
	case StateIgnored:
		text = "ignored"
	case Rejected:
		level, text = slog.LevelWarn, fmt.Sprintf("rejected: %s (requeue=%t)", out.Info.Repr(), out.Requeue)
	case Revoked:
		text = "revoked: " + fmt.Sprint(out.Info.Args...)
	default:
		return
	}
	attrs := []any{"task", r.Task, "id", r.ID}
	if out.State == Failure && !out.Info.Expected && out.Info.Traceback != "" {
		attrs = append(attrs, "traceback", out.Info.Traceback)
	}
	a.log.Log(ctx, level, "Task "+r.Task+"["+r.ID+"] "+text, attrs...)
}
