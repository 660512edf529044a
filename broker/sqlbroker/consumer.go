package sqlbroker

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/lovage-go/lovage/broker"
	"github.com/lovage-go/lovage/internal/sqlstore"
	"github.com/lovage-go/lovage/protocol"
)

type leaseDefault = time.Duration

// Consumer takes messages. It is safe for concurrent use; calls of Claim take turns.
type Consumer struct {
	conn   *Conn
	name   string
	lease  time.Duration
	strict bool          // the first queue is always asked first
	done   chan struct{} // closed by Close
	turn   chan struct{} // holds one token: whose Claim it is

	mu      sync.Mutex
	closed  bool
	worker  int64 // the row; 0 until the first claim, and after the row was lost
	renewed time.Time
	queues  []string
	first   int           // the queue that is asked first next time
	changed chan struct{} // closed when queues change
	held    map[*claim]struct{}
}

// claim is what Delivery.Claim holds.
type claim struct {
	consumer *Consumer
	worker   int64
	row      sqlstore.Delivery

	losses  int  // guarded by Consumer.mu
	counted bool // likewise
}

// Consume starts a consumer. Its queues are declared.
func (c *Conn) Consume(ctx context.Context, cfg broker.ConsumeConfig) (broker.Consumer, error) {
	if err := c.alive(); err != nil {
		return nil, err
	}
	cs := &Consumer{
		conn: c, name: cfg.Worker, lease: cfg.Lease, strict: cfg.Strict,
		done: make(chan struct{}), turn: make(chan struct{}, 1), changed: make(chan struct{}),
		held: map[*claim]struct{}{},
	}
	if cs.lease <= 0 {
		cs.lease = c.lease
	}
	if err := cs.Update(ctx, cfg.Queues...); err != nil {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return nil, fmt.Errorf("sqlite %s: %w", c.db.Path(), broker.ErrClosed)
	}
	c.consumers[cs] = struct{}{}
	return cs, nil
}

// Update declares the queues and consumes from them from now on.
func (cs *Consumer) Update(ctx context.Context, queues ...broker.Queue) error {
	if err := cs.conn.Declare(ctx, queues...); err != nil {
		return err
	}
	var names []string
	seen := map[string]bool{}
	for _, q := range queues {
		if !seen[q.Name] {
			seen[q.Name] = true
			names = append(names, q.Name)
		}
	}
	cs.mu.Lock()
	defer cs.mu.Unlock()
	cs.queues, cs.first = names, 0
	close(cs.changed)
	cs.changed = make(chan struct{})
	return nil
}

