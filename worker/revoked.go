package worker

import (
	"context"
	"encoding/json"
	"sync"
	"syscall"
	"time"

	"github.com/lovage-go/lovage"
	"github.com/lovage-go/lovage/control"
)

// revoked is a bounded set of what must not run: task ids, or stamps (as many
// as worker_revokes_max says, for worker_revoke_expires each). The oldest make
// room.
type revoked struct {
	most    int
	keep    time.Duration
	changed chan struct{} // rung by each change; nil: nobody listens

	mu    sync.Mutex // guards what follows
	until map[string]time.Time
	order []string
}

// add notes what was revoked at a time.
func (s *revoked) add(at time.Time, ids ...string) {
	defer ring(s.changed)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.until == nil {
		s.until = map[string]time.Time{}
	}
	for _, id := range ids {
		until, known := s.until[id]
		if !known {
			s.order = append(s.order, id)
		}
		if later := at.Add(s.keep); later.After(until) {
			s.until[id] = later
		}
	}
	for now := time.Now(); len(s.order) > s.most || len(s.order) > 0 && !now.Before(s.until[s.order[0]]); {
		delete(s.until, s.order[0])
		s.order = s.order[1:]
	}
}

// has reports whether one of the ids was revoked and is not forgotten yet.
func (s *revoked) has(now time.Time, ids ...string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.until) == 0 {
		return false
	}
	for _, id := range ids {
		if until, ok := s.until[id]; ok && now.Before(until) {
			return true
		}
	}
	return false
}

func (s *revoked) empty() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.until) == 0
}

// all are the ids that are not forgotten, with the time of their revocation.
func (s *revoked) all(now time.Time) map[string]time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := make(map[string]time.Time, len(s.until))
	for id, until := range s.until {
		if now.Before(until) {
			out[id] = until.Add(-s.keep)
		}
	}
	return out
}

// stampKey is a stamp as the set of revoked stamps holds it.
func stampKey(header, value string) string { return header + "=" + value }

// stampKeys are those of a request.
func stampKeys(r *lovage.Request) (keys []string) {
	for header, raw := range r.Stamps {
		values, err := control.Stamps(json.RawMessage(raw))
		if err != nil {
			continue
		}
		for _, v := range values {
			keys = append(keys, stampKey(header, v))
		}
	}
	return keys
}

// isRevoked reports whether a request must not run. It costs what a look into
// an empty map does as long as nothing was revoked.
func (w *Worker) isRevoked(r *lovage.Request, now time.Time) bool {
	if w.revokes.has(now, r.ID) {
		return true
	}
	return len(r.Stamps) > 0 && !w.stamps.empty() && w.stamps.has(now, stampKeys(r)...)
}

// Revoke lets the tasks of these ids not run: those that wait are dropped when
// their turn comes, and with terminate those that run are cancelled with
// lovage.ErrRevoked as the cause, or killed if they run in a child. The result
// store hears of it soon.
func (w *Worker) Revoke(terminate bool, ids ...string) {
	w.revokes.add(time.Now(), ids...)
	w.keeper.put(ids)
	if terminate {
		w.terminate(0, func(r *lovage.Request) bool { return w.revokes.has(time.Now(), r.ID) })
	}
}

// terminate ends the runs of those that are meant, and returns the requests of
// all that the worker has.
func (w *Worker) terminate(signal int, meant func(*lovage.Request) bool) (found []*lovage.Request) {
	for _, j := range w.snapshot() {
		phase := j.phase.Load()
		if j.r == nil || phase != waiting && phase != running || !meant(j.r) {
			continue
		}
		found = append(found, j.r)
		if phase == running {
			j.signal.Store(int32(signal))
			j.terminate(syscall.Signal(or(signal, int(syscall.SIGTERM))))
		}
	}
	return found
}

// recallTime bounds what a start waits for the list of revokes.
const recallTime = 50 * time.Millisecond

// recall takes over the revokes that the result store has kept. A store that is
// slow is asked once more, by mingle.
func (w *Worker) recall(ctx context.Context, limit time.Duration) {
	if w.back == nil || w.recalled.Load() {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	list, err := w.app.Revokes(ctx)
	if err != nil {
		w.log.Debug("the revokes of earlier are not known yet", "error", err)
		return
	}
	w.recalled.Store(true)
	for id, at := range list {
		w.revokes.add(at, id)
	}
}

// keeper has revokes stored, many at a time.
type keeper struct {
	wake chan struct{}
	most int

	mu    sync.Mutex // guards what follows
	ids   []string
	done  chan struct{} // closed when ids are stored, or given up
	never bool          // there is no result store
}

// put adds ids and returns what tells that they are stored.
func (k *keeper) put(ids []string) <-chan struct{} {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.never || len(ids) == 0 {
		return closedChan
	}
	if k.done == nil {
		k.done = make(chan struct{})
	}
	k.ids = append(k.ids, ids...)
	if over := len(k.ids) - k.most; over > 0 {
		k.ids = k.ids[over:]
	}
	ring(k.wake)
	return k.done
}

var closedChan = func() chan struct{} { c := make(chan struct{}); close(c); return c }()

func (k *keeper) take() ([]string, chan struct{}) {
	k.mu.Lock()
	defer k.mu.Unlock()
	ids, done := k.ids, k.done
	k.ids, k.done = nil, nil
	return ids, done
}

// keepRevokes stores what is revoked until ctx ends. A store that is away is
// tried again.
func (w *Worker) keepRevokes(ctx context.Context) {
	defer w.rescue("revokes", func(error) {})
	for {
		select {
		case <-w.keeper.wake:
		case <-ctx.Done():
			return
		}
		ids, done := w.keeper.take()
		if len(ids) == 0 {
			continue
		}
		for wait, told := firstBackoff, false; ; wait = w.longer(wait) {
			bounded, cancel := context.WithTimeout(ctx, commitTimeout)
			err := guard(func() error { return w.app.MarkRevoked(bounded, ids...) })
			cancel()
			if err == nil || ctx.Err() != nil {
				break
			}
			if !told {
				told = true
				w.log.Warn("revokes are not in the result store yet: "+err.Error(), "ids", ids, "error", err)
			}
			if !retryable(err) {
				break
			}
			select {
			case <-time.After(wait):
			case <-ctx.Done():
			}
		}
		close(done)
	}
}
