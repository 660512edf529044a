package worker

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/lovage-go/lovage"
	"github.com/lovage-go/lovage/backend"
	"github.com/lovage-go/lovage/broker"
	"github.com/lovage-go/lovage/protocol"
)

// countChords counts a run in its chords, and tries again while the result store
// is away: until it is counted, its message is not settled.
func (w *Worker) countChords(j *job, f *finish, e *lovage.Effects) error {
	if f.hasClaim && f.claim.Action != broker.Ack && f.claim.Action != broker.DeadLetter && f.claim.Action != broker.Reject {
		e.Uncounted() // the message comes again
	}
	if w.back == nil || !e.Counts() {
		f.ends = e.Ends // counted by a child
		return nil
	}
	w.count.finishing.Add(1)
	defer w.count.finishing.Add(-1)
	err := w.patiently(j, func(ctx context.Context) error { return w.app.CountChords(ctx, e) })
	if err != nil && j.link.ctx.Err() == nil {
		return &refusedError{err: err}
	}
	f.ends = e.Ends
	return err
}

// patiently calls f until it gives an answer other than that a store is away, or
// the connection of the job ends.
func (w *Worker) patiently(j *job, f func(context.Context) error) error {
	j.asks.work()
	defer j.asks.rest()
	for wait := firstBackoff; ; wait = w.longer(wait) {
		ctx, cancel := context.WithTimeout(j.link.ctx, commitTimeout)
		err := guard(func() error { return f(ctx) })
		cancel()
		if err == nil || !retryable(err) {
			return err
		}
		select {
		case <-time.After(wait):
		case <-j.link.ctx.Done():
			return fmt.Errorf("%w: %w", lovage.ErrShutdown, context.Cause(j.link.ctx))
		}
	}
}

// endChords marks the ends of chords where this is no part of the settlement.
func (w *Worker) endChords(ctx context.Context, ends []*broker.ChordEnd) error {
	counter, ok := w.back.(backend.ChordCounter)
	if !ok {
		return fmt.Errorf("the result store does not count chords: %w", backend.ErrUnsupported)
	}
	for _, e := range ends {
		won, err := counter.EndChord(ctx, e.Group, e.Keep)
		if err != nil {
			return err
		}
		e.Won = e.Won || won
	}
	return nil
}

// onceFor is how long the first copy of a message keeps others with its id out.
const onceFor = 24 * time.Hour

// first reports whether this copy of a message is the one that runs. A message
// that may have been sent twice with one id carries a mark of each copy; the
// first copy claims the id, and claims it again when it is redelivered.
func (j *job) first() (bool, error) {
	raw, marked := j.r.Headers[protocol.OnceHeader]
	claimer, able := j.w.back.(backend.OnceClaimer)
	if !marked || !able {
		return true, nil
	}
	var mark string
	if err := json.Unmarshal(raw, &mark); err != nil {
		return true, nil // nobody of ours wrote it
	}
	first, id := true, j.r.ID
	if sending, _, ok := strings.Cut(mark, "/"); ok {
		id += "/" + sending
	}
	if j.w.copies(j.d.Queue) { // once for each queue that it comes to
		id += "@" + j.d.Queue
	}
	err := j.w.patiently(j, func(ctx context.Context) (err error) {
		first, err = claimer.ClaimOnce(ctx, id, mark, onceFor)
		return err
	})
	return first || err != nil, err
}

// duplicate ends a copy that comes second.
func (j *job) duplicate() {
	w := j.w
	w.count.duplicates.Add(1)
	w.log.Warn("Task "+j.r.Task+"["+j.r.ID+"] was sent twice; this copy is dropped", "task", j.r.Task, "id", j.r.ID, "queue", j.d.Queue)
	if err := w.settleNow(j, broker.Ack, ""); err != nil {
		w.fence(j, err)
	}
}
