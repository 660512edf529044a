package sqlstore

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime"
	"sync/atomic"
	"time"
)

// maxBatch bounds the operations of one transaction, and those that wait.
const maxBatch = 512

// op is one writing operation on its way through the committer.
type op struct {
	fn    func(*Tx) error
	lazy  bool // does not wait for the disk
	state atomic.Int32
	err   error
	done  chan struct{}
}

const (
	opWaiting int32 = iota
	opRunning
	opGivenUp
)

// Tx is what an operation works with, inside a transaction if it writes. It is
// valid only during the call.
type Tx struct {
	*conn
	core   *core
	now    int64 // µs, the start of the transaction
	seq    int64 // last number given, 0: not loaded
	bells  bellSet
	queues map[string]int64 // ids by name; the committer's, dropped on rollback
}

// next gives a number that is higher than all given before in this file.
func (tx *Tx) next() (int64, error) {
	if tx.seq == 0 {
		n, _, err := tx.number(stSeq)
		if err != nil {
			return 0, err
		}
		tx.seq = n
	}
	tx.seq++
	return tx.seq, nil
}

func (tx *Tx) step(name string) {
	if tx.core.cfg.StepHook != nil {
		tx.core.cfg.StepHook(name)
	}
}

// Update runs fn in a writing transaction, together with whatever else waits,
// and returns when it is committed and, if the store is synchronous, on the
// disk. An error of fn's own leaves no trace only if fn had written nothing
// before it; an error of the store undoes the whole transaction. fn may be run
// again after a failed try. When ctx ends before fn was started nothing
// happens; afterwards Update waits for the outcome.
func (c *core) Update(ctx context.Context, fn func(*Tx) error) error {
	return c.update(ctx, &op{fn: fn, done: make(chan struct{})})
}

// UpdateLazily is Update without the wait for the disk: all processes see what
// it did, and kill -9 of any of them does not undo it, but power loss may. It
// is for what power loss ends anyway, such as claims and leases.
func (c *core) UpdateLazily(ctx context.Context, fn func(*Tx) error) error {
	return c.update(ctx, &op{fn: fn, lazy: true, done: make(chan struct{})})
}

