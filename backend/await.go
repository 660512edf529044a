package backend

import (
	"context"
	"errors"
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
// after every look until it reports that the record is done; so records are
// done in the order in which they are found complete. An id given twice is one
// record. An error of f ends the wait; otherwise it ends as that of [Await].
func AwaitMany(ctx context.Context, b Backend, ids []string, f func(Record) (done bool, err error)) error {
	open := distinct(ids)
	w := newAwaiter(b)
	defer w.close()
	for {
		before := len(open)
		err := w.watch(ctx, open) // first watch, then look: no write falls between
		if err == nil {
			var stop error
			if open, stop, err = look(ctx, b, open, f); stop != nil {
				return stop
			}
		}
		if len(open) == 0 {
			return nil
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if err != nil && !errors.Is(err, ErrUnavailable) {
			return err
		}
		if len(open) < before {
			w.pause = w.first
		}
		if err := w.wait(ctx); err != nil {
			return err
		}
	}
}

// look fetches the open records and returns those that are still open.
func look(ctx context.Context, b Backend, open []string, f func(Record) (bool, error)) (left []string, stop, err error) {
	for len(open) > 0 {
		ids := open[:min(len(open), awaitBatch)]
		recs, err := b.Fetch(ctx, ids...)
		if err != nil {
			return append(left, open...), nil, err
		}
		open = open[len(ids):]
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
	}
	return left, nil, nil
}

// awaiter waits for the next time to look.
type awaiter struct {
	watcher     Watcher // nil: poll
	watching    Watch
	first, last time.Duration
	pause       time.Duration // the next wait, grown by half each time
}

func newAwaiter(b Backend) *awaiter {
	w := &awaiter{first: firstPoll, last: lastPoll}
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
	t := time.NewTimer(w.pause)
	defer t.Stop()
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
