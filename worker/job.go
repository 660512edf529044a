package worker

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/lovage-go/lovage"
	"github.com/lovage-go/lovage/broker"
	"github.com/lovage-go/lovage/worker/internal/prefork"
)

// The phases of a job. A job leaves running once: whoever takes it out by
// compare-and-swap decides how the message ends, and all others find that their
// word comes too late.
const (
	waiting    int32 = iota // claimed; for a slot, or for its time
	running                 // has been started
	finishing               // its effects wait to be kept
	timedOut                // ended by its hard limit
	fenced                  // the message has gone to another worker
	abandoned               // handed back at a cold shutdown
	cancelled               // given back because the connection is lost
	terminated              // revoked, and its child killed
)

// job is one claimed message on its way through the worker.
type job struct {
	w        *Worker
	link     *link // the connection that it came by and is settled through
	d        *broker.Delivery
	r        *lovage.Request // nil for a message that cannot be read
	s        *strategy
	received time.Time

	phase   atomic.Int32
	settled atomic.Bool // nothing is owed to the broker any more
	ended   atomic.Bool // the worker need not wait for it
	started atomic.Int64
	signal  atomic.Int32 // that the run was terminated with; 0: none
	asks    progress     // of a question to a store, until that is answered

	heir *job // with Worker.mu: the same message, which has come again
	told bool // by the alarms: that its claim lasts too long

	// force is how the message is settled whatever the outcome; see settle.go.
	force *verdict

	soft *alarm
	hard *alarm
	slot slot

	// Of a run whose end nobody waits for: what is to be kept, or the outcome if
	// that is decided already.
	later   *finish
	decided *lovage.Outcome

	timeLimit time.Duration // the hard one, set before running

	mu     sync.Mutex // guards what follows; ctx and cancel are set before running
	ctx    context.Context
	cancel context.CancelCauseFunc
	child  *prefork.Child // that the job has now
	task   *prefork.Job   // set once the child has it
	apart  bool           // it runs, or ran, in a child
	asked  bool           // its child was told that it may count in its chords
}

func (j *job) startedAt() time.Time {
	if n := j.started.Load(); n > 0 {
		return time.Unix(0, n).UTC()
	}
	return time.Time{}
}

// slot is a job's place in the pool: lovage.Slot. It may be given away early,
// lent while the run waits for other tasks, or taken away by the hard limit.
type slot struct {
	w    *Worker
	mu   sync.Mutex // guards what follows
	held bool
	out  int  // releases without reacquire
	gone bool // never to be had again
	at   time.Time
	used time.Duration // from take to the first release
}

func (s *slot) take() {
	s.mu.Lock()
	s.held, s.at = true, time.Now()
	s.mu.Unlock()
}

// occupied is how long the run kept others from the slot: an end that is still
// being kept by the store does not.
func (s *slot) occupied() time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.used
}

// Release implements lovage.Slot.
func (s *slot) Release() {
	s.mu.Lock()
	s.out++
	give := s.held
	s.held = false
	s.tally(give)
	s.mu.Unlock()
	if give {
		s.w.pool.Release()
	}
}

// GiveUp implements lovage.Slot.
func (s *slot) GiveUp() { s.Release() }

// tally notes the first release. The caller holds mu.
func (s *slot) tally(give bool) {
	if give && s.used == 0 {
		s.used = time.Since(s.at)
	}
}

// Reacquire implements lovage.Slot.
func (s *slot) Reacquire(ctx context.Context) error {
	s.mu.Lock()
	s.out--
	want := s.out == 0 && !s.gone && !s.held
	s.mu.Unlock()
	if !want {
		return nil
	}
	if err := s.w.pool.Acquire(ctx); err != nil {
		return err
	}
	s.mu.Lock()
	keep := !s.gone && s.out == 0 && !s.held
	s.held = s.held || keep
	s.mu.Unlock()
	if !keep {
		s.w.pool.Release()
	}
	return nil
}

// drop gives the place up for good.
func (s *slot) drop() {
	if s.leave() {
		s.w.pool.Release()
	}
}

// leave is drop, but for the release: it reports whether that is to be done.
func (s *slot) leave() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	give := s.held
	s.held, s.gone = false, true
	s.tally(give)
	return give
}

