package sqlbroker

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/lovage-go/lovage/broker"
	"github.com/lovage-go/lovage/internal/sqlstore"
)

// lossKeep is how long the losses of a task are remembered.
const lossKeep = 24 * time.Hour

// Settle ends claims in one transaction. A claim that has ended, as all have
// after Close, gives broker.ErrLeaseLost for its entry.
func (cs *Consumer) Settle(ctx context.Context, settlements ...broker.Settlement) error {
	finishes := make([]broker.Finish, len(settlements))
	for i, s := range settlements {
		finishes[i].Settle = s
	}
	return cs.FinishAll(ctx, finishes...)
}

// ending is one finish on its way into the store.
type ending struct {
	claim *claim
	row   sqlstore.Finish
	err   error // why it cannot be tried
}

// FinishAll commits finishes, each as a whole or not at all, all in one
// transaction and together with what others are writing.
func (cs *Consumer) FinishAll(ctx context.Context, finishes ...broker.Finish) error {
	if len(finishes) == 0 {
		return nil
	}
	ends := make([]ending, len(finishes))
	for i := range finishes {
		ends[i] = cs.ending(&finishes[i])
	}
	cs.mu.Lock()
	for i := range ends {
		if e := &ends[i]; e.err == nil {
			if _, running := cs.held[e.claim]; !running {
				e.err = lost(finishes[i].Settle.Delivery)
			}
		}
	}
	cs.mu.Unlock()
	errs, err := cs.commit(ctx, ends)
	if err != nil {
		if errors.Is(err, sqlstore.ErrUnavailable) || errors.Is(err, sqlstore.ErrClosed) || ctx.Err() != nil || len(ends) == 1 {
			return cs.ended(err, len(ends))
		}
		for i := range ends { // one of them the store cannot take: find out which
			one, err := cs.commit(ctx, ends[i:i+1])
			if errs[i] = err; err == nil {
				errs[i] = one[0]
			}
		}
	}
	cs.mu.Lock()
	for i := range ends {
		if errs[i] == nil || errors.Is(errs[i], sqlstore.ErrLeaseLost) {
			delete(cs.held, ends[i].claim)
		}
	}
	cs.mu.Unlock()
	for i := range ends {
		if errs[i] != nil {
			errs[i] = fault(errs[i])
			continue
		}
		for j, m := range ends[i].row.Publish {
			if m.Routed == 0 {
				cs.conn.unrouted(finishes[i].Publish[j])
			}
		}
	}
	return broker.Batch(errs)
}

// commit runs the finishes in one transaction. The second error is the whole's.
func (cs *Consumer) commit(ctx context.Context, ends []ending) ([]error, error) {
	errs := make([]error, len(ends))
	err := cs.conn.db.Update(ctx, func(tx *sqlstore.Tx) error {
		for i := range ends {
			e := &ends[i]
			if errs[i] = e.err; errs[i] != nil {
				continue
			}
			errs[i] = tx.Finish(e.claim.worker, &e.row)
			if sqlstore.Broken(errs[i]) {
				return errs[i]
			}
		}
		return nil
	})
	return errs, err
}

// ended turns the end of the store on this side into lost leases.
func (cs *Consumer) ended(err error, n int) error {
	if !errors.Is(err, sqlstore.ErrClosed) {
		return fault(err)
	}
	errs := make([]error, n)
	for i := range errs {
		errs[i] = fmt.Errorf("%w (%w)", broker.ErrLeaseLost, fault(err))
	}
	return broker.Batch(errs)
}

func lost(d *broker.Delivery) error {
	return fmt.Errorf("settle a message of queue %q: %w", d.Queue, sqlstore.ErrLeaseLost)
}

// ending prepares a finish: what can be checked or encoded without the store.
func (cs *Consumer) ending(f *broker.Finish) (e ending) {
	d := f.Settle.Delivery
	if d == nil {
		e.err = errors.New("sqlbroker: settlement without a delivery")
		return e
	}
	cl, ok := d.Claim.(*claim)
	if !ok || cl.consumer != cs {
		e.err = lost(d)
		return e
	}
	if len(f.Ends) > 0 {
		e.err = fmt.Errorf("sqlbroker: the store does not count chords: %w", broker.ErrUnsupported)
		return e
	}
	e.claim = cl
	e.row.Delivery = &cl.row
	if e.row.End, e.err = endOf(cl, &f.Settle); e.err != nil {
		return e
	}
	if len(f.Publish) > 0 {
		rows := make([]sqlstore.Message, len(f.Publish))
		e.row.Publish = make([]*sqlstore.Message, len(f.Publish))
		for i, m := range f.Publish {
			if rows[i], e.err = cs.conn.encode(m); e.err != nil {
				return e
			}
			e.row.Publish[i] = &rows[i]
		}
	}
	if len(f.Store) > 0 {
		rows := make([]sqlstore.Result, len(f.Store))
		e.row.Results = make([]*sqlstore.Result, len(f.Store))
		for i, r := range f.Store {
			rows[i] = sqlstore.Result{TaskID: r.TaskID, State: string(r.State), Meta: r.Meta, GroupID: r.GroupID, Expires: r.Expires}
			e.row.Results[i] = &rows[i]
		}
	}
	return e
}

