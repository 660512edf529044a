package worker

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/lovage-go/lovage"
	"github.com/lovage-go/lovage/backend"
	"github.com/lovage-go/lovage/broker"
)

// verdict is how a message is settled.
type verdict struct {
	action broker.Action
	reason string
	until  time.Time
}

// judge settles a message by the outcome of its run, as late acks do.
func (j *job) judge(out *lovage.Outcome) verdict {
	if j.force != nil {
		return *j.force
	}
	var set lovage.TaskSettings
	if j.s != nil {
		set = j.s.set
	}
	switch out.State {
	case "":
		return verdict{action: broker.HandBack}
	case lovage.Failure:
		switch {
		case out.Unbound: // no run of it can end well, until somebody mends something
			return verdict{action: broker.DeadLetter, reason: "wrong arguments: " + out.Info.Type + ": " + fmt.Sprint(out.Info.Args...) + mendArguments}
		case out.Timeout && !set.AcksOnTimeout:
			return verdict{action: broker.Requeue}
		case !out.Timeout && !set.AcksOnFailure:
			return verdict{action: broker.DeadLetter, reason: "failed: " + out.Info.Repr()}
		}
	case lovage.Rejected:
		if out.Requeue {
			return verdict{action: broker.Requeue}
		}
		return verdict{action: broker.DeadLetter, reason: "rejected: " + out.Info.Repr()}
	}
	return verdict{action: broker.Ack}
}

const mendArguments = ": mend the caller, or the parameters of the task and requeue it"

// settlement addresses a verdict; a broker without dead letters has its own way
// of refusing.
func (j *job) settlement(v verdict) broker.Settlement {
	if v.action == broker.DeadLetter && !j.link.features.DeadLetter {
		v.action = broker.Reject
	}
	return broker.Settlement{Delivery: j.d, Action: v.action, Until: v.until, Reason: v.reason, Started: j.started.Load() != 0}
}

// finish has the effects of a job kept and its message settled, and waits for
// it. Effects that the store refuses for good become the failure of the task.
func (w *Worker) finish(j *job, e *lovage.Effects) error {
	f, err := w.effects(j, e)
	if err == nil {
		err = w.countChords(j, f, e)
	}
	if err != nil {
		return err
	}
	if !f.enter() {
		return nil
	}
	f.done = make(chan error, 1)
	j.link.commit.put(f)
	return <-f.done
}

// effects makes the finish of a job's effects. A job whose message has gone to
// another worker has none: nothing would fence them.
func (w *Worker) effects(j *job, e *lovage.Effects) (*finish, error) {
	f := &finish{job: j, publish: e.Publish, store: e.Store, outcome: e.Outcome}
	if !j.settled.Load() {
		f.settle(j.settlement(j.judge(e.Outcome)))
	} else if j.phase.Load() == fenced { // which lose has set before it released the claim
		return nil, broker.ErrLeaseLost
	}
	if w.back == nil {
		f.store = nil
	}
	return f, nil
}

// conclude ends a job that cannot speak for itself.
func (w *Worker) conclude(j *job, out lovage.Outcome) {
	out = j.s.runner.conclude(j, out, lovage.FinisherFunc(j.keep))
	j.result(&out)
}

// settleNow ends a claim and waits until it is ended.
func (w *Worker) settleNow(j *job, action broker.Action, reason string) error {
	f := &finish{job: j, done: make(chan error, 1)}
	f.settle(j.settlement(verdict{action: action, reason: reason}))
	j.link.commit.put(f)
	return <-f.done
}

// settleSoon ends a claim without waiting; the job ends with it.
func (w *Worker) settleSoon(j *job, v verdict) { w.settleThen(j, v, func() {}) }

// settleThen is settleSoon with something to do when the claim is ended.
func (w *Worker) settleThen(j *job, v verdict, then func()) {
	f := &finish{job: j, then: func(err error) {
		defer then()
		if err != nil && !gone(err) {
			w.log.Warn("a message could not be settled and stays claimed until its lease ends", "action", v.action, "queue", j.d.Queue, "error", err)
		}
		j.end()
	}}
	f.settle(j.settlement(v))
	f.enter() // those that wait bound what is claimed
	j.link.commit.put(f)
}

// handBack returns unstarted messages to their queues, uncounted.
func (w *Worker) handBack(jobs ...*job) {
	for _, j := range jobs {
		if j.phase.CompareAndSwap(waiting, abandoned) {
			w.count.returned.Add(1)
			w.settleSoon(j, verdict{action: broker.HandBack})
		} else {
			j.end()
		}
	}
}

// result counts the end of a job and tells monitors.
func (j *job) result(out *lovage.Outcome) {
	w := j.w
	if out.Fenced != nil {
		if gone(out.Fenced) || errors.Is(out.Fenced, lovage.ErrLeaseLost) {
			w.fence(j, out.Fenced)
		} else if refused := (*refusedError)(nil); errors.As(out.Fenced, &refused) {
			w.refused(j, refused)
		} else if j.phase.Load() == finishing {
			w.count.returned.Add(1)
			w.log.Warn("Task "+j.id()+" ended, but its effects could not be kept before the shutdown; its message goes back", "error", out.Fenced)
		}
		return
	}
	c := &w.count
	if out.Stored != nil {
		c.duplicates.Add(1)
		w.ended(j, out)
		return
	}
	if out.State != "" && j.s != nil {
		c.processed.Add(1)
		j.s.done.Add(1)
	}
	switch out.State {
	case lovage.Success:
		c.succeeded.Add(1)
	case lovage.Failure:
		c.failed.Add(1)
	case lovage.StateRetry:
		c.retried.Add(1)
	case lovage.Rejected:
		c.rejected.Add(1)
	case lovage.Revoked:
		c.revoked.Add(1)
		if j.started.Load() > 0 {
			w.app.Signals.TaskRevoked.Send(w.base, lovage.TaskRevoked{Request: j.r, Terminated: true, Signal: int(j.signal.Load())})
		}
	case "":
		c.returned.Add(1)
	}
	if out.Unbound && j.s.set.AcksLate {
		w.log.Error("Task "+j.r.Task+"["+j.r.ID+"] does not take the arguments of its message, which is kept as a dead letter"+mendArguments,
			"task", j.r.Task, "id", j.r.ID, "queue", j.d.Queue)
	}
	w.ended(j, out)
}

