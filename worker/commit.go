package worker

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/lovage-go/lovage"
	"github.com/lovage-go/lovage/broker"
	"github.com/lovage-go/lovage/protocol"
)

const (
	maxBatch      = 512
	besideBatch   = 200 // of commits side by side: short ones, between which claims get through
	sideBatch     = 100 // worth a commit beside another
	commitTimeout = 30 * time.Second
	firstBackoff  = 50 * time.Millisecond
)

// committer keeps the finishes of one connection, many at a time: while one
// batch is written the next one gathers, so that nobody waits for company when
// the worker is idle, and everybody shares a commit when it is busy. Where the
// store takes commits side by side, a second loop writes what has gathered to a
// batch of its own before the first comes back.
type committer struct {
	link  *link
	wake  chan struct{} // something waits
	many  chan struct{} // sideBatch wait; nil: one loop
	turn  progress      // of the loop, and of what waits
	side  progress      // of the second loop
	most  int           // finishes of one commit
	stuck atomic.Int64  // since when the store takes nothing; 0: it does

	mu      sync.Mutex // guards what follows
	queue   []*finish
	failing int       // loops that keep what the store did not take
	kept    []*finish // done, of runs that nobody waits for
	telling bool      // a goroutine concludes those
	closed  error
}

func newCommitter(l *link) *committer {
	c := &committer{link: l, wake: make(chan struct{}, 1), most: maxBatch}
	if l.features.Parallel && l.oneStore && l.finisher != nil {
		c.many, c.most = make(chan struct{}, 1), besideBatch
	}
	return c
}

// start runs the loops.
func (c *committer) start() {
	w := c.link.w
	w.group.Go(func() { w.forever(c.link, "committer", func() { c.run(c.wake, &c.turn, 1) }) })
	if c.many != nil {
		w.group.Go(func() { w.forever(c.link, "committer", func() { c.run(c.many, &c.side, sideBatch) }) })
	}
}

func (c *committer) put(f *finish) {
	c.mu.Lock()
	if err := c.closed; err != nil {
		c.mu.Unlock()
		f.answer(err)
		return
	}
	c.queue = append(c.queue, f)
	n := len(c.queue)
	c.turn.owe()
	c.mu.Unlock()
	ring(c.wake)
	if n == sideBatch && c.many != nil {
		ring(c.many)
	}
}

// tell concludes a run that nobody waits for, not in the committer's time. An
// error may cost more effects, which it must not wait for either.
func (c *committer) tell(f *finish, err error) {
	if err != nil {
		c.link.w.group.Go(func() { f.conclude(err) })
		return
	}
	c.mu.Lock()
	c.kept = append(c.kept, f)
	start := !c.telling
	c.telling = true
	c.mu.Unlock()
	if start {
		c.link.w.group.Go(c.conclude)
	}
}

// conclude works until there is nothing to conclude.
func (c *committer) conclude() {
	for {
		c.mu.Lock()
		list := c.kept
		c.kept = nil
		c.telling = len(list) > 0
		c.mu.Unlock()
		if len(list) == 0 {
			return
		}
		for _, f := range list {
			f.conclude(nil)
		}
	}
}

// run commits, when it is woken and at least so many wait, until the connection's
// context ends; what is left then is answered with its cause, and stays claimed
// for the consumer's Close.
func (c *committer) run(wake <-chan struct{}, turn *progress, least int) {
	w, ctx := c.link.w, c.link.ctx
	var kept []*finish // what the store did not take
	failed, wait := false, firstBackoff
	defer func() {
		if failed && ctx.Err() == nil { // a panic
			c.well()
		}
	}()
	c.rested(turn)
	for {
		if len(kept) == 0 {
			select {
			case <-wake:
				runtime.Gosched() // let runs that are about to end come along
			case <-ctx.Done():
				c.close(nil)
				return
			}
		} else {
			select {
			case <-time.After(wait):
			case <-ctx.Done():
				c.close(kept)
				return
			}
			wait = w.longer(wait)
		}
		batch := append(kept, c.take(turn, least)...)
		kept = nil
		for len(batch) > 0 {
			n := min(len(batch), c.most)
			turn.work()
			again, err := c.commit(ctx, batch[:n])
			batch = batch[n:]
			if len(again) > 0 {
				if !failed {
					c.ill(err)
				}
				failed = true
				kept = append(again, batch...)
				break
			}
		}
		c.rested(turn)
		if len(kept) == 0 && failed {
			c.well()
			failed, wait = false, firstBackoff
		}
	}
}

