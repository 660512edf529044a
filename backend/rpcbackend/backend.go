package rpcbackend

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
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
	conn    broker.Conn
	queues  broker.ResultQueuer
	log     *slog.Logger
	mode    int // delivery mode of results
	expires time.Duration
	inbox   *inbox

	opening chan struct{} // holds one token: who makes the queue

	mu       sync.Mutex // guards what follows
	closed   bool
	listener broker.ResultListener // nil: no call was made yet
	queue    string
	group    sync.WaitGroup
}

// Open connects to the broker that cfg.BrokerURL names.
func Open(ctx context.Context, cfg backend.Config) (*Backend, error) {
	if cfg.BrokerURL == "" {
		return nil, errors.New("rpc results go by the broker: set broker_url")
	}
	var conn broker.Conn
	var err error
	for _, url := range strings.Split(cfg.BrokerURL, ";") { // the first that can be reached
		conn, err = broker.Open(ctx, broker.Config{URL: strings.TrimSpace(url), Options: cfg.BrokerOptions, Logger: cfg.Logger})
		if err == nil || !broker.Retryable(err) {
			break
		}
	}
	if err != nil {
		return nil, fmt.Errorf("rpc results: %w", fault(err))
	}
	queues, ok := conn.(broker.ResultQueuer)
	if !ok {
		return nil, errors.Join(fmt.Errorf("rpc results need RabbitMQ as the broker; use a result store beside %s: %w",
			broker.Redact(cfg.BrokerURL), backend.ErrUnsupported), conn.Close())
	}
	b := &Backend{conn: conn, queues: queues, log: cfg.Log(), mode: 1, expires: cmp.Or(cfg.Expires, defaultExpires), opening: make(chan struct{}, 1)}
	if cfg.Persistent {
		b.mode = 2
	}
	b.inbox = newInbox(b.expires)
	return b, nil
}

// Expect makes the reply queue of this process exist and the results of the ids
// be kept. It gives the queue's name, for the reply_to of their messages.
func (b *Backend) Expect(ctx context.Context, ids ...string) (replyTo string, err error) {
	if err := b.open(ctx); err != nil {
		return "", err
	}
	if n := b.inbox.expect(time.Now(), ids); n > 0 {
		b.log.Warn("results that nobody asked for are dropped: ignore the results of tasks whose results you do not want", "dropped", n)
	}
	return b.queue, nil
}

func (b *Backend) open(ctx context.Context) error {
	b.mu.Lock()
	ready, closed := b.listener != nil, b.closed
	b.mu.Unlock()
	switch {
	case closed:
		return errClosed()
	case ready:
		return nil
	}
	select {
	case b.opening <- struct{}{}:
		defer func() { <-b.opening }()
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	b.mu.Lock()
	ready = b.listener != nil
	b.mu.Unlock()
	if ready {
		return nil
	}
	l, err := b.queues.ResultQueue(ctx, b.expires)
	if err != nil {
		return fmt.Errorf("make the reply queue: %w", fault(err))
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed {
		return errors.Join(errClosed(), l.Close())
	}
	b.listener, b.queue = l, l.Queue()
	b.group.Go(func() { b.receive(l) })
	return nil
}

// receive takes results until the listener is closed.
func (b *Backend) receive(l broker.ResultListener) {
	for {
		d, err := l.Next(context.Background())
		if err != nil {
			return
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
	if err := b.conn.Publish(ctx, msgs...); err != nil {
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
	l := b.listener
	b.mu.Unlock()
	if l != nil {
		b.inbox.noteLost(l.Lost())
	}
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

// Dropped counts the results that were dropped because nobody asked for them.
func (b *Backend) Dropped() int64 { return b.inbox.droppedCount() }

// Features: nothing outlives this process, and chords cannot be counted.
func (b *Backend) Features() backend.Features { return backend.Features{Expires: true} }

// Close deletes the reply queue and closes the connection.
func (b *Backend) Close() error {
	b.mu.Lock()
	if b.closed {
		b.mu.Unlock()
		return nil
	}
	b.closed = true
	l := b.listener
	b.mu.Unlock()
	var err error
	if l != nil {
		err = l.Close()
	}
	b.group.Wait()
	return errors.Join(err, b.conn.Close())
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
