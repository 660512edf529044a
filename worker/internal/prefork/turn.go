package prefork

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"github.com/lovage-go/lovage"
	"github.com/lovage-go/lovage/backend"
	"github.com/lovage-go/lovage/broker"
)

// turn is a run in its child, as it speaks to the parent: to have its effects
// kept, and for its slot, which is the parent's to give.
type turn struct {
	server *server
	cancel context.CancelCauseFunc
	passed atomic.Bool     // another goroutine listens to the parent
	over   chan struct{}   // closed when the run has ended
	run    int             // its number
	free   bool            // nothing of the task runs after its effects
	repr   bool            // the result is wanted as text
	told   *lovage.Request // set when its effects were sent

	mu     sync.Mutex // guards what follows
	wanted int
	got    chan struct{}
	ended  bool
}

// pass makes the caller's goroutine the one that listens, if the run's still is.
func (t *turn) pass() {
	if t.passed.CompareAndSwap(false, true) {
		t.server.listen()
	}
}

// Finish implements lovage.Finisher: the parent makes the effects happen.
func (t *turn) Finish(ctx context.Context, e *lovage.Effects) error {
	s := t.server
	if err := t.count(ctx, e); err != nil {
		return err
	}
	m := ended{Outcome: outcomeOf(e.Outcome, t.repr), Effects: *e, Free: t.free, Quiet: t.free && s.quiet(e)}
	if t.free {
		m.Usage.Memory = s.memory()
		t.end()
	}
	if m.Quiet {
		if err := s.wire.send(finish, appendFlat(nil, &m)); err != nil {
			return err
		}
		t.told = e.Request
		return nil
	}
	got, err := t.say(finish, appendFlat(nil, &m), func() { t.told = e.Request })
	if err != nil {
		return err
	}
	for i := range min(len(got.Won), len(e.Ends)) {
		e.Ends[i].Won = got.Won[i]
	}
	s.mu.Lock()
	s.late[e.Request] = true
	s.mu.Unlock()
	return nil
}

// say sends what is answered, and waits for the answer.
func (t *turn) say(k kind, payload []byte, sent func()) (reply, error) {
	s, got := t.server, make(chan reply, 1)
	s.mu.Lock()
	s.answers[t.run] = got
	s.mu.Unlock()
	if err := s.wire.send(k, payload); err != nil {
		return reply{}, err
	}
	sent()
	if !t.passed.Load() {
		go t.pass() // the answer must be heard
	}
	m := <-got
	if m.Why != nil {
		return m, m.Why.error()
	}
	return m, nil
}

// count counts the run in its chords, which is this process's to do: what a
// chord's end causes may be code of the program. The parent is asked first, since
// only a run that has not been given up may count. A store that is away is
// waited for.
func (t *turn) count(ctx context.Context, e *lovage.Effects) error {
	s := t.server
	if !e.Counts() {
		return nil
	}
	o := outcomeOf(e.Outcome, false)
	m, err := t.say(ask, appendFlat(nil, &o), func() {})
	if err != nil {
		return err
	}
	if !m.Counts {
		e.Uncounted()
	}
	for wait := firstPause; ; wait = min(2*wait, lastPause) {
		limited, cancel := context.WithTimeout(ctx, sendTimeout)
		err := s.app.CountChords(limited, e)
		cancel()
		if !broker.Retryable(err) && !errors.Is(err, backend.ErrUnavailable) && !errors.Is(err, context.DeadlineExceeded) {
			return err
		}
		s.app.Logger().Warn("the result store does not count the parts of a chord; trying again: "+err.Error(), "error", err)
		time.Sleep(wait)
	}
}

// Release implements lovage.Slot.
func (t *turn) Release() { t.tell(lend, nil) }

// GiveUp implements lovage.Slot: the child can take the next run once it has
// told of this one.
func (t *turn) GiveUp() { t.free = true }

// Reacquire implements lovage.Slot.
func (t *turn) Reacquire(ctx context.Context) error {
	t.mu.Lock()
	t.wanted++
	n, got := t.wanted, make(chan struct{})
	t.got = got
	t.mu.Unlock()
	if !t.tell(want, appendFlat(nil, &n)) {
		return nil
	}
	select {
	case <-got:
		return nil
	case <-t.over:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// tell speaks for the run, as long as it goes on.
func (t *turn) tell(k kind, payload []byte) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return !t.ended && t.server.wire.send(k, payload) == nil
}

func (t *turn) given(n int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if n == t.wanted && t.got != nil {
		close(t.got)
		t.got = nil
	}
}

func (t *turn) end() {
	t.mu.Lock()
	defer t.mu.Unlock()
	if !t.ended {
		t.ended = true
		close(t.over)
	}
}