func (c *core) update(ctx context.Context, o *op) error {
	if err := c.start(); err != nil {
		return err
	}
	defer c.pending.Done()
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	select {
	case c.ops <- o:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	select {
	case <-o.done:
		return o.err
	case <-ctx.Done():
		if o.state.CompareAndSwap(opWaiting, opGivenUp) {
			return context.Cause(ctx)
		}
		<-o.done
		return o.err
	}
}

// run is the committer.
func (c *core) run() {
	defer close(c.done)
	batch := make([]*op, 0, maxBatch)
	usual := 0 // operations that lately came together
	for {
		select {
		case o := <-c.ops:
			batch = append(batch[:0], o)
		case <-c.quit:
			if c.syncs != nil {
				close(c.syncs)
				<-c.synced
			}
			return
		}
		batch = c.company(c.gather(batch), usual)
		c.commit(batch)
		usual = max(len(batch)+len(c.ops), usual-usual/8-1)
		clear(batch)
	}
}

// company waits for the operations that are about to come, so that callers share
// a sync instead of queueing for it: while one is under way a further commit
// would wait for the disk anyway, and right after it those whom it served make
// their next operation. Nobody waits when nobody was there lately, nor when the
// batch has an operation that does not wait for the disk.
func (c *core) company(batch []*op, usual int) []*op {
	for c.syncing.Load() > 0 && len(batch) < usual && !anyLazy(batch) {
		select {
		case o := <-c.ops:
			batch = c.gather(append(batch, o))
		case <-c.syncDone:
		}
	}
	for tries := 0; tries < 16 && len(batch) < usual && !anyLazy(batch); tries++ {
		runtime.Gosched()
		batch = c.gather(batch)
	}
	return batch
}

func anyLazy(batch []*op) bool {
	for _, o := range batch {
		if o.lazy {
			return true
		}
	}
	return false
}

// gather takes what waits, without waiting.
func (c *core) gather(batch []*op) []*op {
	for len(batch) < maxBatch {
		select {
		case o := <-c.ops:
			batch = append(batch, o)
		default:
			return batch
		}
	}
	return batch
}

// commit runs the operations in one transaction and answers each.
func (c *core) commit(batch []*op) {
	err := c.transact(batch)
	var sql *sqlError
	if err != nil && len(batch) > 1 && !(errors.As(err, &sql) && sql.environmental()) && !errors.Is(err, ErrUnavailable) {
		// One of them has poisoned the others: each gets its own transaction.
		for i := range batch {
			c.commit(batch[i : i+1])
		}
		return
	}
	var durable []*op
	for _, o := range batch {
		switch {
		case err != nil:
			o.err = err
			close(o.done)
		case o.lazy || o.err != nil || c.syncs == nil:
			close(o.done)
		default:
			if durable == nil {
				durable = make([]*op, 0, len(batch))
			}
			durable = append(durable, o)
		}
	}
	if durable != nil {
		c.syncing.Add(1)
		c.syncs <- durable
	}
}

// sync brings the log to the disk and then answers, while the committer is busy
// with the next transaction. Doing it here and not in SQLite's own commit gives
// the same promise at a fraction of the wait: one sync serves all commits that
// came before it.
func (c *core) sync() {
	defer close(c.synced)
	for ops := range c.syncs {
		batches := int64(1)
		for more := true; more; {
			select {
			case next, open := <-c.syncs:
				if more = open; open {
					ops = append(ops, next...)
					batches++
				}
			default:
				more = false
			}
		}
		err := c.syncLog()
		for _, o := range ops {
			o.err = err
			close(o.done)
		}
		c.syncing.Add(-batches)
		select {
		case c.syncDone <- struct{}{}:
		default:
		}
	}
}

// slowSync is a time for a sync that somebody should hear of.
const slowSync = 2 * time.Second

func (c *core) syncLog() error {
	c.logMu.Lock()
	defer c.logMu.Unlock()
	if c.log == nil {
		return c.errMoved()
	}
	began := time.Now()
	defer func() {
		if took := time.Since(began); took > slowSync {
			c.cfg.Logger.Warn("the disk is slow: what was committed waited long to be safe from power loss", "took", took.Round(time.Millisecond), "store", c.cfg.Path)
		}
	}()
	if err := c.log.Sync(); err != nil {
		return fmt.Errorf("sqlite %s: bring its log to the disk: %w: check the disk and the system log: %w", c.cfg.Path, err, ErrUnavailable)
	}
	return nil
}

// transact returns the error that failed the transaction as a whole.
func (c *core) transact(batch []*op) error {
	if err := c.begin(batch); err != nil {
		return err
	}
	tx := &c.tx
	tx.now, tx.seq, tx.bells = micros(time.Now()), 0, 0
	var err error
	for _, o := range batch {
		if o.state.Load() == opGivenUp || !o.state.CompareAndSwap(opWaiting, opRunning) && o.state.Load() != opRunning {
			continue
		}
		var sql *sqlError
		if o.err = o.fn(tx); errors.As(o.err, &sql) {
			err = o.err
			break
		}
	}
	if err == nil {
		err = tx.expire()
	}
	if err == nil && tx.seq != 0 {
		_, err = tx.exec(stSetSeq, tx.seq)
	}
	if err == nil {
		tx.step("commit")
		_, err = tx.exec(stCommit)
	}
	if err != nil {
		clear(tx.queues)
		c.rollback()
		return err
	}
	tx.step("committed")
	c.bells.ring(tx.bells)
	return nil
}

// begin takes the write lock. Operations whose callers leave meanwhile give up;
// when all have, so does begin.
func (c *core) begin(batch []*op) error {
	if c.writer == nil || c.moved() {
		if err := c.reopen(); err != nil {
			return err
		}
	}
	wait := newBackoff()
	deadline := time.Now().Add(c.cfg.LockTimeout)
	for {
		_, err := c.writer.exec(stBegin)
		if err == nil {
			return nil
		}
		if !isBusy(err) || time.Now().After(deadline) {
			return err
		}
		left := 0
		for _, o := range batch {
			if o.state.Load() != opGivenUp {
				left++
			}
		}
		if left == 0 {
			return err
		}
		nap(wait.next())
	}
}

// rollback ends a failed transaction. SQLite may have ended it already; a
// connection that cannot be brought back is replaced.
func (c *core) rollback() {
	if _, err := c.writer.exec(stRollback); err == nil {
		return
	}
	if _, err := c.writer.exec(stBegin); err == nil {
		if _, err := c.writer.exec(stRollback); err == nil {
			return
		}
	}
	c.closeWriter()
}

// reopen replaces the writing connection after its file was moved away, or was
// damaged in use. It never creates the file.
func (c *core) reopen() error {
	c.closeWriter()
	if c.missing() {
		return c.errMoved()
	}
	return c.openWriter()
}

// backoff is the wait for a lock that another process holds for microseconds
// to milliseconds.
type backoff struct{ d time.Duration }

func newBackoff() backoff { return backoff{d: 40 * time.Microsecond} }

func (b *backoff) next() time.Duration {
	d := b.d/2 + rand.N(b.d)
	if b.d = b.d * 3 / 2; b.d > 2*time.Millisecond {
		b.d = 2 * time.Millisecond
	}
	return d
}
