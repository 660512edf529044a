package rpcbackend

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/lovage-go/lovage/backend"
	"github.com/lovage-go/lovage/broker"
	"github.com/lovage-go/lovage/protocol"
)

func init() {
	backend.Register(func(ctx context.Context, cfg backend.Config) (backend.Backend, error) {
		b, err := Open(ctx, cfg)
		if err != nil {
			return nil, err
		}
		return b, nil
	}, "rpc")
}

// Errors of results that will not come.
var (
	// ErrNotOurs: the task was called by another process, which gets its result.
	ErrNotOurs = errors.New("rpc results go to the process that made the call")
	// ErrResultLost: the reply queue was lost while the result was waited for.
	ErrResultLost = errors.New("the connection to the reply queue was lost, and the result may be with it")
	// ErrDropped: too many results were not asked for.
	ErrDropped = errors.New("the result was dropped, since too many were not asked for")
)

// defaultExpires is Celery's result_expires.
const defaultExpires = 24 * time.Hour

// Backend sends results and receives those of this process's own calls. It is
// safe for concurrent use.
type Backend struct {
	cfg     backend.Config
	several bool // there are brokers to choose from
	log     *slog.Logger
	mode    int // delivery mode of results
	expires time.Duration
	inbox   *inbox

	opening chan struct{} // holds one token: who makes the queue

	mu       sync.Mutex // guards what follows
	closed   bool
	conn     broker.Conn
	listener broker.ResultListener // nil: no call was made yet
	queue    string
	lost     int64 // how often queues before this one were lost
	seen     int64 // losses of the listener after which its broker was well
	group    sync.WaitGroup
}

// Open connects to the broker that cfg.OpenBroker opens, else cfg.BrokerURL names.
func Open(ctx context.Context, cfg backend.Config) (*Backend, error) {
	if cfg.BrokerURL == "" && cfg.OpenBroker == nil {
		return nil, errors.New("rpc results go by the broker: set broker_url")
	}
	b := &Backend{cfg: cfg, several: len(broker.URLs(cfg.BrokerURL)) > 1, log: cfg.Log(), mode: 1, expires: cmp.Or(cfg.Expires, defaultExpires), opening: make(chan struct{}, 1)}
	if cfg.Persistent {
		b.mode = 2
	}
	b.inbox = newInbox(b.expires)
	conn, err := b.connect(ctx)
	if err != nil {
		return nil, err
	}
	b.conn = conn
	return b, nil
}

// Expect makes the reply queue of this process exist and the results of the ids
// be kept. It gives the queue's name, for the reply_to of their messages.
func (b *Backend) Expect(ctx context.Context, ids ...string) (replyTo string, err error) {
	if err := b.check(ctx); err != nil {
		return "", err
	}
	queue, err := b.open(ctx)
	if err != nil {
		return "", err
	}
	b.notice() // losses before the call are none of its
	if n := b.inbox.expect(time.Now(), ids); n > 0 {
		b.log.Warn("results that nobody asked for are dropped: ignore the results of tasks whose results you do not want", "dropped", n)
	}
	return queue, nil
}

