package worker

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/lovage-go/lovage/broker"
	"github.com/lovage-go/lovage/control"
)

// link is one connection with its consumer: claims belong to it, runs do not. A
// link that is lost or has stalled is retired: it claims no more, but renews and
// settles what it has claimed, and closes when its last job has ended.
type link struct {
	w        *Worker
	conn     broker.Conn
	consumer broker.Consumer
	features broker.Features
	finisher broker.AtomicFinisher // nil: the broker publishes and settles in two steps
	oneStore bool                  // the finisher keeps results too
	renewer  broker.LeaseRenewer   // nil: no leases
	losses   broker.LossCounter    // nil: ask the result store
	marker   broker.LossMarker     // for result stores that do not count
	limiter  broker.ClaimLimiter   // nil: claims last for ever
	commit   *committer

	mailbox *control.Mailbox // nil: none yet

	ctx    context.Context // ends when the link closes
	cancel context.CancelCauseFunc

	open     atomic.Int64 // jobs that came by it and have not ended
	asked    atomic.Int64 // since when a claim is under way; 0: none is
	answered chan struct{}
	once     sync.Once

	mu      sync.Mutex // guards retired
	retired bool
	shut    sync.Once
}

// connect builds a link from what was declared; a shutdown closes it.
func (w *Worker) connect(ctx context.Context) (*link, error) {
	limit := w.conf.BrokerConnectionTimeout
	if limit > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, limit)
		defer cancel()
	}
	conn, err := w.app.OpenBroker(ctx)
	if err != nil {
		return nil, err
	}
	consumer, err := conn.Consume(ctx, broker.ConsumeConfig{
		Queues: w.ordered(w.consumed()), Worker: w.cfg.Hostname, Lease: w.cfg.Lease, Strict: w.strict,
		Window: w.cfg.Concurrency + w.cfg.LookAhead, Notes: &w.notes,
	})
	if err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	l := &link{w: w, conn: conn, consumer: consumer, features: conn.Features(), answered: make(chan struct{})}
	l.renewer, _ = consumer.(broker.LeaseRenewer)
	l.losses, _ = consumer.(broker.LossCounter)
	l.marker, _ = consumer.(broker.LossMarker)
	l.limiter, _ = conn.(broker.ClaimLimiter)
	l.finisher, _ = consumer.(broker.AtomicFinisher)
	l.oneStore = w.back == nil || sameStore(conn, consumer, w.back)
	l.ctx, l.cancel = context.WithCancelCause(w.base)
	l.commit = newCommitter(l)
	l.commit.start()
	if l.renewer != nil {
		w.group.Go(func() { w.forever(l, "renewer", l.renew) })
	}
	_ = w.openMailbox(ctx, l) // it has told; obey tries again
	w.mu.Lock()
	late := w.closing
	if !late {
		w.links[l] = struct{}{}
	}
	w.mu.Unlock()
	if late { // the shutdown did not see it
		l.close(errColdShutdown)
		return nil, errColdShutdown
	}
	return l, nil
}

// sameStore reports whether broker and result store are one.
func sameStore(conn, consumer, back any) bool {
	theirs, ok := back.(broker.StoreIdentity)
	if !ok || theirs.StoreID() == "" {
		return false
	}
	for _, ours := range []any{consumer, conn} {
		if id, ok := ours.(broker.StoreIdentity); ok {
			return id.StoreID() == theirs.StoreID()
		}
	}
	return false
}

// claim takes messages until ctx ends or the broker fails, and reads the most of
// them beside the next claim. A claim has a bounded wait: its return, with or
// without a message, is a sign of life.
func (l *link) claim(ctx context.Context) (err error) {
	w := l.w
	defer w.claims.rest()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	ahead, read := make(chan []broker.Delivery), make(chan error, 1)
	w.group.Go(func() { read <- l.read(ctx, cancel, ahead) })
	defer func() {
		close(ahead)
		if e := <-read; e != nil {
			err = e
		}
	}()
	for wait := firstClaim; ; wait = claimWait {
		w.claims.work()
		n := w.capacity(ctx)
		if n == 0 {
			return nil
		}
		bounded, cancel := context.WithTimeout(ctx, wait)
		w.claims.rest() // serve watches how long it takes
		l.asked.Store(time.Now().UnixNano())
		ds, err := l.consumer.Claim(bounded, n)
		l.asked.Store(0)
		w.claims.work()
		cancel()
		switch {
		case len(ds) >= readAhead || len(ds) > 0 && w.unread.Load() > 0:
			w.unread.Add(int64(len(ds)))
			ahead <- ds
		case len(ds) > 0:
			l.receive(ctx, ds)
		}
		switch {
		case err == nil, errors.Is(err, context.DeadlineExceeded):
			l.once.Do(func() { close(l.answered) })
		case ctx.Err() != nil:
			return nil
		default:
			return fmt.Errorf("claim: %w", err)
		}
		if ctx.Err() != nil {
			return nil
		}
	}
}

