package sqlstore

import (
	"context"
	"errors"
	"time"
)

const (
	suspectEvery = time.Second
	expireEvery  = 10 * time.Second
	expireBatch  = 200
)

// LookAfter takes over the claims of workers that have died or stopped. Who
// consumes calls it again and again; it looks once a second at most.
func (c *core) LookAfter(ctx context.Context) error {
	now := time.Now().UnixNano()
	last := c.lookedAfter.Load()
	if now-last < int64(suspectEvery) && now >= last || !c.lookedAfter.CompareAndSwap(last, now) {
		return nil
	}
	var suspects []Gone
	err := c.View(ctx, func(tx *Tx) (err error) {
		suspects, err = tx.Suspects()
		return err
	})
	if err != nil || len(suspects) == 0 {
		return err
	}
	var taken []Gone
	err = c.UpdateLazily(ctx, func(tx *Tx) error {
		taken = taken[:0]
		for _, w := range suspects {
			ok, err := tx.TakeOver(&w)
			if err != nil {
				return err
			}
			if ok {
				taken = append(taken, w)
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	for _, w := range taken {
		if w.claims == 0 {
			continue // an idle consumer does not renew; its next claim makes a new row
		}
		c.cfg.Logger.Warn("took over the messages of a lost worker", "worker", w.Name, "reason", w.Reason, "claims", w.claims, "store", c.cfg.Path)
	}
	return nil
}

// expire deletes some of what has expired, along with other work, every now and
// then, and more often while there is more.
func (tx *Tx) expire() error {
	if tx.now < tx.core.expireNext && tx.core.expireNext-tx.now <= expireEvery.Microseconds() {
		return nil
	}
	tx.core.expireNext = tx.now + expireEvery.Microseconds()
	_, more, err := tx.ExpireSome(expireBatch)
	if more {
		tx.core.expireNext = 0
	}
	return err
}

// Cleanup deletes all that has expired and returns the number of results.
func (c *core) Cleanup(ctx context.Context) (int, error) {
	total := 0
	for {
		n, more := 0, false
		err := c.Update(ctx, func(tx *Tx) (err error) {
			n, more, err = tx.ExpireSome(1000)
			return err
		})
		if total += n; err != nil || !more {
			return total, err
		}
	}
}

// Purge deletes what waits in a queue, in bounded steps.
func (c *core) Purge(ctx context.Context, queue string) (int, error) {
	const step = 5000
	total := 0
	for {
		n := 0
		err := c.Update(ctx, func(tx *Tx) (err error) {
			n, err = tx.PurgeSome(queue, step)
			return err
		})
		if total += n; err != nil || n < step {
			return total, err
		}
	}
}

// Abandon ends this process's part in the store as kill -9 would: nothing is
// handed back, the lock file is released as the kernel does it, and nothing
// done later has an effect. For tests that act two processes in one.
func (c *core) Abandon() error {
	c.stateMu.Lock()
	done := c.closed
	c.closed = true
	c.stateMu.Unlock()
	if done {
		return nil
	}
	c.bells.wakeAll()
	c.pending.Wait()
	return errors.Join(c.lock.f.Close(), c.stop())
}
