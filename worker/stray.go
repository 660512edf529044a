package worker

import (
	"fmt"
	"sync"
	"time"

	"github.com/lovage-go/lovage"
	"github.com/lovage-go/lovage/broker"
)

const (
	maxStrays  = 10_000
	strayFor   = 10 * time.Minute
	firstPause = 200 * time.Millisecond
	lastPause  = 5 * time.Second
	askPause   = 1500 * time.Millisecond // long enough for answers to be there
	// strayEvery is the time between two that fall due, so that another worker
	// has a chance at each: in a heap, whoever claims many at once has them all.
	strayEvery = 5 * time.Millisecond
	// standBack is how long a worker claims nothing after it gave one back, and
	// standBackMost for one that comes again and again.
	standBack     = 2 * time.Millisecond
	standBackMost = 32 * time.Millisecond
)

// stray is a message for a task that is not known here and that somebody else
// may know.
type stray struct {
	first, last time.Time
	times       int
}

// strays remembers those that were given back, bounded.
type strays struct {
	mu    sync.Mutex // guards what follows
	byID  map[string]*stray
	swept time.Time
	next  time.Time       // when the next one may fall due
	told  map[string]bool // task names
	going int             // that are on their way back to the queue
	until time.Time       // the worker stands back
}

// leave tells that one is on its way back; the func, that it is there, and for
// how long others are to have the first word.
func (s *strays) leave() (there func(time.Duration)) {
	s.mu.Lock()
	s.going++
	s.mu.Unlock()
	return func(d time.Duration) {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.going--
		if until := time.Now().Add(d); until.After(s.until) {
			s.until = until
		}
	}
}

// wait is how long to claim nothing, so that who gave a message back is not the
// one who takes it.
func (s *strays) wait() time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.going > 0 {
		return standBackMost // rung for sooner
	}
	if s.until.IsZero() {
		return 0
	}
	return time.Until(s.until)
}

// meet notes a message and returns how often it was met, and when first. Where
// there is no room it was never met before, and long ago.
func (s *strays) meet(id string, now time.Time) (times int, first time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.byID == nil {
		s.byID, s.told = map[string]*stray{}, map[string]bool{}
	}
	m := s.byID[id]
	if m == nil && len(s.byID) >= maxStrays && now.Sub(s.swept) > time.Second {
		s.swept = now
		for id, m := range s.byID {
			if now.Sub(m.last) > strayFor {
				delete(s.byID, id)
			}
		}
	}
	if m == nil && len(s.byID) < maxStrays {
		m = &stray{first: now}
		s.byID[id] = m
	}
	if m == nil {
		return 0, now.Add(-askEvery)
	}
	m.last = now
	m.times++
	return m.times, m.first
}

// turn is the time from at on when nobody else falls due.
func (s *strays) turn(at time.Time) time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	if at.Before(s.next) {
		at = s.next
	}
	s.next = at.Add(strayEvery)
	return at
}

func (s *strays) forget(id string) {
	s.mu.Lock()
	delete(s.byID, id)
	s.mu.Unlock()
}

// news reports whether a task was not told of yet.
func (s *strays) news(task string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.told[task] || len(s.told) >= maxNames {
		return false
	}
	s.told[task] = true
	return true
}

// unregistered ends a message for a task that is not known here, as
// worker_unknown_task says: rejected, or kept as a dead letter, and whoever
// waits for it is told; or given back for as long as another worker knows it.
func (w *Worker) unregistered(j *job) {
	r := j.r
	j.s = w.unknown
	policy := w.conf.WorkerUnknownTask
	if policy == "return" && w.giveBack(j) {
		return
	}
	j.phase.Store(running)
	fate := "The message is kept as a dead letter."
	j.force = &verdict{action: broker.DeadLetter, reason: "unregistered task of type '" + r.Task + "': mend its name, or requeue it to a worker that has the task"}
	if policy == "fail" {
		fate, j.force.action = "The message is rejected.", broker.Reject
	}
	w.log.Error("Received unregistered task of type '"+r.Task+"'. "+fate+" "+
		"Is the package that declares this task linked into the worker, and is its name spelled alike on both sides?",
		"task", r.Task, "id", r.ID, "queue", j.d.Queue)
	err := fmt.Errorf("%w: %q", lovage.ErrNotRegistered, r.Task)
	w.app.Signals.TaskUnknown.Send(w.base, lovage.TaskUnknown{Hostname: w.cfg.Hostname, Name: r.Task, ID: r.ID, Message: j.d, Err: err})
	w.group.Go(func() {
		defer w.rescue("unregistered task", func(error) { j.end() })
		out := w.app.Execute(w.base, r, j)
		j.result(&out)
		j.end()
	})
}

// giveBack returns a message to its queue, unless no other worker knows its task.
//
// A Python worker sees only what is in the queue, not what is parked, and a
// message that falls due is claimed by a Go worker first. So each message goes to
// the producing end at once, where whoever waits may take it, and, if it comes
// back here, is parked for a while that grows before it goes there again.
func (w *Worker) giveBack(j *job) bool {
	r, now := j.r, time.Now()
	if _, ok := j.link.conn.(broker.Fanouter); !ok || w.commands == nil {
		return false // nobody can be asked
	}
	times, first := w.strays.meet(r.ID, now)
	known, asked := w.fleet.knows(r.Task, j.d.Queue)
	if !known && !asked.Before(first) {
		w.strays.forget(r.ID)
		return false
	}
	if !known || now.Sub(asked) > askEvery {
		w.ask(now)
	}
	if w.strays.news(r.Task) {
		w.log.Warn("Task "+r.Task+" is not known here; its messages are given back to the queue for workers that know it",
			"task", r.Task, "id", r.ID, "queue", j.d.Queue)
	}
	if known && times%2 == 1 {
		w.count.returned.Add(1)
		j.phase.Store(abandoned)
		there := w.strays.leave()
		w.settleThen(j, verdict{action: broker.Requeue}, func() {
			there(min(standBack<<min(times/2, 8), standBackMost))
			ring(w.room)
		})
		return true
	}
	pause := min(firstPause<<min(times/2, 5), lastPause)
	if !known {
		pause = max(pause, askPause)
	}
	w.pauseStray(j, w.strays.turn(now.Add(pause)))
	return true
}

// pauseStray keeps a message from everybody until a time.
func (w *Worker) pauseStray(j *job, until time.Time) {
	w.park(j, until, func() {
		if j.phase.CompareAndSwap(waiting, abandoned) {
			w.settleSoon(j, verdict{action: broker.Requeue})
		} else {
			j.end()
		}
	})
}

// ask asks the other workers, in the background, one round at a time and not
// often.
func (w *Worker) ask(now time.Time) {
	if !w.fleet.begin(now) {
		return
	}
	w.group.Go(func() {
		defer w.rescue("ask the other workers", func(error) { w.fleet.end(now, nil) })
		w.survey(w.asking, now)
	})
}
