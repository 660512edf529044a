package redisbroker

import (
	"context"
	"fmt"
	"strings"
	"sync"

	"github.com/lovage-go/lovage/broker"
	"github.com/lovage-go/lovage/internal/earshot"
	"github.com/redis/rueidis"
)

// fanoutHome is the key whose slot's master takes all broadcasts of a cluster and
// all listeners: the bus between the nodes brings messages late and in any order.
const fanoutHome = "fanout"

// Broadcast publishes messages on the exchange's channels, as kombu does.
func (c *Conn) Broadcast(ctx context.Context, exchange string, msgs ...*broker.Message) error {
	if err := c.alive(); err != nil {
		return err
	}
	cmds := make(rueidis.Commands, 0, len(msgs))
	for _, m := range msgs {
		if len(m.Body) > c.maxBody {
			return fmt.Errorf("broadcast to %q has a body of %d bytes, the limit is %d: %w", exchange, len(m.Body), c.maxBody, broker.ErrTooLarge)
		}
		at := *m
		at.Exchange = exchange
		cmds = append(cmds, c.rdb.B().Publish().Channel(c.keys.channel(exchange, m.RoutingKey)).Message(c.encode(&at)).Build().SetSlot(fanoutHome))
	}
	if len(cmds) == 0 {
		return nil
	}
	limited, cancel := c.rdb.Deadline(ctx)
	defer cancel()
	for _, r := range c.rdb.DoMulti(limited, cmds...) {
		if err := r.Error(); err != nil {
			return fmt.Errorf("broadcast to %q: %w", exchange, fault(ctx, err))
		}
	}
	return nil
}

// Listen starts to receive what is broadcast from now on.
func (c *Conn) Listen(ctx context.Context, exchange, pattern string) (broker.Listener, error) {
	l, err := c.listen(ctx, exchange, pattern)
	if err != nil {
		return nil, err
	}
	return l, nil
}

func (c *Conn) listen(ctx context.Context, exchange, pattern string) (*listener, error) {
	if err := c.alive(); err != nil {
		return nil, err
	}
	l := &listener{conn: c, exchange: exchange, pattern: pattern, globs: c.globs(exchange, pattern),
		done: make(chan struct{}), turn: make(chan struct{}, 1), heard: earshot.New[string]()}
	c.mu.Lock()
	for _, g := range l.globs {
		if c.listeners[g] == nil {
			c.listeners[g] = map[*listener]struct{}{}
		}
		c.listeners[g][l] = struct{}{}
	}
	c.mu.Unlock()
	if err := c.ears.Add(ctx, l.globs...); err != nil {
		c.forget(l)
		return nil, fmt.Errorf("listen to %q: %w", exchange, fault(ctx, err))
	}
	return l, nil
}

// globs are the patterns to subscribe: the channel without a routing key, where
// that can match, and those with one that begins as the pattern does.
func (c *Conn) globs(exchange, pattern string) []string {
	base := globEscape(c.keys.fanout + exchange)
	if !c.keys.patterns {
		return []string{base}
	}
	literal := pattern
	if i := strings.IndexAny(pattern, "*#"); i >= 0 {
		literal = pattern[:i]
		if pattern[i] == '#' { // also stands for nothing, without the dot
			literal = strings.TrimSuffix(literal, ".")
		}
	} else if pattern != "" {
		return []string{base + "/" + globEscape(pattern)}
	}
	if literal == "" {
		if pattern == "" {
			return []string{base}
		}
		return []string{base, base + "/*"}
	}
	return []string{base + "/" + globEscape(literal) + "*"}
}

func globEscape(s string) string {
	if !strings.ContainsAny(s, `*?[]^\`) {
		return s
	}
	var b strings.Builder
	for _, r := range s {
		if strings.ContainsRune(`*?[]^\`, r) {
			b.WriteByte('\\')
		}
		b.WriteRune(r)
	}
	return b.String()
}

// heard hands a message to those who listen by the pattern it came for.
func (c *Conn) heard(glob, _, payload string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for l := range c.listeners[glob] {
		l.heard.Put(payload)
	}
}

func (c *Conn) forget(l *listener) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, g := range l.globs {
		delete(c.listeners[g], l)
		if len(c.listeners[g]) == 0 {
			delete(c.listeners, g)
		}
	}
}

// listener keeps what was broadcast until Next takes it.
type listener struct {
	conn              *Conn
	exchange, pattern string
	globs             []string
	done, turn        chan struct{}
	heard             *earshot.Buffer[string]

	mu    sync.Mutex
	ended bool
}

// next waits for what was published. What is empty only asks who listens.
func (l *listener) next(ctx context.Context) (payload string, err error) {
	for {
		select {
		case <-l.done:
			return "", l.errClosed()
		default:
		}
		for payload, ok := l.heard.Take(); ok; payload, ok = l.heard.Take() {
			if payload != "" {
				return payload, nil
			}
		}
		select {
		case <-l.heard.Bell():
		case <-l.done:
			return "", l.errClosed()
		case <-ctx.Done():
			return "", context.Cause(ctx)
		}
	}
}

// Next waits for the next message that the pattern matches.
func (l *listener) Next(ctx context.Context) (broker.Delivery, error) {
	select {
	case l.turn <- struct{}{}:
		defer func() { <-l.turn }()
	case <-l.done:
		return broker.Delivery{}, l.errClosed()
	case <-ctx.Done():
		return broker.Delivery{}, context.Cause(ctx)
	}
	for {
		payload, err := l.next(ctx)
		if err != nil {
			return broker.Delivery{}, err
		}
		cl := claim{raw: payload}
		d := cl.delivery()
		d.Claim = nil
		if d.Malformed != nil || broker.MatchTopic(l.pattern, d.RoutingKey) || !l.conn.keys.patterns {
			return d, nil
		}
	}
}

// Missed counts what was lost because the listener did not keep up. What is
// broadcast while the connection is away is not known, and not counted.
func (l *listener) Missed() int64 { return l.heard.Missed() }

// Close ends the subscription. Closing twice is no error.
func (l *listener) Close() error {
	if !l.end() {
		return nil
	}
	l.conn.forget(l)
	ctx, cancel := context.WithTimeout(context.Background(), l.conn.rdb.Timeout)
	defer cancel()
	if err := l.conn.ears.Remove(ctx, l.globs...); err != nil && l.conn.alive() == nil {
		return fmt.Errorf("stop listening to %q: %w", l.exchange, fault(ctx, err))
	}
	return nil
}

// end wakes who waits; it reports whether it was the first to.
func (l *listener) end() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.ended {
		return false
	}
	l.ended = true
	close(l.done)
	return true
}

func (l *listener) errClosed() error {
	return fmt.Errorf("redis broker %s: listener of %q: %w", l.conn.rdb.ID, l.exchange, broker.ErrClosed)
}
