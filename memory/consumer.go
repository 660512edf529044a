package memory

import (
	"context"
	"fmt"
	"time"

	"github.com/lovage-go/lovage/broker"
)

// consumer takes messages. All fields but the constants are guarded by store.mu.
type consumer struct {
	conn   *Conn
	worker string
	lease  time.Duration
	strict bool          // the first queue is always asked first
	done   chan struct{} // closed by end

	closed  bool
	killed  bool
	queues  []*queue
	turn    int // the queue that is asked first next time
	claims  map[*claim]struct{}
	waiting map[*waiter]struct{}
}

// Claim waits for the first message and takes as many more as are there. The
// queues take turns.
func (c *consumer) Claim(ctx context.Context, limit int) ([]broker.Delivery, error) {
	s := c.conn.store
	f, err := s.faults.before(ctx, OpClaim, broker.ErrUnavailable)
	if err != nil {
		return nil, err
	}
	if err := s.lock(ctx, c.conn.proc, broker.ErrClosed); err != nil {
		return nil, err
	}
	for {
		if c.closed {
			c.pass()
			s.mu.Unlock()
			return nil, fmt.Errorf("memory: claim: %w", broker.ErrClosed)
		}
		if ds := c.take(max(limit, 1), f); len(ds) > 0 {
			c.pass()
			s.mu.Unlock()
			if err := f.reply(); err != nil {
				return nil, err
			}
			return ds, nil
		}
		w := c.wait()
		s.mu.Unlock()
		select {
		case <-w.ring:
		case <-c.done:
		case <-ctx.Done():
		}
		s.mu.Lock()
		c.unwait(w)
		if ctx.Err() == nil && c.conn.proc.runs() {
			continue
		}
		c.pass()
		s.mu.Unlock()
		if err := s.lock(ctx, c.conn.proc, broker.ErrClosed); err != nil {
			return nil, err
		}
	}
}

// pass wakes who is next for what the consumer does not take. The caller holds
// store.mu.
func (c *consumer) pass() {
	for _, q := range c.queues {
		q.ring()
	}
}

// take claims up to limit ready messages. The caller holds store.mu.
func (c *consumer) take(limit int, f Fault) []broker.Delivery {
	s, now := c.conn.store, time.Now()
	for _, q := range c.queues {
		q.advance(now)
	}
	var ds []broker.Delivery
	if c.strict {
		c.turn = 0
	}
	for idle := 0; len(ds) < limit && idle < len(c.queues); {
		q := c.queues[c.turn%len(c.queues)]
		empty := len(q.ready.s) == 0 || s.paused[q.name]
		if empty || !c.strict {
			c.turn++
		}
		if empty {
			idle++
			continue
		}
		idle = 0
		cl := q.take(c, now)
		d := cl.item.delivery(s.lossesOf(cl.item.lossKey(), now))
		d.Claim = cl
		ds = append(ds, d)
		if f.Kind == Duplicate {
			twin := *cl.item
			twin.redelivered = true
			s.held++
			q.add(&twin, now)
			f.Kind = 0
		}
	}
	if len(ds) > 0 {
		for _, q := range c.queues {
			q.arm(now)
		}
	}
	return ds
}

// wait registers a blocked Claim with its queues. The caller holds store.mu.
func (c *consumer) wait() *waiter {
	w := &waiter{ring: make(chan struct{}, 1), queues: c.queues}
	c.waiting[w] = struct{}{}
	now := time.Now()
	for _, q := range w.queues {
		q.waiters = append(q.waiters, w)
		q.arm(now)
	}
	return w
}

func (c *consumer) unwait(w *waiter) {
	delete(c.waiting, w)
	w.leave()
	now := time.Now()
	for _, q := range w.queues {
		q.arm(now)
	}
}

// use sets the queues, which exist. The caller holds store.mu.
func (c *consumer) use(queues []broker.Queue) {
	left := c.queues
	c.queues = nil
	seen := map[string]bool{}
	for _, q := range queues {
		if !seen[q.Name] {
			seen[q.Name] = true
			c.queues = append(c.queues, c.conn.store.queue(q.Name))
		}
	}
	for w := range c.waiting {
		w.wake()
	}
	for _, q := range left { // one of them may have been woken for it
		q.ring()
	}
}

// Update changes the queues; a blocked Claim goes on with the new ones.
func (c *consumer) Update(ctx context.Context, queues ...broker.Queue) error {
	_, unlock, err := c.enter(ctx, OpDeclare)
	if err != nil {
		return err
	}
	defer unlock()
	if err := c.conn.store.declareAll(queues); err != nil {
		return err
	}
	c.use(queues)
	return nil
}

// Close hands back what is claimed. Closing twice is no error.
func (c *consumer) Close() error {
	c.conn.store.mu.Lock()
	defer c.conn.store.mu.Unlock()
	c.end(false, false)
	return nil
}

func (c *consumer) end(orphan, killed bool) {
	if c.closed {
		return
	}
	c.closed, c.killed = true, killed
	close(c.done)
	delete(c.conn.consumers, c)
	now := time.Now()
	for _, q := range c.queues {
		q.advance(now)
	}
	for cl := range c.claims {
		switch {
		case !killed:
			cl.item.queue.release(cl)
			cl.item.queue.add(cl.item, now)
		case orphan:
			cl.item.queue.orphan(cl)
		}
	}
}

func (c *consumer) enter(ctx context.Context, op Op) (Fault, func(), error) {
	return c.conn.store.enter(ctx, c.conn.proc, op, &c.closed, broker.ErrClosed, broker.ErrUnavailable)
}

var (
	_ broker.Consumer       = (*consumer)(nil)
	_ broker.AtomicFinisher = (*consumer)(nil)
	_ broker.LeaseRenewer   = (*consumer)(nil)
	_ broker.LossCounter    = (*consumer)(nil)
)
