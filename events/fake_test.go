package events_test

import (
	"context"
	"strings"
	"sync"

	"github.com/lovage-go/lovage/broker"
	"github.com/lovage-go/lovage/protocol"
)

// hub is a small fan-out broker: what is broadcast is remembered and goes to
// every listener whose pattern is # or the key's.
type hub struct {
	broker.Conn

	mu        sync.Mutex
	fail      func(msgs []*broker.Message) error // nil: all is accepted
	calls     int
	accepted  []*broker.Message
	listeners []*listener
}

func (h *hub) Broadcast(ctx context.Context, exchange string, msgs ...*broker.Message) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.calls++
	var errs []error
	if h.fail != nil {
		errs = broker.EachError(h.fail(msgs), len(msgs))
	}
	failed := false
	for i, m := range msgs {
		if errs != nil && errs[i] != nil {
			failed = true
			continue
		}
		h.accepted = append(h.accepted, m)
		for _, l := range h.listeners {
			if l.exchange == exchange && (l.pattern == "#" || l.pattern == m.RoutingKey) {
				l.ch <- broker.Delivery{Properties: m.Properties, Body: m.Body, Exchange: exchange, RoutingKey: m.RoutingKey}
			}
		}
	}
	if failed {
		return &broker.BatchError{Errs: errs}
	}
	return nil
}

func (h *hub) Listen(_ context.Context, exchange, pattern string) (broker.Listener, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	l := &listener{exchange: exchange, pattern: pattern, ch: make(chan broker.Delivery, 100), done: make(chan struct{})}
	h.listeners = append(h.listeners, l)
	return l, nil
}

// setFail changes what the broker answers.
func (h *hub) setFail(f func([]*broker.Message) error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.fail = f
}

// keys lists the routing keys of what was accepted.
func (h *hub) keys() string {
	h.mu.Lock()
	defer h.mu.Unlock()
	var keys []string
	for _, m := range h.accepted {
		keys = append(keys, m.RoutingKey)
	}
	return strings.Join(keys, " ")
}

// put gives every listener a raw body.
func (h *hub) put(body, contentType string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, l := range h.listeners {
		l.ch <- broker.Delivery{Body: []byte(body), Properties: protocol.Properties{ContentType: contentType}}
	}
}

type listener struct {
	exchange, pattern string
	ch                chan broker.Delivery
	done              chan struct{}
	once              sync.Once
}

func (l *listener) Next(ctx context.Context) (broker.Delivery, error) {
	select {
	case d := <-l.ch:
		return d, nil
	case <-ctx.Done():
		return broker.Delivery{}, context.Cause(ctx)
	case <-l.done:
		return broker.Delivery{}, broker.ErrClosed
	}
}

func (l *listener) Missed() int64 { return 4 }

func (l *listener) Close() error {
	l.once.Do(func() { close(l.done) })
	return nil
}
