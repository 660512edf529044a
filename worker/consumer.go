package worker

import (
	"context"
	"errors"
	"fmt"
	"math"
	"time"

	"github.com/lovage-go/lovage/broker"
)

// errStalled: the broker has not answered a claim for too long.
var errStalled = errors.New("the broker does not answer")

// consume keeps a connection that claims, until ctx ends. What is lost is
// replaced, with pauses that grow from 50 ms to broker_connection_interval_max.
// The error is that of an attempt after which the configuration says to give up.
func (w *Worker) consume(ctx context.Context) error {
	var lost time.Time // since when there is no connection
	had, mended := false, ""
	tries, wait := 0, firstBackoff
	for {
		w.dialing.work()
		l, err := w.connect(ctx)
		w.dialing.rest()
		had = had || err == nil
		if err == nil && ctx.Err() == nil {
			err = w.attend(ctx, l, func() {
				if !lost.IsZero() {
					w.log.Info(mended, "after", time.Since(lost).Round(time.Millisecond))
				}
				lost, tries, wait = time.Time{}, 0, firstBackoff
			})
		}
		if ctx.Err() != nil {
			return nil // the shutdown closes the link
		}
		if l != nil {
			l.retire()
			w.cancelLost(l)
		}
		tries++
		if e := w.giveUp(err, tries); e != nil {
			return e
		}
		w.count.rebuilt.Add(1)
		if lost.IsZero() {
			lost = time.Now()
			failed := "consumer: connection lost; trying to connect again: "
			if mended = "consumer: connection is back"; !had {
				failed, mended = "consumer: cannot connect; trying again: ", "consumer: connected"
			}
			w.log.Error(failed+err.Error(), "error", err)
		}
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return nil
		}
		wait = w.longer(wait)
	}
}

// longer is the pause after a pause.
func (w *Worker) longer(wait time.Duration) time.Duration {
	return min(2*wait, max(w.conf.BrokerConnectionIntervalMax, firstBackoff))
}

// giveUp decides whether an error ends the worker.
func (w *Worker) giveUp(err error, tries int) error {
	c := w.conf
	ready := w.ready.Load()
	step := (*stepError)(nil)
	switch {
	case !ready && errors.As(err, &step) && !retryable(err):
		return err
	case !ready && (!*c.BrokerConnectionRetryOnStartup || !retryable(err)):
		return fmt.Errorf("connect to the broker: %w", err)
	case ready && !*c.BrokerConnectionRetry:
		return fmt.Errorf("connection to the broker lost, and broker_connection_retry is off: %w", err)
	case c.BrokerConnectionMaxRetries > 0 && tries > c.BrokerConnectionMaxRetries:
		return fmt.Errorf("no connection to the broker after %d tries (broker_connection_max_retries): %w", tries, err)
	}
	return nil
}

// attend serves a link between the start and the stop of its steps.
func (w *Worker) attend(ctx context.Context, l *link, healthy func()) error {
	attended := make(chan struct{})
	defer close(attended)
	w.mu.Lock()
	w.attended = attended
	w.mu.Unlock()
	steps, err := w.startSteps(ctx, "consumer", w.linkParts, l.conn)
	if err != nil {
		return err
	}
	if ctx.Err() == nil {
		w.current(l)
		err = w.serve(ctx, l, healthy)
	}
	steps.stop(errors.Is(context.Cause(ctx), errColdShutdown))
	return err
}

// serve claims through a link until ctx ends, the broker fails or it does not
// answer in time. healthy is called after the first answer.
func (w *Worker) serve(ctx context.Context, l *link, healthy func()) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	ended := make(chan error, 1)
	w.group.Go(func() { ended <- guard(func() error { return l.claim(ctx) }) })
	if w.commands != nil {
		w.group.Go(func() { w.obey(ctx, l) })
	}
	if w.gossips() {
		w.group.Go(func() { w.listenToPeers(ctx, l) })
	}
	watch := time.NewTicker(w.cfg.StallTimeout / 4)
	defer watch.Stop()
	answered := l.answered
	for {
		select {
		case <-answered:
			answered = nil
			healthy()
		case err := <-ended:
			select {
			case <-l.answered:
				if answered != nil {
					healthy()
				}
			default:
			}
			return err
		case now := <-watch.C:
			if at := l.asked.Load(); at > 0 && now.Sub(time.Unix(0, at)) > w.cfg.StallTimeout {
				// The call cannot be taken back: the link is retired, and what it
				// may still bring goes back to its queue.
				return fmt.Errorf("%w (%s)", errStalled, w.cfg.StallTimeout)
			}
		}
	}
}

