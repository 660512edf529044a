package redisbroker

import (
	"cmp"
	"context"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/lovage-go/lovage/broker"
	"github.com/redis/rueidis"
)

const (
	direct = "direct"
	topic  = "topic"
	fanout = "fanout"
)

// Declare writes the bindings of queues where kombu keeps them.
func (c *Conn) Declare(ctx context.Context, queues ...broker.Queue) error {
	if err := c.alive(); err != nil {
		return err
	}
	var cmds rueidis.Commands
	b := c.rdb.B
	for _, q := range queues {
		if q.Name == "" {
			return fmt.Errorf("declare queue: it has no name: %w", broker.ErrNoQueue)
		}
		if err := c.keys.check(q.Name); err != nil {
			return err
		}
		if q.NoDeclare {
			ok, err := c.exists(ctx, q.Name)
			if err == nil && !ok {
				err = fmt.Errorf("queue %q is marked no_declare and does not exist: %w", q.Name, broker.ErrNoQueue)
			}
			if err != nil {
				return err
			}
		}
		if !passing(q) {
			cmds = append(cmds, b().Sadd().Key(c.keys.queues).Member(q.Name).Build())
		}
		for _, bind := range bindings(q) {
			name, kind := bind.Exchange.Name, cmp.Or(bind.Exchange.Type, direct)
			if name == "" {
				continue
			}
			pattern := ""
			switch kind {
			case direct:
			case topic:
				pattern = kombuPattern(bind.RoutingKey)
			case fanout:
				if !passing(q) {
					cmds = append(cmds, b().Sadd().Key(c.keys.fanoutSet(name)).Member(q.Name).Build())
				}
			default:
				return fmt.Errorf("declare queue %q: exchange %q is of type %q, the Redis broker has direct, topic and fanout: %w",
					q.Name, name, kind, broker.ErrUnsupported)
			}
			cmds = append(cmds, b().Hset().Key(c.keys.exchanges).FieldValue().FieldValue(name, kind).Build())
			if !passing(q) { // else while it is consumed from
				cmds = append(cmds, b().Sadd().Key(c.keys.binding(name)).Member(c.keys.member(bind.RoutingKey, pattern, q.Name)).Build())
			}
		}
	}
	if len(cmds) == 0 {
		return nil
	}
	ctx, cancel := c.rdb.Deadline(ctx)
	defer cancel()
	for _, r := range c.rdb.DoMulti(ctx, cmds...) {
		if err := r.Error(); err != nil {
			return fmt.Errorf("declare queues: %w", fault(ctx, err))
		}
	}
	c.mu.Lock()
	for _, q := range queues {
		c.known[q.Name] = c.known[q.Name] || !passing(q)
	}
	c.mu.Unlock()
	return nil
}

// Bindings lists those of the exchanges that Go programs have declared, and of
// those named: kombu keeps no list of its exchanges.
func (c *Conn) Bindings(ctx context.Context, exchanges ...string) ([]broker.Bound, error) {
	if err := c.alive(); err != nil {
		return nil, err
	}
	limited, cancel := c.rdb.Deadline(ctx)
	defer cancel()
	known, err := c.rdb.Do(limited, c.rdb.B().Hkeys().Key(c.keys.exchanges).Build()).AsStrSlice()
	if err != nil {
		return nil, fmt.Errorf("list the exchanges: %w", fault(ctx, err))
	}
	exchanges = append(slices.Clone(exchanges), known...)
	slices.Sort(exchanges)
	exchanges = slices.Compact(exchanges)
	var cmds rueidis.Commands
	for _, name := range exchanges {
		cmds = append(cmds, c.rdb.B().Smembers().Key(c.keys.binding(name)).Build())
	}
	var list []broker.Bound
	for i, r := range c.rdb.DoMulti(limited, cmds...) {
		members, err := r.AsStrSlice()
		if err != nil {
			return nil, fmt.Errorf("list the bindings of exchange %q: %w", exchanges[i], fault(ctx, err))
		}
		for _, m := range members {
			if key, _, queue, ok := c.keys.parts(m); ok {
				list = append(list, broker.Bound{Queue: queue, Exchange: exchanges[i], RoutingKey: key})
			}
		}
	}
	return list, nil
}

// bindings are all of a queue.
func bindings(q broker.Queue) []broker.Binding {
	return append([]broker.Binding{{Exchange: q.Exchange, RoutingKey: q.RoutingKey}}, q.Bindings...)
}

// fanouts are the fanout exchanges that a queue is bound to.
func fanouts(q broker.Queue) (bound []broker.Binding) {
	for _, b := range bindings(q) {
		if b.Exchange.Type == fanout && b.Exchange.Name != "" {
			bound = append(bound, b)
		}
	}
	return bound
}

