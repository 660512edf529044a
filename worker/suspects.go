package worker

import (
	"context"
	"sync"
	"time"
)

// quarantine is how long a suspect on its last chance has a worker to itself.
const quarantine = 10 * time.Second

// suspects are messages that were running, more than once, when a worker died.
// One of them kills its process; the others only stood beside it, and, coming
// back in the same order, they would stand beside it each time until they are
// given up with it. So a worker runs one suspect at a time: the next death then
// says which one it was.
type suspects struct {
	mu      sync.Mutex // guards what follows
	running *job
	waiting []*job
	closed  bool // nobody waits any more: who comes late is handed back for want of a slot
}

// suspect reports whether a loss was counted for the message before this one.
func (j *job) suspect() bool { return j.d.Orphaned && j.d.Losses > 0 }

// lastChance reports whether one worker more that dies on the message is the last.
func (j *job) lastChance() bool {
	return j.suspect() && j.s.set.RejectOnWorkerLost && j.d.Losses == j.s.set.MaxWorkerLosses-2
}

// enter reports whether the job may go on now; if not, it is kept for its turn.
func (s *suspects) enter(j *job) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.running == nil || s.running == j || s.closed {
		s.running = j
		return true
	}
	s.waiting = append(s.waiting, j)
	return false
}

// leave gives the turn to the next suspect, which it returns.
func (s *suspects) leave(j *job) *job {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.running != j {
		return nil
	}
	s.running = nil
	if len(s.waiting) == 0 {
		return nil
	}
	next := s.waiting[0]
	s.waiting = s.waiting[1:]
	s.running = next
	return next
}

// close returns the suspects that still wait.
func (s *suspects) close() []*job {
	s.mu.Lock()
	defer s.mu.Unlock()
	left := s.waiting
	s.waiting, s.closed = nil, true
	return left
}

// alone takes all slots but the caller's, so that what kills the worker now is
// the caller's run and nobody else's. It waits for other runs no longer than the
// quarantine, and gives the slots back after it: a long task must not keep a
// worker to itself. The func gives them back at once.
func (w *Worker) alone(ctx context.Context) (end func()) {
	ctx, cancel := context.WithTimeout(ctx, quarantine)
	defer cancel()
	size, _, _ := w.pool.Counts()
	taken := 0
	for taken < size-1 && w.pool.Acquire(ctx) == nil {
		taken++
	}
	give := sync.OnceFunc(func() {
		for range taken {
			w.pool.Release()
		}
	})
	timer := time.AfterFunc(quarantine, give)
	return func() {
		timer.Stop()
		give()
	}
}
