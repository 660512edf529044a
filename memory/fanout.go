package memory

import (
	"context"
	"fmt"

	"github.com/lovage-go/lovage/broker"
)

// Broadcast gives each message to every listener whose pattern matches.
func (c *Conn) Broadcast(ctx context.Context, name string, msgs ...*broker.Message) error {
	enc := make([]encoded, len(msgs))
	for i, m := range msgs {
		var err error
		if enc[i], err = c.store.encode(m); err != nil {
			return err
		}
	}
	f, unlock, err := c.enter(ctx, OpBroadcast)
	if err != nil {
		return err
	}
	defer unlock()
	for i := range enc {
		for l := range c.store.listeners[name] {
			if !broker.MatchTopic(l.pattern, enc[i].item.routingKey) {
				continue
			}
			l.offer(name, &enc[i].item)
			if f.Kind == Duplicate {
				l.offer(name, &enc[i].item)
			}
		}
	}
	return f.reply()
}

// Listen starts to receive.
func (c *Conn) Listen(ctx context.Context, name, pattern string) (broker.Listener, error) {
	_, unlock, err := c.enter(ctx, OpListen)
	if err != nil {
		return nil, err
	}
	defer unlock()
	l := &Listener{conn: c, exchange: name, pattern: pattern, ring: make(chan struct{}, 1), done: make(chan struct{})}
	if c.store.listeners[name] == nil {
		c.store.listeners[name] = map[*Listener]struct{}{}
	}
	c.store.listeners[name][l] = struct{}{}
	c.listeners[l] = struct{}{}
	return l, nil
}

// Listener receives broadcasts. It is safe for concurrent use.
type Listener struct {
	conn     *Conn
	exchange string
	pattern  string
	ring     chan struct{}
	done     chan struct{}

	// Guarded by store.mu.
	buffer []broker.Delivery
	missed int64
	closed bool
}

// offer adds a broadcast; the oldest goes if the buffer is full.
func (l *Listener) offer(name string, it *item) {
	if len(l.buffer) >= l.conn.store.listenBuffer {
		l.buffer = l.buffer[1:]
		l.missed++
	}
	at := *it
	at.queue, at.exchange = &queue{}, name
	l.buffer = append(l.buffer, at.delivery(0))
	l.wake()
}

func (l *Listener) wake() {
	select {
	case l.ring <- struct{}{}:
	default:
	}
}

// Next waits for a broadcast. After Close it returns broker.ErrClosed.
func (l *Listener) Next(ctx context.Context) (broker.Delivery, error) {
	s := l.conn.store
	for {
		if err := s.lock(ctx, l.conn.proc, broker.ErrClosed); err != nil {
			return broker.Delivery{}, err
		}
		if l.closed {
			s.mu.Unlock()
			return broker.Delivery{}, fmt.Errorf("memory: listener of %q: %w", l.exchange, broker.ErrClosed)
		}
		if len(l.buffer) > 0 {
			d := l.buffer[0]
			l.buffer = l.buffer[1:]
			if len(l.buffer) > 0 {
				l.wake()
			}
			s.mu.Unlock()
			return d, nil
		}
		s.mu.Unlock()
		select {
		case <-l.ring:
		case <-l.done:
		case <-ctx.Done():
		}
	}
}

// Missed counts the broadcasts that were dropped because nobody took them in time.
func (l *Listener) Missed() int64 {
	l.conn.store.mu.Lock()
	defer l.conn.store.mu.Unlock()
	return l.missed
}

// Close stops receiving. Closing twice is no error.
func (l *Listener) Close() error {
	l.conn.store.mu.Lock()
	defer l.conn.store.mu.Unlock()
	l.end()
	return nil
}

func (l *Listener) end() {
	if l.closed {
		return
	}
	l.closed, l.buffer = true, nil
	close(l.done)
	delete(l.conn.listeners, l)
	all := l.conn.store.listeners
	delete(all[l.exchange], l)
	if len(all[l.exchange]) == 0 {
		delete(all, l.exchange)
	}
}

var (
	_ broker.Fanouter = (*Conn)(nil)
	_ broker.Listener = (*Listener)(nil)
)
