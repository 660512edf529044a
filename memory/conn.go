package memory

import (
	"context"
	"fmt"
	"time"

	"github.com/lovage-go/lovage/broker"
)

// Conn is a connection to the store. It is safe for concurrent use.
type Conn struct {
	store *Store
	proc  *Process

	// Guarded by store.mu.
	closed    bool
	consumers map[*consumer]struct{}
	listeners map[*Listener]struct{}
}

// Kill ends the process of this connection; see [Process.Kill].
func (c *Conn) Kill() { c.proc.Kill() }

// Reopen opens another connection onto the same store, in a process of its own.
// The connection may be closed or killed.
func (c *Conn) Reopen() *Conn { return c.store.Broker() }

// Process returns the process that the connection belongs to.
func (c *Conn) Process() *Process { return c.proc }

// StoreID is that of the store.
func (c *Conn) StoreID() string { return c.store.StoreID() }

// Confirms is true: what Publish accepted is in the store.
func (c *Conn) Confirms() bool { return true }

// Features tells that everything but durability is there.
func (c *Conn) Features() broker.Features {
	return broker.Features{Delay: true, Park: true, Priority: true, DeadLetter: true, Ordered: true, MaxBody: c.store.maxBody}
}

// Declare makes queues, exchanges and bindings.
func (c *Conn) Declare(ctx context.Context, queues ...broker.Queue) error {
	_, unlock, err := c.enter(ctx, OpDeclare)
	if err != nil {
		return err
	}
	defer unlock()
	return c.store.declareAll(queues)
}

func (s *Store) declareAll(queues []broker.Queue) error {
	for _, q := range queues {
		if err := s.declare(q); err != nil {
			return err
		}
	}
	return nil
}

// Publish puts messages into their queues; those that are refused are named in
// a *broker.BatchError, the others are in.
func (c *Conn) Publish(ctx context.Context, msgs ...*broker.Message) error {
	errs := make([]error, len(msgs))
	enc := make([]encoded, len(msgs))
	for i, m := range msgs {
		enc[i], errs[i] = c.store.encode(m)
	}
	f, unlock, err := c.enter(ctx, OpPublish)
	if err != nil {
		return err
	}
	defer unlock()
	now := time.Now()
	for i := range enc {
		if errs[i] != nil {
			continue
		}
		var qs []*queue
		if qs, errs[i] = c.store.target(enc[i]); errs[i] == nil {
			c.store.put(enc[i], qs, now)
			if f.Kind == Duplicate {
				c.store.put(enc[i], qs, now)
			}
		}
	}
	if err := batch(errs); err != nil {
		return err
	}
	return f.reply()
}

// Consume starts a consumer; its queues are declared.
func (c *Conn) Consume(ctx context.Context, cfg broker.ConsumeConfig) (broker.Consumer, error) {
	f, unlock, err := c.enter(ctx, OpConsume)
	if err != nil {
		return nil, err
	}
	defer unlock()
	if err := c.store.declareAll(cfg.Queues); err != nil {
		return nil, err
	}
	if err := f.reply(); err != nil {
		return nil, err
	}
	cs := &consumer{conn: c, worker: cfg.Worker, lease: cfg.Lease, strict: cfg.Strict, claims: map[*claim]struct{}{}, waiting: map[*waiter]struct{}{}, done: make(chan struct{})}
	if cs.lease <= 0 {
		cs.lease = c.store.lease
	}
	cs.use(cfg.Queues)
	c.consumers[cs] = struct{}{}
	return cs, nil
}

// Close hands back what the consumers of the connection hold and ends its
// listeners. Closing twice is no error.
func (c *Conn) Close() error {
	c.store.mu.Lock()
	defer c.store.mu.Unlock()
	c.end(false, false)
	return nil
}

// end closes the connection. The claims of a killed one are orphans at once, or
// stay until their lease ends; otherwise they are handed back. The caller
// holds store.mu.
func (c *Conn) end(orphan, killed bool) {
	if c.closed {
		return
	}
	c.closed = true
	delete(c.proc.conns, c)
	for cs := range c.consumers {
		cs.end(orphan, killed)
	}
	for l := range c.listeners {
		l.end()
	}
}

// enter begins an operation: it applies the fault plan and takes the store. On
// a nil error the caller must call unlock, after which a lost reply is told by
// the fault's reply.
func (c *Conn) enter(ctx context.Context, op Op) (f Fault, unlock func(), err error) {
	return c.store.enter(ctx, c.proc, op, &c.closed, broker.ErrClosed, broker.ErrUnavailable)
}

func (s *Store) enter(ctx context.Context, p *Process, op Op, closed *bool, errClosed, errUnavailable error) (f Fault, unlock func(), err error) {
	if f, err = s.faults.before(ctx, op, errUnavailable); err != nil {
		return f, nil, err
	}
	if err := s.lock(ctx, p, errClosed); err != nil {
		return f, nil, err
	}
	if *closed {
		s.mu.Unlock()
		return f, nil, fmt.Errorf("memory: %s: %w", op, errClosed)
	}
	return f, s.mu.Unlock, nil
}

// batch is nil, the error of a single item, or a *broker.BatchError.
func batch(errs []error) error {
	for _, err := range errs {
		if err == nil {
			continue
		}
		if len(errs) == 1 {
			return err
		}
		return &broker.BatchError{Errs: errs}
	}
	return nil
}

var (
	_ broker.Conn          = (*Conn)(nil)
	_ broker.StoreIdentity = (*Conn)(nil)
	_ broker.Confirmer     = (*Conn)(nil)
)
