package backend

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// How often a waiting client looks. With a watcher the poll only guards
// against a lost ring.
const (
	firstPoll     = 10 * time.Millisecond
	lastPoll      = 500 * time.Millisecond
	firstSafePoll = 250 * time.Millisecond
	lastSafePoll  = 2 * time.Second

	// awaitBatch bounds the ids of one Fetch of AwaitMany.
	awaitBatch = 500
	// firstBatch is how many are looked at first after a ring, the next ones by
	// twice as many.
	firstBatch = 32
	// longestRest bounds the pause after a look at more than a batch.
	longestRest = 50 * time.Millisecond
)

// Await waits until done accepts the record of an id and returns that record.
// done is not called while the record is unknown. The wait ends early with the
// cause of ctx, or with the first error that is not [ErrUnavailable]: a store
// that cannot be reached is asked again until ctx ends.
//
// The store rings where it is a [Watcher]; otherwise it is polled, from every
// 10 ms growing to every 500 ms.
func Await(ctx context.Context, b Backend, id string, done func(Record) bool) (Record, error) {
	var found Record
	err := AwaitMany(ctx, b, []string{id}, func(r Record) (bool, error) {
		found = r
		return done(r), nil
	})
	if err != nil {
		return Record{}, err
	}
	return found, nil
}

// AwaitMany waits for several records. f sees each record that is there, again
// after looks until it reports that the record is done; so records are done in
// the order in which they are found complete. An id given twice is one record.
// An error of f ends the wait; otherwise it ends as that of [Await].
//
// A ring does not say whose it is. Of more than 500 records the first ones are
// looked at then, as far as there is something done among them, since tasks
// mostly end in the order of their calls, and all of them every 250 ms; so the
// cost does not grow with the square of their number.
func AwaitMany(ctx context.Context, b Backend, ids []string, f func(Record) (done bool, err error)) error {
	open := distinct(ids)
	w := newAwaiter(b)
	defer w.close()
	for {
		before := len(open)
		err := w.watch(ctx, open) // first watch, then look: no write falls between
		if err == nil {
			var stop error
			if open, stop, err = w.look(ctx, open, f); stop != nil {
				return stop
			}
		}
		if len(open) == 0 {
			return nil
		}
		if ctx.Err() != nil {
			return late(ctx, b, open)
		}
		if err != nil && !errors.Is(err, ErrUnavailable) {
			return err
		}
		if len(open) < before {
			w.pause = w.first
		}
		if err := w.wait(ctx); err != nil {
			return late(ctx, b, open)
		}
	}
}

// late is the cause of ctx, with why the records that are missing may never come.
func late(ctx context.Context, b Backend, open []string) error {
	d, ok := b.(Doubter)
	for i := 0; ok && i < len(open); i++ {
		if err := d.LateError(open[i]); err != nil {
			return fmt.Errorf("task %s: %w: %w", open[i], err, context.Cause(ctx))
		}
	}
	return context.Cause(ctx)
}

// look fetches open records, in their order, and returns those that are still
// open. Unless all are due it ends with a batch in which nothing was done.
func (w *awaiter) look(ctx context.Context, open []string, f func(Record) (bool, error)) (left []string, stop, err error) {
	began := time.Now()
	many := len(open) > awaitBatch
	all := !many || w.watcher == nil || w.whole.IsZero() || began.Sub(w.whole) >= firstSafePoll
	w.rest = 0
	size := awaitBatch
	if !all {
		size = firstBatch
	}
	for ; len(open) > 0; size = min(2*size, awaitBatch) {
		ids := open[:min(len(open), size)]
		recs, err := w.b.Fetch(ctx, ids...)
		if err != nil {
			return append(left, open...), nil, err
		}
		open = open[len(ids):]
		before := len(left)
		for _, r := range recs {
			done := false
			if r.Meta != nil {
				if done, err = f(r); err != nil {
					return nil, err, nil
				}
			}
			if !done {
				left = append(left, r.TaskID)
			}
		}
		if !all && len(left)-before == len(ids) {
			break
		}
	}
	if many {
		w.rest = min(3*time.Since(began), longestRest)
	}
	if w.partial = len(open) > 0; !w.partial {
		w.whole = began
	}
	return append(left, open...), nil, nil
}

// awaiter waits for the next time to look.
type awaiter struct {
	b           Backend
	watcher     Watcher // nil: poll
	watching    Watch
	first, last time.Duration
	pause       time.Duration // the next wait, grown by half each time

	whole   time.Time     // when all records were last looked at
	partial bool          // some were not looked at since
	rest    time.Duration // rings are not heeded so long
}

func newAwaiter(b Backend) *awaiter {
	w := &awaiter{b: b, first: firstPoll, last: lastPoll}
	if wb, ok := b.(Watcher); ok {
		w.watcher, w.first, w.last = wb, firstSafePoll, lastSafePoll
	}
	w.pause = w.first
	return w
}

// watch subscribes, once. A store that turns out unable to is polled.
func (w *awaiter) watch(ctx context.Context, ids []string) error {
	if w.watcher == nil || w.watching != nil || len(ids) == 0 {
		return nil
	}
	wt, err := w.watcher.Watch(ctx, ids...)
	if errors.Is(err, ErrUnsupported) {
		w.watcher, w.first, w.last, w.pause = nil, firstPoll, lastPoll, firstPoll
		return nil
	}
	if err == nil {
		w.watching = wt
	}
	return err
}

func (w *awaiter) wait(ctx context.Context) error {
	var ring <-chan struct{}
	if w.watching != nil {
		ring = w.watching.Ring()
	}
	pause, whole := w.pause, time.Until(w.whole.Add(firstSafePoll))
	if w.partial {
		pause = min(pause, whole)
	}
	t := time.NewTimer(max(pause, w.rest))
	defer t.Stop()
	if w.rest > 0 {
		rest := time.NewTimer(w.rest)
		defer rest.Stop()
		select {
		case <-rest.C:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	select {
	case <-ring:
	case <-t.C:
		w.pause = min(w.pause+w.pause/2, w.last)
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	return nil
}

func (w *awaiter) close() {
	if w.watching != nil {
		w.watching.Close() // the wait is over; nothing is lost with it
	}
}

func distinct(ids []string) []string {
	seen := make(map[string]bool, len(ids))
	out := make([]string, 0, len(ids))
	for _, id := range ids {
		if !seen[id] {
			seen[id] = true
			out = append(out, id)
		}
	}
	return out
}
