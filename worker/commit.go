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
	commitTimeout = 30 * time.Second
	firstBackoff  = 50 * time.Millisecond
)

// finish is what the end of one run, or of one claim, causes.
type finish struct {
	job      *job
	publish  []*protocol.Message
	store    []*protocol.Record
	ends     []*broker.ChordEnd
	claim    broker.Settlement
	hasClaim bool // claim is to be settled

	published, stored, ended bool // steps done, where they are not one

	outcome *lovage.Outcome // of a run; nil: only a claim ends
	size    int64           // counted in finishBytes
	done    chan error      // who waits for the answer, or
	then    func(error)     // who is to be told
}

func (f *finish) settle(s broker.Settlement) { f.claim, f.hasClaim = s, true }

func (f *finish) bytes() (n int64) {
	for _, m := range f.messages() {
		n += int64(len(m.Body)) + 512
	}
	for _, r := range f.records() {
		n += int64(len(r.Meta))
	}
	return n + int64(len(f.job.d.Body)+len(f.job.d.Headers))
}

// messages are all that the finish sends, those of the chords that it ends last.
func (f *finish) messages() []*protocol.Message {
	list := f.publish
	for _, e := range f.ends {
		list = append(list[:len(list):len(list)], e.Publish...)
	}
	return list
}

func (f *finish) records() []*protocol.Record {
	list := f.store
	for _, e := range f.ends {
		list = append(list[:len(list):len(list)], e.Store...)
	}
	return list
}

// enter counts the end of a run among those that wait to be kept. It reports
// false if there is nothing to keep.
func (f *finish) enter() bool {
	if len(f.publish) == 0 && len(f.store) == 0 && len(f.ends) == 0 && !f.hasClaim {
		return false
	}
	f.size = f.bytes()
	f.job.w.count.finishing.Add(1)
	f.job.w.count.finishBytes.Add(f.size)
	return true
}

// answer ends the finish.
func (f *finish) answer(err error) {
	w := f.job.w
	if f.hasClaim && (err == nil || gone(err)) {
		f.job.link.release(f.job)
	}
	if f.hasClaim && err == nil {
		w.counted(f.claim.Action)
	}
	if f.outcome != nil {
		w.count.finishing.Add(-1)
		w.count.finishBytes.Add(-f.size)
		ring(w.room)
	}
	switch {
	case f.done != nil:
		f.done <- err
	case f.outcome == nil:
		f.then(err)
	default:
		f.job.link.commit.tell(f, err)
	}
}

// conclude ends a run that nobody waited for.
func (f *finish) conclude(err error) {
	j := f.job
	defer j.w.rescue("finish", func(error) { j.end() })
	f.then(err)
	j.result(f.outcome)
	j.end()
}

// refusedError says that a store will never take what a run caused.
type refusedError struct {
	err   error
	again bool // the task's failure was refused too
}

func (e *refusedError) Error() string { return e.err.Error() }
func (e *refusedError) Unwrap() error { return e.err }

// committer keeps the finishes of one connection, many at a time: while one
// batch is written the next one gathers, so that nobody waits for company when
// the worker is idle, and everybody shares a commit when it is busy.
type committer struct {
	link  *link
	wake  chan struct{}
	turn  progress
	stuck atomic.Int64 // since when the store takes nothing; 0: it does

	mu      sync.Mutex // guards what follows
	queue   []*finish
	kept    []*finish // done, of runs that nobody waits for
	telling bool      // a goroutine concludes those
	closed  error
}

func (c *committer) put(f *finish) {
	c.mu.Lock()
	if err := c.closed; err != nil {
		c.mu.Unlock()
		f.answer(err)
		return
	}
	c.queue = append(c.queue, f)
	c.turn.owe()
	c.mu.Unlock()
	ring(c.wake)
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

// run commits until the connection's context ends; what is left then is
// answered with its cause, and stays claimed for the consumer's Close.
func (c *committer) run() {
	w, ctx := c.link.w, c.link.ctx
	var kept []*finish
	wait := firstBackoff
	var since time.Time // since when the store does not take them
	c.rested()
	for {
		if len(kept) == 0 {
			select {
			case <-c.wake:
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
		c.mu.Lock()
		batch := c.queue
		c.queue = nil
		c.turn.work()
		c.mu.Unlock()
		batch = append(kept, batch...)
		kept = nil
		for len(batch) > 0 {
			n := min(len(batch), maxBatch)
			c.turn.work()
			again, err := c.commit(ctx, batch[:n])
			batch = batch[n:]
			if len(again) > 0 {
				if since.IsZero() {
					since = time.Now()
					c.stuck.Store(since.UnixNano())
					w.log.Error("the store does not take the ends of tasks; they are kept and tried again: "+err.Error(), "error", err)
				}
				kept = append(again, batch...)
				break
			}
		}
		c.rested()
		if len(kept) == 0 && !since.IsZero() {
			w.log.Info("the store takes the ends of tasks again", "after", time.Since(since).Round(time.Millisecond))
			wait, since = firstBackoff, time.Time{}
			c.stuck.Store(0)
		}
	}
}

// stuckFor reports whether the store has taken nothing for so long.
func (c *committer) stuckFor(d time.Duration) bool {
	at := c.stuck.Load()
	return at > 0 && time.Since(time.Unix(0, at)) >= d
}

// rested tells that a turn is over; what came meanwhile is owed from now on.
func (c *committer) rested() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.turn.rest(); len(c.queue) > 0 {
		c.turn.owe()
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
// follow-ups, result, end of the chord, settlement. Each step is done for all
// before the next, and not done twice for a finish that comes again.
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
	step(func(f *finish) bool { return len(f.messages()) > 0 && !f.published && !fenced(f) }, func(l []*finish) error {
		var msgs []*protocol.Message
		for _, f := range l {
			msgs = append(msgs, f.messages()...)
		}
		return regroup(w.app.PublishMessages(ctx, msgs...), l)
	}, func(f *finish) { f.published = true })
	step(func(f *finish) bool { return len(f.records()) > 0 && !f.stored }, func(l []*finish) error {
		var recs []*protocol.Record
		for _, f := range l {
			recs = append(recs, f.records()...)
		}
		return w.back.Store(ctx, recs...)
	}, func(f *finish) { f.stored = true })
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
