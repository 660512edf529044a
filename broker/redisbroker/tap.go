package redisbroker

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/lovage-go/lovage/broker"
	"github.com/lovage-go/lovage/internal/earshot"
	"github.com/redis/rueidis"
)

// tapBatch is how many messages one script puts into lists.
const tapBatch = 100

// tap listens to a fanout exchange for the queues of a consumer: kombu publishes
// on its channels and keeps no list. What it hears goes into the lists of the
// queues, once for each queue however many hear it, and is a message like others
// from there on.
type tap struct {
	conn     *Conn
	exchange string
	from     *listener

	mu     sync.Mutex
	queues []string
	missed int64 // that were told of
}

// tune makes the taps of a consumer those that its queues want. The caller holds
// cs.tuning.
func (cs *Consumer) tune(ctx context.Context, queues []broker.Queue) error {
	want := map[string][]string{}
	for _, q := range queues {
		for _, b := range fanouts(q) {
			if !slices.Contains(want[b.Exchange.Name], q.Name) {
				want[b.Exchange.Name] = append(want[b.Exchange.Name], q.Name)
			}
		}
	}
	var errs []error
	for exchange, names := range want {
		if t := cs.taps[exchange]; t != nil {
			t.mu.Lock()
			t.queues = names
			t.mu.Unlock()
			continue
		}
		l, err := cs.conn.listen(ctx, exchange, "#")
		if err != nil {
			return err
		}
		t := &tap{conn: cs.conn, exchange: exchange, from: l, queues: names}
		cs.taps[exchange] = t
		cs.tapping.Go(t.run)
	}
	for exchange, t := range cs.taps {
		if want[exchange] == nil {
			delete(cs.taps, exchange)
			errs = append(errs, t.from.Close())
		}
	}
	return errors.Join(errs...)
}

// run ends with the listener.
func (t *tap) run() {
	ctx := context.Background() // each round trip has its own end
	for {
		var heard []string
		first, err := t.from.next(ctx)
		if err == nil {
			heard = append(heard, first)
		}
		for len(heard) < tapBatch || err != nil {
			payload, ok := t.from.heard.Take()
			if !ok {
				break
			}
			if payload != "" {
				heard = append(heard, payload)
			}
		}
		if !t.keep(ctx, heard) || err != nil {
			return
		}
		if n := t.from.Missed(); n > t.missed {
			t.conn.log.Error("messages of a fanout exchange are lost: more were published than could be put into queues",
				"exchange", t.exchange, "lost", n-t.missed, "most", earshot.Most)
			t.missed = n
		}
	}
}

// keep puts what was heard into the lists, and tries until it is there or the
// listener is closed.
func (t *tap) keep(ctx context.Context, heard []string) bool {
	t.mu.Lock()
	queues := t.queues
	t.mu.Unlock()
	for _, p := range t.conn.keys.portions(queues) {
		var changes []change
		for _, raw := range heard {
			ch := change{shard: p.shard}
			priority := 0
			if e, err := parseEnvelope(raw); err == nil && e.props.Priority != nil {
				priority = *e.props.Priority
			}
			for _, q := range p.queues {
				ch.op("F", q, t.conn.keys.list(q, priority), raw, token(raw))
			}
			changes = append(changes, ch)
		}
		for pause := firstPoll; ; pause = min(2*pause, lastPoll) {
			_, err := t.conn.apply(ctx, p.shard, changes)
			if err == nil {
				break
			}
			if !broker.Retryable(err) {
				if t.conn.alive() == nil {
					t.conn.log.Error("messages of a fanout exchange are lost: they cannot be put into their queues",
						"exchange", t.exchange, "lost", len(heard), "error", err)
				}
				break
			}
			wait := time.NewTimer(pause)
			select {
			case <-wait.C:
			case <-t.from.done:
				wait.Stop()
				return false
			}
		}
	}
	return true
}

// token tells a message of a channel from all others.
func token(raw string) string {
	sum := sha256.Sum256([]byte(raw))
	return hex.EncodeToString(sum[:12])
}

// show binds the queues that are there only while they are consumed from, so that
// Python's producers that have not declared them find them.
func (c *Conn) show(ctx context.Context, queues []broker.Queue) error {
	var cmds rueidis.Commands
	for _, q := range queues {
		if !passing(q) {
			continue
		}
		cmds = append(cmds, c.rdb.B().Sadd().Key(c.keys.queues).Member(q.Name).Build())
		for _, b := range fanouts(q) {
			cmds = append(cmds, c.rdb.B().Sadd().Key(c.keys.binding(b.Exchange.Name)).Member(c.keys.member(b.RoutingKey, "", q.Name)).Build())
		}
	}
	return c.all(ctx, cmds)
}

// leave removes the queues that are not consumed from any more.
func (cs *Consumer) leave(ctx context.Context, before, after []broker.Queue) error {
	var left []broker.Queue
	for _, q := range before {
		if passing(q) && !slices.ContainsFunc(after, func(a broker.Queue) bool { return a.Name == q.Name }) {
			if _, err := cs.conn.unpark(ctx, q.Name, cs.token, false); err != nil {
				return err
			}
			left = append(left, q)
		}
	}
	return cs.conn.remove(ctx, left)
}

// remove deletes the queues that are there only while they are consumed from,
// with what is in them, unless another Go program consumes from one.
func (c *Conn) remove(ctx context.Context, queues []broker.Queue) error {
	var cmds rueidis.Commands
	for _, q := range queues {
		if !passing(q) {
			continue
		}
		sh := c.keys.shard(q.Name)
		n, err := c.rdb.Do(ctx, c.rdb.B().Zcard().Key(sh.consumers(q.Name)).Build()).AsInt64()
		if err != nil {
			return fault(ctx, err)
		}
		if n > 0 {
			continue
		}
		cmds = append(cmds, c.rdb.B().Srem().Key(c.keys.queues).Member(q.Name).Build())
		for _, b := range fanouts(q) {
			cmds = append(cmds, c.rdb.B().Srem().Key(c.keys.binding(b.Exchange.Name)).Member(c.keys.member(b.RoutingKey, "", q.Name)).Build())
		}
		cmds = append(cmds, c.rdb.B().Unlink().Key(append(c.keys.lists(q.Name), sh.parked(q.Name), sh.parkedRaw(q.Name))...).Build())
	}
	return c.all(ctx, cmds)
}

func (c *Conn) all(ctx context.Context, cmds rueidis.Commands) error {
	if len(cmds) == 0 {
		return nil
	}
	for _, r := range c.rdb.DoMulti(ctx, cmds...) {
		if err := r.Error(); err != nil {
			return fault(ctx, err)
		}
	}
	return nil
}