// run is the life of a job that has a slot. It reports whether the slot is still
// taken: then it is the caller's to give to the next job.
func (j *job) run() (keeps bool) {
	w := j.w
	j.slot.take()
	defer w.rescue("run", func(error) { j.slot.drop(); j.end(); keeps = false })
	if err := j.s.runner.enter(w.entry, j); err != nil { // the worker stops
		j.slot.drop()
		w.handBack(j)
		return false
	}
	defer j.s.runner.leave(j)
	ctx := j.open()
	defer j.stop(nil)
	if !j.phase.CompareAndSwap(waiting, running) {
		j.s.runner.leave(j)
		j.slot.drop()
		j.end()
		return false
	}
	w.enlist(j)
	if j.lastChance() {
		defer w.alone(ctx)() // before the loss is counted: waiting is no run
	}
	if out, verdict, ok := j.admit(); !ok {
		j.s.runner.leave(j)
		j.slot.drop()
		if out != nil {
			j.force = verdict
			w.conclude(j, *out)
		}
		j.end()
		return false
	}
	now := time.Now()
	j.started.Store(now.UnixNano())
	j.limit(now)
	if j.s.events && w.taskEvents.Load() {
		w.started(j)
	}
	j.r.SetSlot(&j.slot)
	out, err := j.s.runner.execute(ctx, j)
	j.unlimit()
	if f := j.later; f != nil {
		keeps = j.slot.leave()
		w.window.observe(j.slot.occupied())
		j.link.commit.put(f) // the job may be gone now
		return keeps
	}
	if out.Later {
		out = *j.decided
	}
	j.s.runner.leave(j)
	if j.apart {
		out = j.aftermath(out, err)
	}
	j.slot.drop()
	w.window.observe(j.slot.occupied())
	switch phase := j.phase.Load(); {
	case phase == cancelled:
		return false
	case j.apart && phase == abandoned:
		return false // the shutdown has settled it
	case !j.apart && (phase == timedOut || phase == abandoned):
		w.count.stuck.Add(-1)
		w.log.Warn("Task "+j.r.Task+"["+j.r.ID+"] returned after it was given up; its result is dropped", "task", j.r.Task, "id", j.r.ID)
		return false
	}
	j.result(&out)
	j.end()
	return false
}

// admit looks a last time before the run: revoked, expired, a worker lost, the
// early ack. It reports false with an outcome to store, or with none if the
// message is no longer ours.
func (j *job) admit() (*lovage.Outcome, *verdict, bool) {
	w := j.w
	now := time.Now()
	if out := w.dropped(j.r, now); out != nil {
		return out, nil, false
	}
	if first, err := j.first(); err != nil {
		if j.link.ctx.Err() != nil {
			j.phase.CompareAndSwap(running, fenced)
			w.fence(j, err)
			return nil, nil, false
		}
		w.log.Warn("a message that may have been sent twice could not be claimed; the task runs", "task", j.r.Task, "id", j.r.ID, "error", err)
	} else if !first {
		j.duplicate()
		return nil, nil, false
	}
	if out, err := j.succeeded(); err != nil {
		j.phase.CompareAndSwap(running, fenced)
		w.fence(j, err)
		return nil, nil, false
	} else if out != nil {
		return out, nil, false
	}
	if j.d.Orphaned {
		if out, verdict, ok := j.lost(); !ok {
			return out, verdict, false
		}
	}
	if !j.s.set.AcksLate {
		if err := w.settleNow(j, broker.Ack, ""); err != nil {
			j.phase.CompareAndSwap(running, fenced)
			w.fence(j, err)
			return nil, nil, false
		}
	}
	return nil, nil, true
}

// Finish implements lovage.Finisher for the run itself.
func (j *job) Finish(_ context.Context, e *lovage.Effects) error {
	if !j.asked {
		if err := j.finishing(); err != nil {
			return err
		}
	}
	return j.w.finish(j, e)
}

// finishing takes the job out of running, for its end to be kept.
func (j *job) finishing() error {
	if !j.phase.CompareAndSwap(running, finishing) {
		return j.tooLate()
	}
	j.unlimit()
	return nil
}

// FinishLater implements lovage.LaterFinisher: the run puts the finish when it has
// nothing more to do, since the job is gone as soon as that is answered.
func (j *job) FinishLater(_ context.Context, e *lovage.Effects, then func(error)) {
	var err error
	if j.phase.CompareAndSwap(running, finishing) {
		var f *finish
		if f, err = j.w.effects(j, e); err == nil && f.enter() {
			f.then, j.later = then, f
			return
		}
	} else {
		err = j.tooLate()
	}
	then(err)
	j.decided = e.Outcome
}

// tooLate is the error for effects that come after the job was decided.
func (j *job) tooLate() error {
	switch j.phase.Load() {
	case timedOut:
		return lovage.ErrTimeLimit
	case abandoned:
		return lovage.ErrShutdown
	case cancelled:
		return errConnectionLost
	case terminated:
		return lovage.ErrRevoked
	}
	return broker.ErrLeaseLost
}

// limit arms the time limits: the message's own, else the task's, else the
// worker's. The clock starts now, when the run does.
func (j *job) limit(now time.Time) {
	set := &j.s.set
	soft := limitOf(&j.s.soft, j.r.SoftLimit, set.OwnSoftTimeLimit, set.SoftTimeLimit)
	hard := limitOf(&j.s.hard, j.r.TimeLimit, set.OwnTimeLimit, set.TimeLimit)
	if soft > 0 {
		j.soft = j.w.alarms.add(now.Add(soft), func() {
			if j.phase.Load() != running { // its hard limit was first
				return
			}
			j.w.log.Warn("Soft time limit ("+soft.String()+") exceeded for "+j.r.Task+"["+j.r.ID+"]", "task", j.r.Task, "id", j.r.ID)
			j.stop(lovage.ErrSoftTimeLimit)
		})
	}
	if j.timeLimit = hard; hard > 0 {
		j.hard = j.w.alarms.add(now.Add(hard), func() { j.overrun(hard) })
	}
}