func endOf(cl *claim, s *broker.Settlement) (func(*sqlstore.Tx, int64) error, error) {
	row := &cl.row
	switch s.Action {
	case broker.Ack, broker.Reject:
		return func(tx *sqlstore.Tx, w int64) error { return tx.Ack(w, row) }, nil
	case broker.Requeue:
		return func(tx *sqlstore.Tx, w int64) error { return tx.Requeue(w, row) }, nil
	case broker.HandBack:
		return func(tx *sqlstore.Tx, w int64) error { return tx.HandBack(w, row) }, nil
	case broker.Park:
		until := s.Until.UnixMicro()
		if s.Until.Nanosecond()%1000 != 0 {
			until++
		}
		return func(tx *sqlstore.Tx, w int64) error { return tx.Park(w, row, until) }, nil
	case broker.DeadLetter:
		reason := s.Reason
		return func(tx *sqlstore.Tx, w int64) error {
			losses, err := tx.Losses(taskIDOf(row))
			if err != nil {
				return err
			}
			return tx.Bury(w, row, reason, int(losses))
		}, nil
	}
	return nil, fmt.Errorf("sqlbroker: settle with %v: %w", s.Action, broker.ErrUnsupported)
}

// RenewEvery is a third of the lease.
func (cs *Consumer) RenewEvery() time.Duration { return cs.lease / 3 }

// Renew extends the consumer's one lease; lost are those of held whose claim
// has ended: all, when another worker took this one for dead.
func (cs *Consumer) Renew(ctx context.Context, held []*broker.Delivery) (gone []*broker.Delivery, err error) {
	cs.mu.Lock()
	worker, closed := cs.worker, cs.closed
	cs.mu.Unlock()
	start := time.Now()
	if closed || worker == 0 {
		return held, nil
	}
	err = cs.conn.db.UpdateLazily(ctx, func(tx *sqlstore.Tx) error { return tx.Renew(worker, cs.lease) })
	if err != nil && !errors.Is(err, sqlstore.ErrLeaseLost) && !errors.Is(err, sqlstore.ErrClosed) {
		return nil, fault(err)
	}
	cs.mu.Lock()
	defer cs.mu.Unlock()
	if err == nil {
		cs.renewed = start
	} else {
		for cl := range cs.held {
			if cl.worker == worker {
				delete(cs.held, cl)
			}
		}
		if cs.worker == worker {
			cs.worker = 0
		}
	}
	for _, d := range held {
		cl, _ := d.Claim.(*claim)
		if _, running := cs.held[cl]; !running {
			gone = append(gone, d)
		}
	}
	return gone, nil
}

// CountLoss counts the worker that died on an orphaned message, once for each
// value of the delivery's Losses, and takes the mark of an orphan from it. Counts
// are kept by task id for 24 h. It does not wait for the disk: the run starts after it, and a death
// in between would count for a run that never was. Power loss may undo a count.
func (cs *Consumer) CountLoss(ctx context.Context, d *broker.Delivery) (int, error) {
	cl, _ := d.Claim.(*claim)
	cs.mu.Lock()
	_, running := cs.held[cl]
	if running && cl.counted && cl.losses > d.Losses {
		defer cs.mu.Unlock()
		return cl.losses, nil
	}
	cs.mu.Unlock()
	if !running {
		return 0, fault(lost(d))
	}
	n := int64(0)
	err := cs.conn.db.UpdateLazily(ctx, func(tx *sqlstore.Tx) (err error) {
		n, err = tx.CountLoss(taskIDOf(&cl.row), lossKeep, cl.worker, &cl.row)
		return err
	})
	if err != nil {
		return 0, fault(err)
	}
	cs.mu.Lock()
	defer cs.mu.Unlock()
	cl.losses, cl.counted = int(n), true
	cl.row.Counted()
	return int(n), nil
}
