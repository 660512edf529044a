package prefork

import (
	"context"
	"sync"
	"sync/atomic"

	"github.com/lovage-go/lovage"
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
func (t *turn) Finish(_ context.Context, e *lovage.Effects) error {
	s := t.server
	m := ended{Outcome: outcomeOf(e.Outcome, t.repr), Effects: *e, Free: t.free, Quiet: t.free && s.quiet(e)}
	if t.free {
		m.Usage.Memory = s.memory()
		t.end()
	}
	var got chan error
	if !m.Quiet {
		got = make(chan error, 1)
		s.mu.Lock()
		s.answers[t.run] = got
		s.mu.Unlock()
	}
	if err := s.wire.send(finish, appendFlat(nil, &m)); err != nil {
		return err
	}
	t.told = e.Request
	if m.Quiet {
		return nil
	}
	if !t.passed.Load() {
		go t.pass() // the answer must be heard
	}
	err := <-got
	s.mu.Lock()
	s.late[e.Request] = true
	s.mu.Unlock()
	return err
}

// Release implements lovage.Slot.
func (t *turn) Release() { t.say(lend, nil) }

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
	if !t.say(want, appendFlat(nil, &n)) {
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

// say speaks for the run, as long as it goes on.
func (t *turn) say(k kind, payload []byte) bool {
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
