package memory

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/lovage-go/lovage/broker"
)

// Settle ends claims. After Close, or when the process was killed, every claim
// has ended and every entry is broker.ErrLeaseLost.
func (c *consumer) Settle(ctx context.Context, settlements ...broker.Settlement) error {
	f, unlock, err := c.enter(ctx, OpSettle)
	if err != nil {
		return fenced(err, len(settlements))
	}
	defer unlock()
	now := time.Now()
	errs := make([]error, len(settlements))
	for i, st := range settlements {
		var cl *claim
		if cl, errs[i] = c.claim(st.Delivery, now); errs[i] == nil {
			errs[i] = c.settle(cl, st, now)
		}
	}
	if err := batch(errs); err != nil {
		return err
	}
	return f.reply()
}

// FinishAll commits each finish as a whole or not at all.
func (c *consumer) FinishAll(ctx context.Context, finishes ...broker.Finish) error {
	s := c.conn.store
	errs := make([]error, len(finishes))
	enc := make([][]encoded, len(finishes))
	for i, fin := range finishes {
		if len(fin.Ends) > 0 {
			errs[i] = fmt.Errorf("memory: the store does not count chords: %w", broker.ErrUnsupported)
			continue
		}
		for _, m := range fin.Publish {
			e, err := s.encode(m)
			if err != nil {
				errs[i] = err
				break
			}
			enc[i] = append(enc[i], e)
		}
	}
	f, unlock, err := c.enter(ctx, OpFinish)
	if err != nil {
		return fenced(err, len(finishes))
	}
	defer unlock()
	now := time.Now()
	for i, fin := range finishes {
		if errs[i] == nil {
			errs[i] = c.finish(fin, enc[i], now)
		}
	}
	if err := batch(errs); err != nil {
		return err
	}
	return f.reply()
}

func (c *consumer) finish(fin broker.Finish, enc []encoded, now time.Time) error {
	s := c.conn.store
	cl, err := c.claim(fin.Settle.Delivery, now)
	if err != nil {
		return err
	}
	if err := knownAction(fin.Settle.Action); err != nil {
		return err
	}
	targets := make([][]*queue, len(enc))
	for i, e := range enc {
		if targets[i], err = s.target(e); err != nil {
			return err
		}
	}
	for i, e := range enc {
		s.put(e, targets[i], now)
	}
	for _, r := range fin.Store {
		s.results.store(r, now)
	}
	return c.settle(cl, fin.Settle, now)
}

// claim returns the running claim behind a delivery, or ErrLeaseLost.
func (c *consumer) claim(d *broker.Delivery, now time.Time) (*claim, error) {
	if d == nil {
		return nil, errors.New("memory: settlement without a delivery")
	}
	cl, ok := d.Claim.(*claim)
	if !ok || cl.item.queue.store != c.conn.store {
		return nil, fmt.Errorf("memory: delivery of queue %q was not claimed here: %w", d.Queue, broker.ErrLeaseLost)
	}
	cl.item.queue.advance(now)
	if cl.index < 0 || cl.holder != c {
		return nil, fmt.Errorf("memory: message of queue %q: %w", d.Queue, broker.ErrLeaseLost)
	}
	return cl, nil
}

func knownAction(a broker.Action) error {
	if a > broker.DeadLetter {
		return fmt.Errorf("memory: settle with %v: %w", a, broker.ErrUnsupported)
	}
	return nil
}

// settle ends a running claim.
func (c *consumer) settle(cl *claim, st broker.Settlement, now time.Time) error {
	if err := knownAction(st.Action); err != nil {
		return err
	}
	s, q := c.conn.store, cl.item.queue
	it := q.release(cl)
	switch st.Action {
	case broker.Ack, broker.Reject:
		s.held--
	case broker.Requeue:
		it.seq, it.orphaned, it.due = s.nextSeq(), false, time.Time{}
		q.add(it, now)
	case broker.HandBack:
		it.due = time.Time{}
		q.add(it, now)
	case broker.Park:
		it.due = st.Until
		q.add(it, now)
	case broker.DeadLetter:
		s.bury(it, st.Reason, now)
	}
	return nil
}

// RenewEvery is a third of the lease.
func (c *consumer) RenewEvery() time.Duration { return c.lease / 3 }

// Renew starts the lease of held claims anew and returns those that have ended.
func (c *consumer) Renew(ctx context.Context, held []*broker.Delivery) (lost []*broker.Delivery, err error) {
	f, unlock, err := c.enter(ctx, OpRenew)
	if errors.Is(err, broker.ErrClosed) {
		return held, nil
	}
	if err != nil {
		return nil, err
	}
	defer unlock()
	now := time.Now()
	for _, d := range held {
		cl, err := c.claim(d, now)
		if err != nil {
			lost = append(lost, d)
			continue
		}
		cl.deadline = now.Add(c.lease)
		cl.item.queue.claimed.fix(cl.index)
	}
	return lost, f.reply()
}

// CountLoss counts the worker that died on an orphaned message, once for each
// value of the delivery's Losses. The message is then no longer marked as an
// orphan. Counts are kept by task id for 24 h.
func (c *consumer) CountLoss(ctx context.Context, d *broker.Delivery) (int, error) {
	f, unlock, err := c.enter(ctx, OpLoss)
	if err != nil {
		return 0, fenced(err, 1)
	}
	defer unlock()
	now, s := time.Now(), c.conn.store
	cl, err := c.claim(d, now)
	if err != nil {
		return 0, err
	}
	n := s.lossesOf(cl.item.lossKey(), now)
	if cl.counted && n > d.Losses {
		return n, f.reply()
	}
	cl.counted, cl.item.orphaned = true, false
	return s.raiseLosses(cl.item.lossKey(), n+1, now, lossKeep), f.reply()
}

// raiseLosses counts n losses at least under a key. The caller holds s.mu.
func (s *Store) raiseLosses(key string, n int, now time.Time, keep time.Duration) int {
	l := s.losses[key]
	if !now.Before(l.until) {
		l = loss{}
		for k, old := range s.losses { // few are ever lost: a sweep is cheap
			if !now.Before(old.until) {
				delete(s.losses, k)
			}
		}
	}
	l.n = max(l.n, n)
	l.until = now.Add(keep)
	s.losses[key] = l
	return l.n
}

// fenced turns the refusal of a dead consumer into lost leases.
func fenced(err error, n int) error {
	if !errors.Is(err, broker.ErrClosed) {
		return err
	}
	errs := make([]error, n)
	for i := range errs {
		errs[i] = fmt.Errorf("%w (%w)", broker.ErrLeaseLost, err)
	}
	return batch(errs)
}
