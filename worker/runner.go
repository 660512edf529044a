package worker

import (
	"context"
	"errors"

	"github.com/lovage-go/lovage"
	"github.com/lovage-go/lovage/broker"
	"github.com/lovage-go/lovage/worker/internal/prefork"
)

// runner carries out jobs: the App, in this process, or a pool of children.
type runner interface {
	// enter waits until the job can run at once.
	enter(ctx context.Context, j *job) error
	// execute runs it; the job's Finish keeps what the run causes. With an error
	// the run came to no end of its own: *prefork.Death or another.
	execute(ctx context.Context, j *job) (lovage.Outcome, error)
	// conclude ends a run that cannot speak for itself.
	conclude(j *job, out lovage.Outcome, fin lovage.Finisher) lovage.Outcome
	// leave ends what enter began. It may be called again.
	leave(j *job)
}

// here runs jobs in this process.
type here struct{ app *lovage.App }

func (here) enter(context.Context, *job) error { return nil }
func (here) leave(*job)                        {}

func (h here) execute(ctx context.Context, j *job) (lovage.Outcome, error) {
	return h.app.Execute(ctx, j.r, j), nil
}

func (h here) conclude(j *job, out lovage.Outcome, fin lovage.Finisher) lovage.Outcome {
	return h.app.Conclude(j.w.base, j.r, out, fin)
}

// apart runs jobs in children.
type apart struct {
	here
	pool *prefork.Pool
}

func (a apart) enter(ctx context.Context, j *job) error {
	c, err := a.pool.Acquire(ctx)
	if err != nil {
		return err
	}
	j.mu.Lock()
	j.child = c
	j.mu.Unlock()
	return nil
}

func (apart) leave(j *job) {
	j.mu.Lock()
	c := j.child
	j.child = nil
	j.mu.Unlock()
	if c != nil {
		c.Release()
	}
}

func (a apart) execute(ctx context.Context, j *job) (lovage.Outcome, error) {
	run := a.job(j, j)
	run.Ask = func(out *lovage.Outcome) (bool, error) {
		if err := j.finishing(); err != nil {
			return false, err
		}
		j.asked = true
		return j.counts(out), nil
	}
	run.Repr = j.w.taskEvents.Load()
	run.Slot, run.Begin = &j.slot, func() bool { return j.phase.Load() == running }
	run.Free = func() {
		a.leave(j)
		j.slot.GiveUp()
	}
	j.mu.Lock()
	j.task, j.apart = run, true
	j.mu.Unlock()
	for {
		out, err := j.child.Run(ctx, run)
		if !errors.Is(err, prefork.ErrGone) {
			return out, err
		}
		a.leave(j) // it died before it had the job, which has another chance
		if err := a.enter(ctx, j); err != nil {
			return out, err
		}
	}
}

// conclude needs a child for what has hooks, or may end a chord whose errbacks
// are code: Init has not run in this process.
func (a apart) conclude(j *job, out lovage.Outcome, fin lovage.Finisher) lovage.Outcome {
	if j.r.Definition() == nil || (out.State == lovage.Revoked || out.Stored != nil) && j.r.Group == "" {
		return a.here.conclude(j, out, fin)
	}
	var err error
	for tries := 0; tries < 3; {
		c, e := a.pool.Acquire(j.w.base)
		if e != nil {
			out.Fenced = errColdShutdown
			return out
		}
		var end lovage.Outcome
		end, err = c.Conclude(j.w.base, a.job(j, fin), &out)
		c.Release()
		if err == nil {
			return end
		}
		if !errors.Is(err, prefork.ErrGone) {
			tries++
		}
	}
	j.w.log.Error("Task "+j.id()+" could not be concluded in a child: "+err.Error(), "job", j.id(), "error", err)
	out.Fenced = &refusedError{err: err, again: true}
	return out
}

func (apart) job(j *job, fin lovage.Finisher) *prefork.Job {
	return &prefork.Job{
		Request: j.r, Delivery: j.d, Losses: j.r.Delivery.Losses, Finisher: fin,
		Ask: func(out *lovage.Outcome) (bool, error) { return j.counts(out), nil },
	}
}

// counts reports whether a run that ends so counts in its chords: its message
// does not come again.
func (j *job) counts(out *lovage.Outcome) bool {
	if j.settled.Load() {
		return true
	}
	switch j.judge(out).action {
	case broker.Ack, broker.DeadLetter, broker.Reject:
		return true
	}
	return false
}