// readAhead is the number of messages that are worth another goroutine.
const readAhead = 32

// read receives what was claimed, batch by batch. A panic, which is the error, stops
// the claims.
func (l *link) read(ctx context.Context, stop func(), batches <-chan []broker.Delivery) (err error) {
	w := l.w
	for ds := range batches {
		w.reading.work()
		if e := guard(func() error { l.receive(ctx, ds); return nil }); e != nil {
			err = e
			stop()
		}
		w.unread.Add(-int64(len(ds)))
		w.reading.rest()
		ring(w.room)
	}
	return err
}

// receive decides what becomes of claimed messages.
func (l *link) receive(ctx context.Context, ds []broker.Delivery) {
	now := time.Now()
	for i := range ds {
		if l.isRetired() || ctx.Err() != nil {
			l.w.returnUnread(l, &ds[i])
			continue
		}
		l.w.receive(l, &ds[i], now)
	}
	l.w.scaler.look()
}

// renew keeps the claims of the link alive as long as it has any.
func (l *link) renew() {
	w := l.w
	every := max(l.renewer.RenewEvery(), time.Millisecond)
	next, failing := every, false
	for {
		select {
		case <-time.After(next):
		case <-l.ctx.Done():
			return
		}
		held, jobs := l.held()
		if len(held) == 0 {
			next = every
			continue
		}
		ctx, cancel := context.WithTimeout(l.ctx, every)
		lost, err := l.renewer.Renew(ctx, held)
		cancel()
		for _, d := range lost {
			if j := jobs[d]; j != nil && !j.settled.Load() {
				l.lose(j)
			}
		}
		switch {
		case err == nil:
			if failing {
				w.log.Info("leases are renewed again")
			}
			next, failing = every, false
		case l.ctx.Err() != nil:
			return
		default:
			if !failing {
				w.log.Warn("leases could not be renewed; trying again", "claims", len(held), "error", err)
			}
			next, failing = max(every/8, 10*time.Millisecond), true
		}
	}
}

// held are the claims that are not settled.
func (l *link) held() ([]*broker.Delivery, map[*broker.Delivery]*job) {
	w := l.w
	w.mu.Lock()
	defer w.mu.Unlock()
	jobs := make(map[*broker.Delivery]*job, l.open.Load())
	list := make([]*broker.Delivery, 0, l.open.Load())
	for j := range w.jobs {
		if j.link == l && !j.settled.Load() {
			jobs[j.d] = j
			list = append(list, j.d)
		}
	}
	return list, jobs
}

// lose ends the run of a message that has gone to another worker.
func (l *link) lose(j *job) {
	switch {
	case j.phase.CompareAndSwap(waiting, fenced):
		// It is dropped when its turn comes.
		l.w.fence(j, broker.ErrLeaseLost)
	case j.phase.CompareAndSwap(running, fenced):
		j.stop(errLeaseLost)
		l.w.alarms.add(time.Now().Add(l.w.cfg.Grace), func() { j.kill(syscall.SIGKILL) })
	default:
		return // the settlement will tell
	}
	l.release(j)
}

// release tells that nothing is owed to the broker for a job any more.
func (l *link) release(j *job) { j.settled.Store(true) }

// leave tells that a job will not need the link any more.
func (l *link) leave() {
	if l.open.Add(-1) == 0 && l.isRetired() {
		l.w.group.Go(func() { l.close(nil) })
	}
}

func (l *link) isRetired() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.retired
}

// retire lets the link claim no more; it closes with its last job.
func (l *link) retire() {
	l.mu.Lock()
	l.retired = true
	l.mu.Unlock()
	if l.open.Load() == 0 {
		l.close(nil)
	}
}

// close ends the link; the consumer hands back what is still claimed.
func (l *link) close(cause error) {
	l.shut.Do(func() {
		l.cancel(cause)
		err := guard(func() error { return errors.Join(l.consumer.Close(), l.conn.Close()) })
		if err != nil && !gone(err) {
			l.w.log.Warn("consumer: the connection did not close well", "error", err)
		}
		l.w.mu.Lock()
		delete(l.w.links, l)
		l.w.mu.Unlock()
		ring(l.w.idle)
	})
}