// take begins a turn with what waits, if it is enough.
func (c *committer) take(turn *progress, least int) (batch []*finish) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.queue) >= least {
		batch, c.queue = c.queue, nil
		turn.work()
	}
	return batch
}

// ill notes that a loop keeps what the store did not take; the first one tells.
func (c *committer) ill(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.failing++; c.failing == 1 {
		c.stuck.Store(time.Now().UnixNano())
		c.link.w.log.Error("the store does not take the ends of tasks; they are kept and tried again: "+err.Error(), "error", err)
	}
}

// well takes ill back; the last one tells.
func (c *committer) well() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.failing--; c.failing == 0 {
		since := time.Unix(0, c.stuck.Swap(0))
		c.link.w.log.Info("the store takes the ends of tasks again", "after", time.Since(since).Round(time.Millisecond))
	}
}

// stuckFor reports whether the store has taken nothing for so long, or not
// answered.
func (c *committer) stuckFor(d time.Duration) bool {
	now, at := time.Now(), c.stuck.Load()
	return at > 0 && now.Sub(time.Unix(0, at)) >= d || c.turn.lasts(now) >= d || c.side.lasts(now) >= d
}

// rested tells that a turn is over; what came meanwhile is owed from now on.
func (c *committer) rested(turn *progress) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if turn.rest(); len(c.queue) > 0 && turn == &c.turn {
		turn.owe()
	}
}

func (c *committer) close(kept []*finish) {
	cause := context.Cause(c.link.ctx)
	c.mu.Lock()
	kept = append(kept, c.queue...)
	c.queue, c.closed = nil, fmt.Errorf("%w: %w", lovage.ErrShutdown, cause)
	c.mu.Unlock()
	for _, f := range kept {
		f.answer(c.closed)
	}
}

// commit keeps a batch and returns the finishes that must be tried again.
func (c *committer) commit(ctx context.Context, batch []*finish) (again []*finish, err error) {
	ctx, cancel := context.WithTimeout(ctx, commitTimeout)
	defer cancel()
	var whole, steps []*finish
	for _, f := range batch {
		if f.hasClaim && c.link.oneStore && c.link.finisher != nil && !f.published && !f.stored && !f.ended {
			whole = append(whole, f)
		} else {
			steps = append(steps, f)
		}
	}
	if len(whole) > 0 {
		again, err = c.atOnce(ctx, whole)
	}
	if len(steps) > 0 {
		more, e := c.inSteps(ctx, steps)
		again = append(again, more...)
		if e != nil {
			err = e
		}
	}
	return again, err
}

// atOnce commits each finish as a whole.
func (c *committer) atOnce(ctx context.Context, list []*finish) (again []*finish, err error) {
	err = guard(func() error { return c.finishAll(ctx, list, true) })
	if len(list) > 1 && err != nil && !retryable(err) && !gone(err) && !partial(err) {
		return c.oneByOne(ctx, list, c.atOnce)
	}
	return spread(list, err, func(f *finish) { f.answer(nil) })
}

// finishAll publishes, stores and ends chords if it is to, and settles, each
// finish as a whole.
func (c *committer) finishAll(ctx context.Context, list []*finish, store bool) error {
	var msgs []*protocol.Message
	all := make([]broker.Finish, len(list))
	for i, f := range list {
		all[i] = broker.Finish{Publish: f.publish, Settle: f.claim}
		if store {
			all[i].Store, all[i].Ends = f.store, f.ends
		}
		msgs = append(msgs, f.messages()...)
	}
	if err := c.link.w.app.DeclareFor(ctx, msgs...); err != nil {
		return err
	}
	return c.link.finisher.FinishAll(ctx, all...)
}

