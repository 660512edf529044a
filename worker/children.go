package worker

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"syscall"
	"time"

	"github.com/lovage-go/lovage"
	"github.com/lovage-go/lovage/broker"
	"github.com/lovage-go/lovage/worker/internal/prefork"
)

// closeTimeout is what a child has for the Close of its tasks.
const closeTimeout = 10 * time.Second

// settleRunners gives each task its runner, starts the children that are wanted, and
// runs Init: in the children for what they run, in this process for the rest.
func (w *Worker) settleRunners(ctx context.Context) error {
	if _, err := PoolName(or(w.cfg.Pool, w.conf.WorkerPool)); err != nil {
		return err
	}
	all := w.cfg.Pool == poolPrefork
	var own []*lovage.Definition
	var theirs []string
	for _, d := range w.app.Tasks() {
		if all || w.cfg.Pool == poolGoroutine && d.Settings().Isolated {
			theirs = append(theirs, d.Name())
		} else {
			own = append(own, d)
		}
	}
	in := here{w.app}
	w.unknown.runner = in
	for _, s := range w.strategies {
		s.runner = in
	}
	if len(own) > 0 {
		if err := w.app.Init(ctx, own...); err != nil {
			return err
		}
	}
	if len(theirs) == 0 {
		return nil
	}
	size, _, _ := w.pool.Counts()
	if !all {
		size = w.cfg.Isolated
	}
	w.children = prefork.New(prefork.Config{
		App: w.app, Log: w.log, Size: size, Hostname: w.cfg.Hostname, Tasks: theirs, Env: w.cfg.ChildEnv,
		MaxTasks: w.cfg.MaxTasksPerChild, MaxMemory: w.cfg.MaxMemoryPerChild, Alive: w.conf.WorkerProcAliveTimeout, Close: closeTimeout,
	})
	for name, s := range w.strategies { // Celery's own tasks too: they may call errbacks
		if all || slices.Contains(theirs, name) {
			s.runner = apart{in, w.children}
		}
	}
	if err := w.children.Start(ctx); err != nil {
		return fmt.Errorf("the child processes of the pool do not start; what they wrote is in the log: %w", err)
	}
	return nil
}

func (w *Worker) closeChildren() {
	if w.children != nil {
		w.children.Close()
	}
}

// resize changes the number of slots, and of children where they are the slots.
func (w *Worker) resize(slots int) {
	w.pool.Resize(slots)
	w.window.resize(slots)
	if w.children != nil && w.cfg.Pool == poolPrefork {
		w.children.Resize(slots)
	}
}

// kill ends the run in a child for good. It reports false for a run of this
// process, which nobody can kill.
func (j *job) kill(sig syscall.Signal) bool {
	j.mu.Lock()
	c, task, apart := j.child, j.task, j.apart
	j.mu.Unlock()
	if c != nil && task != nil {
		c.Kill(task, sig)
	}
	return apart || c != nil
}

// pid is the process of the run in a child, 0 for others.
func (j *job) pid() int {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.child == nil {
		return 0
	}
	return j.child.PID()
}

// terminate ends a run that was revoked: for good in a child, by its context in
// this process.
func (j *job) terminate(sig syscall.Signal) {
	j.mu.Lock()
	apart := j.child != nil
	j.mu.Unlock()
	if !apart {
		j.stop(lovage.ErrRevoked)
		return
	}
	if j.phase.CompareAndSwap(running, terminated) {
		j.kill(sig)
		j.stop(lovage.ErrRevoked)
	}
}

// aftermath is the outcome of a job whose run was in a child: that of the run,
// or what follows from its end by force.
func (j *job) aftermath(out lovage.Outcome, err error) lovage.Outcome {
	w := j.w
	if err != nil && (j.asked || j.phase.CompareAndSwap(running, finishing)) {
		return j.died(err)
	}
	switch j.phase.Load() {
	case timedOut:
		return j.s.runner.conclude(j, lovage.TimedOut(j.timeLimit), lovage.FinisherFunc(j.keep))
	case terminated:
		w.log.Info("Task "+j.id()+" was terminated"+howOf(err), "task", j.r.Task, "id", j.r.ID)
		return j.s.runner.conclude(j, lovage.Terminated(), lovage.FinisherFunc(j.keep))
	case fenced:
		out.Fenced = broker.ErrLeaseLost
	case abandoned:
		out.Fenced = errColdShutdown
	}
	return out
}

// howOf is how a child died, for a line of the log.
func howOf(err error) string {
	var death *prefork.Death
	if errors.As(err, &death) {
		return ": " + death.Status
	}
	return ""
}

func (j *job) keep(_ context.Context, e *lovage.Effects) error { return j.w.finish(j, e) }

// died ends a job whose child is lost, or could not run it.
func (j *job) died(err error) lovage.Outcome {
	w := j.w
	var death *prefork.Death
	var refused *prefork.Refused
	switch {
	case errors.As(err, &refused):
		return lovage.Outcome{Fenced: &refusedError{err: err}}
	case !errors.As(err, &death): // there was no child, and the worker stops
		if j.settled.Load() {
			return lovage.Outcome{Fenced: errColdShutdown}
		}
		if e := w.settleNow(j, broker.HandBack, ""); e != nil {
			return lovage.Outcome{Fenced: e}
		}
		return lovage.Outcome{}
	}
	attrs := []any{"task", j.r.Task, "id", j.r.ID}
	if death.Trace != "" {
		attrs = append(attrs, "traceback", death.Trace)
	}
	w.log.Error("Task "+j.id()+": "+death.Error(), attrs...)
	out := lovage.LostWorker(death.Error())
	if !j.settled.Load() && j.s.set.RejectOnWorkerLost {
		n, err := w.countLoss(j)
		limit := j.s.set.MaxWorkerLosses
		switch {
		case errors.Is(err, errSentAgain): // whoever takes the copy looks at the cap
			w.count.losses.Add(1)
			w.log.Warn("Task "+j.id()+" is sent again: its process died", "task", j.r.Task, "id", j.r.ID, "losses", n, "limit", limit)
			return lovage.Outcome{}
		case gone(err), errors.Is(err, lovage.ErrShutdown):
			return lovage.Outcome{Fenced: err}
		case err != nil:
			w.log.Warn("a lost child could not be counted; its task runs again", "task", j.r.Task, "id", j.r.ID, "error", err)
		default:
			w.count.losses.Add(1)
		}
		if err != nil || limit < 0 || n < limit {
			w.log.Warn("Task "+j.id()+" runs again: its process died", "task", j.r.Task, "id", j.r.ID, "losses", n, "limit", limit)
			if err := w.settleNow(j, broker.Requeue, ""); err != nil {
				return lovage.Outcome{Fenced: err}
			}
			return lovage.Outcome{}
		}
		reason := lossReason(n, limit)
		w.log.Error("Task "+j.id()+" is given up: "+reason, "task", j.r.Task, "id", j.r.ID, "losses", n)
		j.force = &verdict{action: broker.DeadLetter, reason: reason}
		out = lovage.LostWorker(death.Error() + " " + reason)
	}
	return j.s.runner.conclude(j, out, lovage.FinisherFunc(j.keep))
}
