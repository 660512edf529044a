package worker

import (
	"sync"
	"sync/atomic"
	"time"
)

// Stats are a worker's counts since its start.
type Stats struct {
	Active    int // runs under way
	Reserved  int // messages claimed and not started
	Finishing int // runs that have ended and whose effects are not yet kept
	Stuck     int // runs past their hard limit that have not returned
	Slots     int // size of the pool
	SlotsUsed int

	Received  int64 // messages claimed
	Processed int64 // runs that ended, whatever the outcome
	Succeeded int64
	Failed    int64
	Retried   int64
	Rejected  int64
	Revoked   int64 // expired ones too
	Fenced    int64 // runs whose message had gone to another worker
	Dead      int64 // messages made dead letters
	Losses    int64 // orphaned messages that were counted before they ran again
	Parked    int64 // messages given back until their time
	Returned  int64 // messages handed back unstarted
	Refused   int64 // runs whose effects the store would not take
	Rebuilt   int64 // connections replaced

	Duplicates int64 // messages not run: copies of one that was sent twice, and tasks that had succeeded

	ByTask map[string]int64 // runs that ended, by task
}

// counters are the atomic half of Stats.
type counters struct {
	received, processed, succeeded, failed, retried, rejected, revoked atomic.Int64
	fenced, dead, losses, parked, returned, refused, rebuilt           atomic.Int64
	duplicates                                                         atomic.Int64
	finishing, finishBytes, stuck                                      atomic.Int64

	mu     sync.Mutex // guards byTask
	byTask map[string]*atomic.Int64
}

// task is the counter of one task, made once for its strategy.
func (c *counters) task(name string) *atomic.Int64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.byTask == nil {
		c.byTask = map[string]*atomic.Int64{}
	}
	n := c.byTask[name]
	if n == nil {
		n = new(atomic.Int64)
		c.byTask[name] = n
	}
	return n
}

// Stats returns the counts. It may be called at any time.
func (w *Worker) Stats() Stats {
	c := &w.count
	s := Stats{
		Finishing: int(c.finishing.Load()), Stuck: int(c.stuck.Load()),
		Received: c.received.Load(), Processed: c.processed.Load(), Succeeded: c.succeeded.Load(),
		Failed: c.failed.Load(), Retried: c.retried.Load(), Rejected: c.rejected.Load(),
		Revoked: c.revoked.Load(), Fenced: c.fenced.Load(), Dead: c.dead.Load(), Losses: c.losses.Load(),
		Parked: c.parked.Load(), Returned: c.returned.Load(), Refused: c.refused.Load(), Rebuilt: c.rebuilt.Load(),
		Duplicates: c.duplicates.Load(),
		ByTask:     map[string]int64{},
	}
	c.mu.Lock()
	for name, n := range c.byTask {
		s.ByTask[name] = n.Load()
	}
	c.mu.Unlock()
	if w.pool != nil {
		s.Slots, s.SlotsUsed, _ = w.pool.Counts()
	}
	w.mu.Lock()
	for j := range w.jobs {
		switch j.phase.Load() {
		case waiting:
			s.Reserved++
		case running:
			s.Active++
		}
	}
	w.mu.Unlock()
	return s
}

// Running describes a message that a worker has: one that runs, or one that is
// claimed and waits for a slot or for its time.
type Running struct {
	ID       string
	Task     string
	Args     string
	Kwargs   string
	Queue    string
	Started  time.Time // zero for one that waits
	Received time.Time
	Retries  int
}

// Active lists the runs under way.
func (w *Worker) Active() []Running { return w.list(running) }

// Reserved lists the messages that are claimed and not started.
func (w *Worker) Reserved() []Running { return w.list(waiting) }

func (w *Worker) list(phase int32) []Running {
	w.mu.Lock()
	var jobs []*job
	for j := range w.jobs {
		if j.r != nil && j.phase.Load() == phase {
			jobs = append(jobs, j)
		}
	}
	w.mu.Unlock()
	out := make([]Running, 0, len(jobs))
	for _, j := range jobs {
		args, kwargs := j.r.Describe()
		out = append(out, Running{
			ID: j.r.ID, Task: j.r.Task, Args: args, Kwargs: kwargs, Queue: j.d.Queue,
			Started: j.startedAt(), Received: j.received, Retries: j.r.Retries,
		})
	}
	return out
}