// inSteps keeps finishes where broker and result store are two. A broker that
// can do so publishes the follow-ups together with the settlement, once the
// result is stored: they are fenced by the claim and never sent twice, and the
// result does not wait for a broker that is away. Else, and where a chord ends,
// whose body must be sent before its end is marked, it is Celery's order:
// follow-ups, result, end of the chord, settlement; but a retry is stored before
// it is sent, since another worker may have ended it by then. Each step is done
// for all before the next, and not done twice for a finish that comes again.
func (c *committer) inSteps(ctx context.Context, list []*finish) (again []*finish, err error) {
	w := c.link.w
	todo := list
	step := func(need func(*finish) bool, do func([]*finish) error, done func(*finish)) {
		var with, next []*finish
		for _, f := range todo {
			if need(f) {
				with = append(with, f)
			} else {
				next = append(next, f)
			}
		}
		todo = next
		if len(with) == 0 {
			return
		}
		e := guard(func() error { return do(with) })
		one := func(ctx context.Context, one []*finish) ([]*finish, error) {
			return spread(one, guard(func() error { return do(one) }), func(f *finish) { done(f); todo = append(todo, f) })
		}
		var more []*finish
		if len(with) > 1 && e != nil && !retryable(e) && !gone(e) && !partial(e) {
			more, e = c.oneByOne(ctx, with, one)
		} else {
			more, e = spread(with, e, func(f *finish) { done(f); todo = append(todo, f) })
		}
		if again = append(again, more...); len(more) > 0 {
			err = e
		}
	}
	fenced := func(f *finish) bool { return f.hasClaim && c.link.finisher != nil && len(f.ends) == 0 }
	store := func(need func(*finish) bool) {
		step(func(f *finish) bool { return len(f.records()) > 0 && !f.stored && need(f) }, func(l []*finish) error {
			var recs []*protocol.Record
			for _, f := range l {
				recs = append(recs, f.records()...)
			}
			return w.back.Store(ctx, recs...)
		}, func(f *finish) { f.stored = true })
	}
	store((*finish).again)
	step(func(f *finish) bool { return len(f.messages()) > 0 && !f.published && !fenced(f) }, func(l []*finish) error {
		var msgs []*protocol.Message
		for _, f := range l {
			msgs = append(msgs, f.messages()...)
		}
		return regroup(w.app.PublishMessages(ctx, msgs...), l)
	}, func(f *finish) { f.published = true })
	store(func(*finish) bool { return true })
	step(func(f *finish) bool { return len(f.ends) > 0 && !f.ended }, func(l []*finish) error {
		errs := make([]error, len(l))
		for i, f := range l {
			errs[i] = w.endChords(ctx, f.ends)
		}
		return broker.Batch(errs)
	}, func(f *finish) { f.ended = true })
	step(fenced, func(l []*finish) error { return c.finishAll(ctx, l, false) }, func(f *finish) {})
	step(func(f *finish) bool { return f.hasClaim && !fenced(f) }, func(l []*finish) error {
		ss := make([]broker.Settlement, len(l))
		for i, f := range l {
			ss[i] = f.claim
		}
		return c.link.consumer.Settle(ctx, ss...)
	}, func(f *finish) {})
	for _, f := range todo {
		f.answer(nil)
	}
	return again, err
}

func (c *committer) oneByOne(ctx context.Context, list []*finish, commit func(context.Context, []*finish) ([]*finish, error)) (again []*finish, err error) {
	for _, f := range list {
		more, e := commit(ctx, []*finish{f})
		if again = append(again, more...); len(more) > 0 {
			err = e
		}
	}
	return again, err
}

// spread gives each finish its own part of a batch's error: done, answered with
// an error that is final, or returned to be tried again.
func spread(list []*finish, err error, done func(*finish)) (again []*finish, cause error) {
	if err == nil {
		for _, f := range list {
			done(f)
		}
		return nil, nil
	}
	for i, e := range broker.EachError(err, len(list)) {
		f := list[i]
		switch {
		case e == nil:
			done(f)
		case gone(e):
			f.answer(e)
		case retryable(e) || errors.Is(e, context.Canceled):
			again, cause = append(again, f), e
		default:
			f.answer(&refusedError{err: e})
		}
	}
	return again, cause
}

// regroup turns an error by message into an error by finish.
func regroup(err error, list []*finish) error {
	var batch *broker.BatchError
	if !errors.As(err, &batch) {
		return err
	}
	errs, at := make([]error, len(list)), 0
	for i, f := range list {
		for range f.messages() {
			if at < len(batch.Errs) && errs[i] == nil {
				errs[i] = batch.Errs[at]
			}
			at++
		}
	}
	return &broker.BatchError{Errs: errs}
}

func partial(err error) bool {
	var batch *broker.BatchError
	return errors.As(err, &batch)
}