// refused deals with effects that the stores will never take: the task fails
// with the reason, and if even that is refused its message is a dead letter.
func (w *Worker) refused(j *job, cause *refusedError) {
	if !cause.again {
		w.count.refused.Add(1)
	}
	w.log.Error("Task "+j.r.Task+"["+j.r.ID+"]: its effects were refused: "+cause.Error(), "task", j.r.Task, "id", j.r.ID)
	info := &lovage.ErrorInfo{Err: cause, Type: "EffectsRefused", Args: []any{cause.Error()}}
	reason := "its effects were refused: " + cause.Error()
	j.force = &verdict{action: broker.DeadLetter, reason: reason}
	if cause.again {
		if !j.settled.Load() {
			_ = w.settleNow(j, broker.DeadLetter, reason)
		}
		return
	}
	out := j.s.runner.conclude(j, lovage.Outcome{State: lovage.Failure, Info: info}, lovage.FinisherFunc(
		func(_ context.Context, e *lovage.Effects) error {
			err := w.finish(j, e)
			if re := (*refusedError)(nil); errors.As(err, &re) {
				re.again = true
			}
			return err
		}))
	j.result(&out)
}

// fence counts a job whose message has gone to another worker.
func (w *Worker) fence(j *job, err error) {
	w.count.fenced.Add(1)
	w.log.Warn("Task "+j.r.Task+"["+j.r.ID+"]: its message has gone to another worker; nothing of this run counts", "task", j.r.Task, "id", j.r.ID, "error", err)
}

// errSentAgain: a lost worker was counted in a copy of the message, which waits in
// its queue now.
var errSentAgain = errors.New("worker: the message was sent again with its losses")

// countLoss asks the broker, else the result store, and tries again while they
// are away. Where neither counts, the message carries its losses itself.
func (w *Worker) countLoss(j *job) (n int, err error) {
	err = w.patiently(j, func(ctx context.Context) (err error) {
		if j.link.losses != nil {
			n, err = j.link.losses.CountLoss(ctx, j.d)
			return err
		}
		if counter, ok := w.back.(backend.LossCounter); ok {
			n, err = counter.CountLoss(ctx, j.r.ID, j.d.Losses, 24*time.Hour)
			return err
		}
		if j.link.marker == nil {
			return fmt.Errorf("neither broker nor result store counts lost workers: %w", broker.ErrUnsupported)
		}
		var moved bool
		if n, moved, err = j.link.marker.MarkLoss(ctx, j.d); moved {
			return errSentAgain
		}
		return err
	})
	if err == nil {
		j.r.Delivery.Losses, j.d.Losses = n, n
	}
	return n, err
}

// countedApart reports whether the result store may know of losses that came with
// no word of the broker's. A first run costs no look.
func (j *job) countedApart() bool {
	_, counts := j.w.back.(backend.LossCounter)
	return counts && j.link.losses == nil && (j.d.Redelivered || j.d.Orphaned)
}

// readLosses has the delivery say what was counted for it.
func (w *Worker) readLosses(j *job) {
	err := w.patiently(j, func(ctx context.Context) error {
		n, err := w.back.(backend.LossCounter).Losses(ctx, j.r.ID)
		if err == nil {
			j.r.Delivery.Losses, j.d.Losses = n, n
		}
		return err
	})
	if err != nil && j.link.ctx.Err() == nil {
		w.log.Warn("the lost workers of a task cannot be read; it runs as if there were none", "task", j.r.Task, "id", j.r.ID, "error", err)
	}
}

// forgetLosses drops what the result store has counted for a message that is gone:
// a retry of its task, or a dead letter that is sent again, begins anew.
func (w *Worker) forgetLosses(j *job) {
	counter, ok := w.back.(backend.LossCounter)
	if !ok || j.link.losses != nil || j.d.Losses == 0 || j.r == nil {
		return
	}
	w.group.Go(func() {
		ctx, cancel := context.WithTimeout(w.base, commitTimeout)
		defer cancel()
		if err := guard(func() error { return counter.ForgetLosses(ctx, j.r.ID) }); err != nil {
			w.log.Warn("the lost workers of a task that has ended could not be forgotten: until then, 24 h, they count for its retries as well", "task", j.r.Task, "id", j.r.ID, "error", err)
		}
	})
}

func lossReason(n, limit int) string {
	return fmt.Sprintf("%d workers died while they ran it, task_max_worker_losses is %d", n, limit)
}

// gone reports whether err says that a claim has ended.
func gone(err error) bool {
	return errors.Is(err, broker.ErrLeaseLost) || errors.Is(err, broker.ErrClosed)
}

// retryable reports whether a store may serve later what it did not serve now.
func retryable(err error) bool {
	return broker.Retryable(err) || errors.Is(err, backend.ErrUnavailable) || errors.Is(err, context.DeadlineExceeded)
}