// capacity waits until there is room and returns how many messages may be
// claimed; 0 when ctx has ended. Slots come first: what is claimed beyond them
// is the look-ahead. It is filled up when an eighth of it is used: claims that are
// small and often leave no gap in which worker and server wait for one another.
// What is claimed and not read yet waits like what has no slot.
func (w *Worker) capacity(ctx context.Context) int {
	for ctx.Err() == nil {
		if d := w.strays.wait(); d > 0 {
			w.claims.rest()
			select {
			case <-time.After(d):
			case <-w.room:
			case <-ctx.Done():
			}
			w.claims.work()
			continue
		}
		n := w.roomNow()
		if n > 0 {
			return n
		}
		w.claims.rest()
		select {
		case <-w.room:
		case <-w.pool.Changed():
		case <-ctx.Done():
		}
		w.claims.work()
	}
	return 0
}

func (w *Worker) roomNow() int {
	most := w.mayClaim()
	unread, sought := int(w.unread.Load()), int(w.sought.Load()) // first, so that what is read meanwhile counts twice
	size, used, waiting := w.pool.Counts()
	waiting += unread
	free, ahead := max(w.scaler.slots(size)-used-sought, 0), w.window.size()
	switch {
	case waiting == 0 && free > 0:
		return min(free+ahead, most)
	case waiting > ahead*7/8 || ahead == 0:
		return 0
	}
	return min(ahead-waiting, most)
}

// mayClaim is the most that may be claimed: nothing while too many ends of runs
// wait, and no more than may be held for its time.
func (w *Worker) mayClaim() int {
	if w.count.finishing.Load() >= int64(4*w.cfg.Concurrency+1000) || w.count.finishBytes.Load() >= maxFinishBytes {
		return 0
	}
	limit := w.conf.WorkerETATaskLimit
	if limit < 0 {
		return math.MaxInt
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	return max(limit-len(w.holding)-int(w.unread.Load()), 0)
}

const maxFinishBytes = 64 << 20

// returnUnread hands a message back that came too late to be looked at.
func (w *Worker) returnUnread(l *link, d *broker.Delivery) {
	j := &job{w: w, link: l, d: d, received: time.Now()}
	j.slot.w = w
	l.open.Add(1)
	w.mu.Lock()
	w.jobs[j] = struct{}{}
	w.mu.Unlock()
	w.handBack(j)
}

// sweep hands back what was claimed ahead and has waited too long while all
// slots were busy. What has expired meanwhile ends here: RabbitMQ would drop it
// without a word.
func (w *Worker) sweep(ctx context.Context) {
	t := time.NewTicker(aheadWait / 2)
	defer t.Stop()
	for {
		select {
		case <-t.C:
		case <-ctx.Done():
			return
		}
		oldest, ok := w.pool.Oldest()
		if !ok {
			continue
		}
		now := time.Now()
		if age := now.Sub(oldest.received); age > aheadWait {
			w.window.blocked(age)
			for _, j := range w.pool.Withdraw(func(*job) bool { return true }) {
				if !w.drop(j, now) {
					w.handBack(j)
				}
			}
		}
	}
}

// current makes a link the one that monitors are told through.
func (w *Worker) current(l *link) {
	w.mu.Lock()
	w.link = l
	w.mu.Unlock()
	if w.events != nil {
		w.events.SetConn(l.conn)
	}
	if w.ready.Swap(true) {
		return
	}
	w.warnOfClaimLimit(l)
	w.becomeReady()
}

func (w *Worker) snapshot() []*job {
	w.mu.Lock()
	defer w.mu.Unlock()
	out := make([]*job, 0, len(w.jobs))
	for j := range w.jobs {
		out = append(out, j)
	}
	return out
}