// open makes the reply queue, if it was not made, and names it.
func (b *Backend) open(ctx context.Context) (queue string, err error) {
	b.mu.Lock()
	ready, queue, closed := b.listener != nil, b.queue, b.closed
	b.mu.Unlock()
	switch {
	case closed:
		return "", errClosed()
	case ready:
		return queue, nil
	}
	if err := b.enter(ctx); err != nil {
		return "", err
	}
	defer b.leave()
	b.mu.Lock()
	ready, queue = b.listener != nil, b.queue
	conn := b.conn
	b.mu.Unlock()
	if ready {
		return queue, nil
	}
	l, err := conn.(broker.ResultQueuer).ResultQueue(ctx, b.expires)
	if err != nil {
		return "", fmt.Errorf("make the reply queue: %w", fault(err))
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed {
		return "", errors.Join(errClosed(), l.Close())
	}
	b.listener, b.queue, b.seen = l, l.Queue(), 0
	b.group.Go(func() { b.receive(l) })
	return b.queue, nil
}

// receive takes results until the listener is closed. Those that came faster than
// they were taken are lost as if with the queue.
func (b *Backend) receive(l broker.ResultListener) {
	var missed int64
	for {
		d, err := l.Next(context.Background())
		if err != nil {
			return
		}
		if n := l.Missed(); n > missed {
			b.log.Warn("results came faster than they were taken, and some are lost", "lost", n-missed)
			b.inbox.drops(n - missed)
			missed = n
		}
		if !b.inbox.put(time.Now(), &d) {
			b.log.Debug("a result came that this process does not wait for", "id", d.Properties.CorrelationID)
		}
	}
}

// Store sends each record to the queue that its call named. A call that named
// none wants no result. A caller that is gone gets none.
func (b *Backend) Store(ctx context.Context, recs ...*backend.Record) error {
	msgs := make([]*broker.Message, 0, len(recs))
	for _, r := range recs {
		if r.ReplyTo == "" {
			continue
		}
		msgs = append(msgs, &broker.Message{
			RoutingKey: r.ReplyTo, Body: r.Meta,
			Properties: protocol.Properties{ContentType: protocol.ContentJSON, ContentEncoding: protocol.EncodingUTF8,
				CorrelationID: cmp.Or(r.CorrelationID, r.TaskID), DeliveryMode: b.mode},
		})
	}
	if len(msgs) == 0 {
		return nil
	}
	b.mu.Lock()
	conn := b.conn
	b.mu.Unlock()
	err := conn.Publish(ctx, msgs...)
	if err != nil && b.several && broker.Retryable(err) {
		if err = b.replace(ctx, conn); err == nil {
			b.mu.Lock()
			conn = b.conn
			b.mu.Unlock()
			err = conn.Publish(ctx, msgs...)
		}
	}
	if err != nil {
		return fmt.Errorf("send results: %w", fault(err))
	}
	return nil
}

// Fetch gives the last states that have come.
func (b *Backend) Fetch(_ context.Context, ids ...string) ([]backend.Record, error) {
	if err := b.alive(); err != nil {
		return nil, err
	}
	b.notice()
	return b.inbox.fetch(time.Now(), ids)
}

// notice looks whether the queue was lost: no message may tell.
func (b *Backend) notice() {
	b.mu.Lock()
	l, lost := b.listener, b.lost
	b.mu.Unlock()
	if l != nil {
		lost += l.Lost() + l.Missed()
	}
	b.inbox.noteLost(lost)
}

// Forget drops what is kept of the ids.
func (b *Backend) Forget(_ context.Context, ids ...string) error {
	if err := b.alive(); err != nil {
		return err
	}
	b.inbox.forget(ids)
	return nil
}

// Watch rings when a result of one of the ids has come. While it is open, what has
// come for them is not dropped.
func (b *Backend) Watch(_ context.Context, ids ...string) (backend.Watch, error) {
	if err := b.alive(); err != nil {
		return nil, err
	}
	return b.inbox.watch(ids), nil
}

// LateError is why a result that was waited for in vain may never come, or nil.
func (b *Backend) LateError(id string) error {
	b.notice()
	if b.inbox.mayBeLost(id) {
		return ErrResultLost
	}
	return nil
}

// Dropped counts the results that were dropped because nobody asked for them, or
// because they came faster than they were taken.
func (b *Backend) Dropped() int64 { return b.inbox.droppedCount() }

// Features: nothing outlives this process, result_expires is one for all results,
// and chords cannot be counted.
func (b *Backend) Features() backend.Features { return backend.Features{} }

// Close deletes the reply queue and closes the connection.
func (b *Backend) Close() error {
	b.mu.Lock()
	if b.closed {
		b.mu.Unlock()
		return nil
	}
	b.closed = true
	l, conn := b.listener, b.conn
	b.mu.Unlock()
	var err error
	if l != nil {
		err = l.Close()
	}
	b.group.Wait()
	return errors.Join(err, conn.Close())
}

func (b *Backend) alive() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed {
		return errClosed()
	}
	return nil
}

func errClosed() error { return fmt.Errorf("rpc results: %w", backend.ErrClosed) }

// fault gives the backend's error for the broker's.
func fault(err error) error {
	switch {
	case errors.Is(err, broker.ErrUnavailable):
		return fmt.Errorf("%w: %w", backend.ErrUnavailable, err)
	case errors.Is(err, broker.ErrClosed):
		return fmt.Errorf("%w: %w", backend.ErrClosed, err)
	}
	return err
}

var (
	_ backend.Backend  = (*Backend)(nil)
	_ backend.Watcher  = (*Backend)(nil)
	_ backend.Expecter = (*Backend)(nil)
	_ backend.Doubter  = (*Backend)(nil)
)
