package rpcbackend

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/lovage-go/lovage/backend"
	"github.com/lovage-go/lovage/broker"
)

// checkTimeout bounds the question whether a broker that was lost is well again.
const checkTimeout = time.Second

// connect opens a broker that has result queues.
func (b *Backend) connect(ctx context.Context) (conn broker.Conn, err error) {
	if b.cfg.OpenBroker != nil {
		var opened any
		opened, err = b.cfg.OpenBroker(ctx)
		conn, _ = opened.(broker.Conn)
	} else {
		for _, url := range broker.URLs(b.cfg.BrokerURL) { // the first that can be reached
			conn, err = broker.Open(ctx, broker.Config{URL: url, Options: b.cfg.BrokerOptions, Logger: b.cfg.Logger})
			if err == nil || !broker.Retryable(err) {
				break
			}
		}
	}
	if err != nil {
		return nil, fmt.Errorf("rpc results: %w", fault(err))
	}
	if _, ok := conn.(broker.ResultQueuer); !ok {
		return nil, errors.Join(fmt.Errorf("rpc results need RabbitMQ as the broker; use a result store beside %s: %w",
			broker.Redact(b.cfg.BrokerURL), backend.ErrUnsupported), conn.Close())
	}
	return conn, nil
}

// check looks, after the reply queue was lost, whether its broker is well. If not,
// and there are others, another is used from now on: calls go there too.
func (b *Backend) check(ctx context.Context) error {
	b.mu.Lock()
	l, conn, queue, seen := b.listener, b.conn, b.queue, b.seen
	b.mu.Unlock()
	if !b.several || l == nil || l.Lost() == seen {
		return nil
	}
	lost := l.Lost()
	asking, cancel := context.WithTimeout(ctx, checkTimeout)
	defer cancel()
	err := conn.Declare(asking, broker.Queue{Name: queue, NoDeclare: true})
	if err != nil && (broker.Retryable(err) || asking.Err() != nil) {
		return b.replace(ctx, conn)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.listener == l {
		b.seen = lost
	}
	return nil
}

// replace goes to another broker, unless somebody has. Results that are on their
// way to the old one are lost.
func (b *Backend) replace(ctx context.Context, old broker.Conn) error {
	if err := b.enter(ctx); err != nil {
		return err
	}
	defer b.leave()
	b.mu.Lock()
	done := b.conn != old
	b.mu.Unlock()
	if done {
		return nil
	}
	conn, err := b.connect(ctx)
	if err != nil {
		return err
	}
	b.mu.Lock()
	if b.closed {
		b.mu.Unlock()
		return errors.Join(errClosed(), conn.Close())
	}
	l := b.listener
	b.conn, b.listener = conn, nil
	if l != nil {
		b.lost += l.Lost() + l.Missed() + 1
	}
	b.group.Go(func() { // it may wait for a server that does not answer
		if l != nil {
			_ = l.Close()
		}
		_ = old.Close() // it was lost
	})
	b.mu.Unlock()
	b.notice()
	b.log.Warn("rpc results go by another broker; those that were on their way to the old one are lost")
	return nil
}

// enter takes the token of who changes connection or queue.
func (b *Backend) enter(ctx context.Context) error {
	select {
	case b.opening <- struct{}{}:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

func (b *Backend) leave() { <-b.opening }