// Claim waits for the first message and takes as many more as are there, up to
// limit. The queues take turns in being asked first.
func (cs *Consumer) Claim(ctx context.Context, limit int) ([]broker.Delivery, error) {
	select {
	case cs.turn <- struct{}{}:
		defer func() { <-cs.turn }()
	case <-cs.done:
		return nil, cs.errClosed()
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	if err := cs.conn.db.LookAfter(ctx); err != nil {
		return nil, cs.closedOr(err)
	}
	out, err := cs.take(ctx, max(limit, 1))
	if len(out) > 0 || err != nil {
		return out, cs.closedOr(err)
	}
	ear := cs.conn.db.Ear(sqlstore.BellWork)
	defer ear.Close()
	for idle := 0; ; idle++ {
		select {
		case <-cs.done:
			return nil, cs.errClosed()
		default:
		}
		ear.Listen()
		queues, changed := cs.asked()
		now, next := false, int64(0)
		err := cs.conn.db.View(ctx, func(tx *sqlstore.Tx) (err error) {
			now, next, err = tx.Waiting(queues)
			return err
		})
		if err == nil && now {
			if out, err = cs.take(ctx, max(limit, 1)); len(out) > 0 {
				return out, nil
			}
		}
		if err != nil {
			return nil, cs.closedOr(err)
		}
		wait := sqlstore.SafetyPoll
		if next > 0 {
			wait = min(wait, time.Until(time.UnixMicro(next))+time.Millisecond)
		}
		if err := ear.Wait(ctx, wait, changed); err != nil {
			return nil, cs.closedOr(err)
		}
		if err := cs.conn.db.LookAfter(ctx); err != nil {
			return nil, cs.closedOr(err)
		}
		if err := cs.calm(ctx, idle); err != nil {
			return nil, cs.closedOr(err)
		}
	}
}

// calm keeps a consumer that is rung again and again for other queues' messages
// from looking after every ring.
func (cs *Consumer) calm(ctx context.Context, fruitless int) error {
	if fruitless < 8 {
		return nil
	}
	timer := time.NewTimer(min(time.Duration(fruitless)*250*time.Microsecond, 5*time.Millisecond))
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// asked gives the queues and what tells that they have changed, or Close.
func (cs *Consumer) asked() ([]string, <-chan struct{}) {
	cs.mu.Lock()
	defer cs.mu.Unlock()
	return cs.queues, cs.changed
}

// take claims what is there. Only the holder of the turn calls it.
func (cs *Consumer) take(ctx context.Context, limit int) ([]broker.Delivery, error) {
	cs.mu.Lock()
	if cs.closed {
		cs.mu.Unlock()
		return nil, cs.errClosed()
	}
	known, renewed := cs.worker, cs.renewed
	order := cs.queues
	if n := len(order); n > 1 && !cs.strict {
		cs.first = (cs.first + 1) % n
		order = append(append(make([]string, 0, n), order[cs.first:]...), order[:cs.first]...)
	}
	cs.mu.Unlock()
	start := time.Now()
	var worker int64
	var rows []sqlstore.Delivery
	var losses []int
	err := cs.conn.db.UpdateLazily(ctx, func(tx *sqlstore.Tx) (err error) {
		worker, rows, losses = known, nil, nil
		if worker != 0 && start.Sub(renewed) > cs.RenewEvery() {
			if err := tx.Renew(worker, cs.lease); err != nil && !errors.Is(err, sqlstore.ErrLeaseLost) {
				return err
			}
		}
		if worker != 0 {
			rows, err = tx.Claim(worker, order, limit)
		}
		if worker == 0 || errors.Is(err, sqlstore.ErrLeaseLost) {
			if worker, err = tx.Register(cs.name, cs.lease); err == nil {
				rows, err = tx.Claim(worker, order, limit)
			}
		}
		if err == nil {
			losses, err = lossesOf(tx, rows)
		}
		return err
	})
	if err != nil {
		return nil, fault(err)
	}
	cs.mu.Lock()
	defer cs.mu.Unlock()
	if worker != known {
		for cl := range cs.held { // of the row that was lost
			delete(cs.held, cl)
		}
		cs.worker, cs.renewed = worker, start
	} else if start.Sub(renewed) > cs.RenewEvery() {
		cs.renewed = start
	}
	if cs.closed {
		return nil, cs.errClosed() // Close hands them back
	}
	out := make([]broker.Delivery, len(rows))
	for i := range rows {
		cl := &claim{consumer: cs, worker: worker, row: rows[i]}
		if losses != nil {
			cl.losses = losses[i]
		}
		cs.held[cl] = struct{}{}
		out[i] = deliveryOf(&cl.row)
		if n := len(cl.row.Body); n > cs.conn.maxBody {
			out[i].Malformed = fmt.Errorf("its body has %d bytes, the limit is %d: %w", n, cs.conn.maxBody, broker.ErrTooLarge)
		}
		out[i].Losses, out[i].Claim = cl.losses, cl
	}
	return out, nil
}

// lossesOf looks up what redelivered messages have cost; nil for first deliveries.
func lossesOf(tx *sqlstore.Tx, rows []sqlstore.Delivery) ([]int, error) {
	var losses []int
	for i := range rows {
		if !rows[i].Redelivered() {
			continue
		}
		n, err := tx.Losses(taskIDOf(&rows[i]))
		if err != nil {
			return nil, err
		}
		if n > 0 {
			if losses == nil {
				losses = make([]int, len(rows))
			}
			losses[i] = int(n)
		}
	}
	return losses, nil
}

// taskIDOf is what losses are counted by: the task's id, or what stands for it.
func taskIDOf(row *sqlstore.Delivery) string {
	if h, err := protocol.ParseHeaders(row.Headers); err == nil && h.ID != "" {
		return h.ID
	}
	if e, err := sqlstore.ParseEnvelope(row.Envelope); err == nil && e.Properties.CorrelationID != "" {
		return e.Properties.CorrelationID
	}
	return fmt.Sprintf("message %d", row.ID)
}

func deliveryOf(row *sqlstore.Delivery) broker.Delivery {
	e, err := sqlstore.ParseEnvelope(row.Envelope)
	return broker.Delivery{
		Headers: row.Headers, Body: row.Body, Properties: e.Properties, Exchange: e.Exchange, RoutingKey: e.RoutingKey,
		Queue: row.Queue, Redelivered: row.Redelivered(), Orphaned: row.Orphaned(), Malformed: err,
	}
}

// Close hands back what is claimed and ends the consumer. Closing twice is no error.
func (cs *Consumer) Close() error {
	cs.mu.Lock()
	if cs.closed {
		cs.mu.Unlock()
		return nil
	}
	cs.closed = true
	close(cs.done)
	close(cs.changed)
	cs.changed = make(chan struct{})
	cs.mu.Unlock()
	cs.turn <- struct{}{} // a Claim under way sees the end and leaves
	cs.mu.Lock()
	worker := cs.worker
	clear(cs.held)
	cs.mu.Unlock()
	cs.conn.mu.Lock()
	delete(cs.conn.consumers, cs)
	cs.conn.mu.Unlock()
	if worker == 0 {
		return nil
	}
	// The wait is bounded by the lock timeout; a failure leaves the claims to the lease.
	err := cs.conn.db.UpdateLazily(context.Background(), func(tx *sqlstore.Tx) error { return tx.Unregister(worker) })
	if err != nil && !errors.Is(err, sqlstore.ErrClosed) {
		return fmt.Errorf("hand back the claims of %s: %w", cs.name, fault(err))
	}
	return nil
}

func (cs *Consumer) errClosed() error {
	return fmt.Errorf("sqlite %s: consumer: %w", cs.conn.db.Path(), broker.ErrClosed)
}

// closedOr prefers the consumer's own end to what came of it.
func (cs *Consumer) closedOr(err error) error {
	if err == nil {
		return nil
	}
	select {
	case <-cs.done:
		return cs.errClosed()
	default:
		return fault(err)
	}
}

var (
	_ broker.Consumer       = (*Consumer)(nil)
	_ broker.AtomicFinisher = (*Consumer)(nil)
	_ broker.LeaseRenewer   = (*Consumer)(nil)
	_ broker.LossCounter    = (*Consumer)(nil)
)
