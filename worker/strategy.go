package worker

import (
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/lovage-go/lovage"
	"github.com/lovage-go/lovage/broker"
	"github.com/lovage-go/lovage/internal/ratelimit"
)

// strategy is what a worker knows of a task type, built once. Remote control
// changes the limits.
type strategy struct {
	set        lovage.TaskSettings
	runner     runner
	soft, hard atomic.Int64                     // nanoseconds
	bucket     atomic.Pointer[ratelimit.Bucket] // nil: no limit
	rate       atomic.Pointer[string]           // as it was written
	events     bool
	done       *atomic.Int64
}

// limitOf is a time limit of a message: its own, else what there is now. A client
// that knows the task sends the declared limit with each call; that is no word of
// the caller's, or it could not be changed at run time.
func limitOf(now *atomic.Int64, own time.Duration, declares bool, declared time.Duration) time.Duration {
	if own > 0 && !(declares && own == declared) {
		return own
	}
	return time.Duration(now.Load())
}

// strategies builds one for each task; a rate limit that cannot be read is an
// error here and not at the first message.
func (w *Worker) buildStrategies() error {
	conf := w.conf
	for _, d := range append(w.app.Tasks(), w.app.Builtins()...) {
		set := d.Settings()
		s := &strategy{set: set, done: w.count.task(d.Name())}
		soft, hard := set.SoftTimeLimit, set.TimeLimit
		if w.cfg.SoftTimeLimit > 0 && !set.OwnSoftTimeLimit {
			soft = w.cfg.SoftTimeLimit
		}
		if w.cfg.TimeLimit > 0 && !set.OwnTimeLimit {
			hard = w.cfg.TimeLimit
		}
		s.soft.Store(int64(soft))
		s.hard.Store(int64(hard))
		s.events = set.SendEvents
		every, err := ratelimit.Parse(set.RateLimit)
		if err != nil {
			return fmt.Errorf("task %q: %w", d.Name(), err)
		}
		if every > 0 && !*conf.WorkerDisableRateLimits {
			s.bucket.Store(ratelimit.NewBucket(every))
		}
		s.rate.Store(&set.RateLimit)
		w.strategies[d.Name()] = s
	}
	w.unknown = &strategy{set: lovage.TaskSettings{AcksLate: true, AcksOnFailure: true, AcksOnTimeout: true, RejectOnWorkerLost: true, MaxWorkerLosses: lovage.NoLimit}, done: w.count.task("")}
	return nil
}

// receive decides what becomes of a claimed message. It does not block.
func (w *Worker) receive(l *link, d *broker.Delivery, now time.Time) {
	j := &job{w: w, link: l, d: d, received: now}
	j.slot.w = w
	l.open.Add(1)
	w.mu.Lock()
	w.jobs[j] = struct{}{}
	w.mu.Unlock()
	w.count.received.Add(1)

	r, err := w.app.Receive(d)
	if err != nil {
		w.refuse(j, err)
		return
	}
	r.Hostname = w.cfg.Hostname
	j.r = r
	if r.Definition() == nil {
		w.unregistered(j)
		return
	}
	j.s = w.strategies[r.Task]
	if w.drop(j, now) {
		return
	}
	if !j.countedApart() {
		w.admit(j, now)
		return
	}
	w.sought.Add(1)
	w.group.Go(func() {
		defer ring(w.room)
		defer w.sought.Add(-1)
		defer w.rescue("losses", func(error) { j.end() })
		w.readLosses(j)
		w.due(j)
	})
}

// admit lets a message that is good for a run wait for its time, its turn, or a
// slot.
func (w *Worker) admit(j *job, now time.Time) {
	if j.r.ETA.After(now) {
		w.later(j, j.r.ETA)
		return
	}
	if w.awaitTwin(j) {
		return
	}
	if j.suspect() && !w.suspects.enter(j) {
		return
	}
	if bucket := j.s.bucket.Load(); bucket != nil {
		if at, ok := bucket.Take(now); !ok {
			if at.Sub(now) <= ratelimit.Near { // its turn is sure; beyond that others may have it
				w.hold(j, at, func() { w.due(j) })
			} else {
				w.later(j, at)
			}
			return
		}
	}
	w.announce(j)
	if !w.pool.Put(j) {
		w.handBack(j)
	}
}

// later lets a message wait for its time.
func (w *Worker) later(j *job, at time.Time) {
	w.park(j, at, func() { w.due(j) })
}

// due goes on with a message that was held for its time.
func (w *Worker) due(j *job) {
	if j.phase.Load() == waiting {
		w.admit(j, time.Now())
		w.scaler.look()
	} else {
		j.end()
	}
}