func (j *job) unlimit() {
	j.w.alarms.cancel(j.soft)
	j.w.alarms.cancel(j.hard)
}

// open makes the context of the run. It is not that of the worker's Run: a warm
// shutdown lets runs end by themselves.
func (j *job) open() context.Context {
	ctx, cancel := context.WithCancelCause(j.w.base)
	j.mu.Lock()
	j.ctx, j.cancel = ctx, cancel
	j.mu.Unlock()
	if cause := j.w.cutoff.Load(); cause != nil {
		cancel(*cause)
	}
	return ctx
}

// stop cancels the context of the run, if it has one.
func (j *job) stop(cause error) {
	j.mu.Lock()
	cancel := j.cancel
	j.mu.Unlock()
	if cancel != nil {
		cancel(cause)
	}
}

// overrun ends the job at its hard limit. A child is killed, and run goes on
// from there. A goroutine cannot be killed: it is counted as stuck until it
// returns, and its effects are refused.
func (j *job) overrun(limit time.Duration) {
	w := j.w
	if !j.phase.CompareAndSwap(running, timedOut) {
		return
	}
	w.log.Error("Hard time limit ("+limit.String()+") exceeded for "+j.r.Task+"["+j.r.ID+"]", "task", j.r.Task, "id", j.r.ID)
	if j.kill(syscall.SIGKILL) {
		j.stop(lovage.ErrTimeLimit)
		return
	}
	w.stick()
	j.stop(lovage.ErrTimeLimit)
	j.slot.drop()
	w.group.Go(func() {
		defer w.rescue("time limit", func(error) { j.end() })
		w.conclude(j, lovage.TimedOut(limit))
		j.end()
	})
}

// end tells that the worker need not wait for the job any more.
func (j *job) end() {
	if j.ended.Swap(true) {
		return
	}
	w := j.w
	w.mu.Lock()
	delete(w.jobs, j)
	if j.r != nil && w.runs[j.r.ID] == j {
		delete(w.runs, j.r.ID)
	}
	heir := j.heir
	j.heir = nil
	none := len(w.jobs) == 0
	w.mu.Unlock()
	j.link.leave()
	if none {
		ring(w.idle)
	}
	ring(w.room)
	if heir != nil {
		w.admit(heir, time.Now())
	}
	if j.suspect() {
		if next := w.suspects.leave(j); next != nil {
			w.admit(next, time.Now())
		}
	}
}

// lost counts an orphaned message just before it runs again, and ends it at the
// cap. What was only waiting in a dead worker's hands is counted once at most
// for each time that it is started.
func (j *job) lost() (*lovage.Outcome, *verdict, bool) {
	w := j.w
	if !j.s.set.RejectOnWorkerLost && j.d.Losses > 0 { // it is known to have been started
		out := lovage.LostWorker("the worker that ran it died")
		return &out, &verdict{action: broker.Ack}, false
	}
	n, err := w.countLoss(j)
	switch {
	case errors.Is(err, errSentAgain):
		w.log.Info("Task "+j.r.Task+"["+j.r.ID+"] goes to the end of its queue, with its losses", "task", j.r.Task, "id", j.r.ID, "losses", n)
		return nil, nil, false
	case errors.Is(err, broker.ErrLeaseLost), errors.Is(err, broker.ErrClosed), errors.Is(err, lovage.ErrShutdown):
		j.phase.CompareAndSwap(running, fenced)
		w.fence(j, err)
		return nil, nil, false
	case err != nil:
		w.log.Warn("a lost worker could not be counted; the task runs", "task", j.r.Task, "id", j.r.ID, "error", err)
		return nil, nil, true
	}
	w.count.losses.Add(1)
	limit := j.s.set.MaxWorkerLosses
	if !j.s.set.RejectOnWorkerLost {
		if n > 1 { // counted elsewhere than in the message
			out := lovage.LostWorker("the worker that ran it died")
			return &out, &verdict{action: broker.Ack}, false
		}
		limit = 2 // the next one ends it, whatever the cap
	}
	if limit < 0 || n < limit {
		w.log.Warn("Task "+j.r.Task+"["+j.r.ID+"] runs again: its worker died", "task", j.r.Task, "id", j.r.ID, "losses", n, "limit", limit)
		return nil, nil, true
	}
	reason := lossReason(n, limit)
	w.log.Error("Task "+j.r.Task+"["+j.r.ID+"] is given up: "+reason, "task", j.r.Task, "id", j.r.ID, "losses", n)
	out := lovage.LostWorker(reason)
	return &out, &verdict{action: broker.DeadLetter, reason: reason}, false
}