// passing reports whether a queue is there only while it is consumed from: one
// that deletes itself, on a fanout exchange. As with kombu, other queues stay.
func passing(q broker.Queue) bool {
	return (q.AutoDelete || q.Exclusive) && len(fanouts(q)) > 0
}

// kombuPattern is the regular expression that kombu keeps beside a topic pattern.
func kombuPattern(pattern string) string {
	words := strings.Split(pattern, ".")
	for i, w := range words {
		switch w {
		case "*":
			words[i] = `.*?[^\.]`
		case "#":
			words[i] = `.*?`
		default:
			words[i] = regexp.QuoteMeta(w)
		}
	}
	return "^" + strings.Join(words, `\.`) + "$"
}

// exists reports whether a queue was declared or has messages.
func (c *Conn) exists(ctx context.Context, queue string) (bool, error) {
	c.mu.Lock()
	known := c.known[queue]
	c.mu.Unlock()
	if known {
		return true, nil
	}
	ctx, cancel := c.rdb.Deadline(ctx)
	defer cancel()
	for _, r := range c.rdb.DoMulti(ctx,
		c.rdb.B().Sismember().Key(c.keys.queues).Member(queue).Build(),
		c.rdb.B().Exists().Key(c.keys.lists(queue)...).Build(),
		c.rdb.B().Exists().Key(c.keys.binding(queue)).Build()) {
		n, err := r.AsInt64()
		if err != nil {
			return false, fault(ctx, err)
		}
		if n > 0 {
			return true, nil
		}
	}
	return false, nil
}

// target is where a message goes.
type target struct {
	queues  []string
	channel string // of a fanout exchange, for those who only listen
	fanout  bool   // queues hear the channel as well
}

// route finds the queues that take a message; none is no error unless it is
// mandatory. The anonymous exchange knows every queue by its name; what no
// binding takes goes to the queue that the sender named.
func (c *Conn) route(ctx context.Context, m *broker.Message) (t target, err error) {
	name := m.Queue
	if m.Exchange == "" {
		name = cmp.Or(name, m.RoutingKey)
	} else if t, err = c.bound(ctx, m.Exchange, m.RoutingKey); err != nil || len(t.queues) > 0 || t.channel != "" {
		return t, err
	}
	if name != "" {
		ok := true
		if m.Mandatory {
			ok, err = c.exists(ctx, name)
		}
		if ok || err != nil {
			t.queues = []string{name}
			return t, err
		}
	}
	if m.Mandatory {
		err = fmt.Errorf("publish message %s: no queue takes exchange %q, routing key %q, queue %q: declare one or bind it: %w",
			m.Headers.ID, m.Exchange, m.RoutingKey, m.Queue, broker.ErrNoQueue)
	}
	return t, err
}

// bound looks the bindings of an exchange up. The type of one that only Python
// has declared shows in its bindings: those of a topic exchange have a pattern,
// and the channels of a fanout exchange have listeners, who do not mind a message
// that is empty.
func (c *Conn) bound(ctx context.Context, exchange, key string) (t target, err error) {
	ctx, cancel := c.rdb.Deadline(ctx)
	defer cancel()
	rs := c.rdb.DoMulti(ctx,
		c.rdb.B().Hget().Key(c.keys.exchanges).Field(exchange).Build(),
		c.rdb.B().Smembers().Key(c.keys.binding(exchange)).Build(),
		c.rdb.B().Smembers().Key(c.keys.fanoutSet(exchange)).Build())
	kind, err := rs[0].ToString()
	if err != nil && !rueidis.IsRedisNil(err) {
		return t, fault(ctx, err)
	}
	members, err := rs[1].AsStrSlice()
	if err != nil {
		return t, fault(ctx, err)
	}
	listed, err := rs[2].AsStrSlice()
	if err != nil {
		return t, fault(ctx, err)
	}
	if kind == "" && len(members) > 0 && !c.keys.spread {
		n, err := c.rdb.Do(ctx, c.rdb.B().Publish().Channel(c.keys.channel(exchange, key)).Message("").Build()).AsInt64()
		if err != nil {
			return t, fault(ctx, err)
		}
		if n > 0 {
			kind = fanout
		}
	}
	if kind == fanout {
		slices.Sort(listed)
		return target{queues: listed, channel: c.keys.channel(exchange, key), fanout: true}, nil
	}
	for _, m := range members {
		bound, pattern, queue, ok := c.keys.parts(m)
		if !ok {
			continue
		}
		hit := bound == key
		if kind == topic || pattern != "" {
			hit = broker.MatchTopic(bound, key)
		}
		if hit && !slices.Contains(t.queues, queue) {
			t.queues = append(t.queues, queue)
		}
	}
	slices.Sort(t.queues)
	return t, nil
}