// park parks a message at its broker until a time, or holds it where the broker
// cannot, and then calls due.
func (w *Worker) park(j *job, until time.Time, due func()) {
	w.count.parked.Add(1)
	if !j.link.features.Park {
		w.hold(j, until, due)
		return
	}
	j.phase.Store(abandoned)
	w.settleSoon(j, verdict{action: broker.Park, until: until})
}

// hold keeps a claimed message until its time; a shutdown hands it back.
func (w *Worker) hold(j *job, at time.Time, then func()) {
	w.mu.Lock()
	stop := w.stopping
	if !stop {
		w.holding[j] = w.alarms.add(at, func() { w.release(j, then) })
	}
	w.mu.Unlock()
	if stop {
		w.handBack(j)
	}
}

// release ends the hold of a message.
func (w *Worker) release(j *job, then func()) {
	w.mu.Lock()
	delete(w.holding, j)
	stop := w.stopping
	w.mu.Unlock()
	if stop {
		w.handBack(j)
		return
	}
	then()
}

// drop ends a message that waits and must not run; it reports false for all others.
func (w *Worker) drop(j *job, now time.Time) bool {
	out := w.dropped(j.r, now)
	if out == nil || !j.phase.CompareAndSwap(waiting, running) {
		return false
	}
	w.group.Go(func() {
		defer w.rescue("receive", func(error) { j.end() })
		w.conclude(j, *out)
		j.end()
	})
	return true
}

// dropped is the outcome of a task that must not run, nil for all others.
func (w *Worker) dropped(r *lovage.Request, now time.Time) *lovage.Outcome {
	revoked, expired := w.isRevoked(r, now), !r.Expires.IsZero() && !now.Before(r.Expires)
	if !revoked && !expired {
		return nil
	}
	out := lovage.Expired()
	if revoked {
		out, expired = lovage.RevokedOutcome(), false
		w.log.Info("Discarding revoked task: "+r.Task+"["+r.ID+"]", "task", r.Task, "id", r.ID)
	} else {
		w.log.Info("Discarding expired task: "+r.Task+"["+r.ID+"]", "task", r.Task, "id", r.ID)
	}
	w.app.Signals.TaskRevoked.Send(w.base, lovage.TaskRevoked{Request: r, Expired: expired})
	return &out
}

// announce tells that a message was taken for a run.
func (w *Worker) announce(j *job) {
	r := j.r
	if w.app.Signals.TaskReceived.Connected() {
		w.app.Signals.TaskReceived.Send(w.base, lovage.TaskReceived{Hostname: w.cfg.Hostname, Request: r})
	}
	if w.logInfo {
		w.log.Info("Task "+r.Task+"["+r.ID+"] received", "task", r.Task, "id", r.ID)
	}
	if j.s.events && w.taskEvents.Load() {
		w.eventReceived(j)
	}
}

// refuse ends a message that cannot be read: its raw bytes are kept as a dead
// letter, and if its id could be read, whoever waits for it is told.
func (w *Worker) refuse(j *job, err error) {
	j.phase.Store(running)
	w.log.Error("Received and kept as a dead letter an invalid task message: "+err.Error(),
		"queue", j.d.Queue, "content_type", j.d.Properties.ContentType, "bytes", len(j.d.Body), "error", err)
	w.app.Signals.TaskRejected.Send(w.base, lovage.TaskRejected{Hostname: w.cfg.Hostname, Queue: j.d.Queue, Message: j.d, Body: j.d.Body, Err: err})
	v := verdict{action: broker.DeadLetter, reason: err.Error()}
	var me *lovage.MessageError
	if !errors.As(err, &me) || me.ID == "" {
		w.settleSoon(j, v)
		return
	}
	j.force, j.s = &v, w.unknown
	if j.r = me.Request(); j.r == nil {
		j.r = &lovage.Request{ID: me.ID, Task: me.Task, RootID: me.ID}
	}
	j.r.Hostname = w.cfg.Hostname
	j.r.Delivery = lovage.DeliveryInfo{Exchange: j.d.Exchange, RoutingKey: j.d.RoutingKey, Queue: j.d.Queue, Redelivered: j.d.Redelivered}
	info := &lovage.ErrorInfo{Err: err, Type: "InvalidTaskError", Module: "celery.exceptions", Args: []any{err.Error()}}
	w.group.Go(func() {
		defer w.rescue("invalid message", func(error) { j.end() })
		w.conclude(j, lovage.Outcome{State: lovage.Failure, Info: info})
		j.end()
	})
}
