package redisbroker

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/lovage-go/lovage/broker"
	"github.com/lovage-go/lovage/internal/redisconn"
	"github.com/redis/rueidis"
)

// pushBytes and pushItems bound one LPUSH of many messages.
const (
	pushBytes = 1 << 20
	pushItems = 500
)

// push is one command with messages for one list.
type push struct {
	list  string
	raws  []string
	bytes int
	msgs  []int // positions
}

// Publish pushes messages, those for one list together, and parks those that
// are not due. A lost connection can leave it open whether they arrived.
func (c *Conn) Publish(ctx context.Context, msgs ...*broker.Message) error {
	if err := c.alive(); err != nil {
		return err
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if len(msgs) == 1 {
		return c.publishOne(ctx, msgs[0])
	}
	var (
		errs   = make([]error, len(msgs))
		pushes []*push
		open   = map[string]*push{}
		rest   []change
		later  []int // positions of what goes by the script
	)
	for i, m := range msgs {
		t, raw, err := c.prepare(ctx, m)
		if errs[i] = err; err != nil {
			continue
		}
		if !m.NotBefore.IsZero() || t.channel != "" {
			rest = c.gather(rest, m, t, raw)
			later = append(later, i)
			continue
		}
		for _, q := range t.queues {
			list := c.keys.list(q, priorityOf(m))
			p := open[list]
			if p == nil || p.bytes+len(raw) > pushBytes || len(p.raws) >= pushItems {
				p = &push{list: list}
				open[list] = p
				pushes = append(pushes, p)
			}
			p.raws = append(p.raws, raw)
			p.bytes += len(raw)
			p.msgs = append(p.msgs, i)
		}
	}
	c.send(ctx, pushes, errs)
	if len(later) > 0 {
		err := c.commit(ctx, rest)
		for _, i := range later {
			errs[i] = err
		}
	}
	return collapse(errs)
}

// collapse gives one error if all failed by it, which a caller may retry as one.
func collapse(errs []error) error {
	err := broker.Batch(errs)
	if err == nil {
		return nil
	}
	for _, e := range errs {
		if e == nil || !broker.Retryable(e) {
			return err
		}
	}
	return errs[0]
}

func (c *Conn) publishOne(ctx context.Context, m *broker.Message) error {
	t, raw, err := c.prepare(ctx, m)
	if err != nil {
		return err
	}
	if !m.NotBefore.IsZero() || t.channel != "" || len(t.queues) > 1 {
		return c.commit(ctx, c.gather(nil, m, t, raw))
	}
	if len(t.queues) == 0 {
		return nil
	}
	limited, cancel := c.rdb.Deadline(ctx)
	defer cancel()
	key := c.keys.prefix + c.keys.list(t.queues[0], priorityOf(m))
	if err := c.rdb.Do(limited, c.rdb.B().Lpush().Key(key).Element(raw).Build()).Error(); err != nil {
		return fmt.Errorf("publish message %s: %w", m.Headers.ID, fault(ctx, err))
	}
	return nil
}

func (c *Conn) send(ctx context.Context, pushes []*push, errs []error) {
	if len(pushes) == 0 {
		return
	}
	limited, cancel := c.rdb.Deadline(ctx)
	defer cancel()
	cmds := make(rueidis.Commands, len(pushes))
	for i, p := range pushes {
		cmds[i] = c.rdb.B().Lpush().Key(c.keys.prefix + p.list).Element(p.raws...).Build()
	}
	for i, r := range c.rdb.DoMulti(limited, cmds...) {
		if err := r.Error(); err != nil {
			for _, at := range pushes[i].msgs {
				errs[at] = fmt.Errorf("publish to queue %q: %w", c.keys.queueOf(pushes[i].list), fault(ctx, err))
			}
		}
	}
}

// prepare routes and encodes a message, before anything is sent.
func (c *Conn) prepare(ctx context.Context, m *broker.Message) (t target, raw string, err error) {
	if len(m.Body) > c.maxBody {
		return t, "", fmt.Errorf("message %s has a body of %d bytes, the limit is %d: send a reference to the data or raise the limit: %w",
			m.Headers.ID, len(m.Body), c.maxBody, broker.ErrTooLarge)
	}
	if t, err = c.route(ctx, m); err != nil {
		return t, "", err
	}
	if len(t.queues) == 0 && t.channel == "" {
		c.log.Warn("message dropped, no queue takes it", "id", m.Headers.ID, "task", m.Headers.Task,
			"exchange", m.Exchange, "routing_key", m.RoutingKey)
		return t, "", nil
	}
	if err := c.learn(ctx, t.queues); err != nil {
		return t, "", err
	}
	return t, c.encode(m), nil
}

func (c *Conn) encode(m *broker.Message) string {
	b := make([]byte, 0, 900+len(m.Body)*4/3+len(m.Headers.ArgsRepr)+len(m.Headers.KwargsRepr))
	return rueidis.BinaryString(c.appendEnvelope(b, m)) // nobody writes to b again
}

// learn puts queues into the set of known ones, each once for a connection.
func (c *Conn) learn(ctx context.Context, queues []string) error {
	for _, q := range queues {
		if err := c.keys.check(q); err != nil {
			return err
		}
		c.mu.Lock()
		known := c.known[q]
		c.mu.Unlock()
		if known {
			continue
		}
		limited, cancel := c.rdb.Deadline(ctx)
		err := c.rdb.Do(limited, c.rdb.B().Sadd().Key(c.keys.queues).Member(q).Build()).Error()
		cancel()
		if err != nil {
			return fmt.Errorf("publish to queue %q: %w", q, fault(ctx, err))
		}
		c.mu.Lock()
		c.known[q] = true
		c.mu.Unlock()
	}
	return nil
}

func priorityOf(m *broker.Message) int {
	if m.Properties.Priority == nil {
		return 0
	}
	return *m.Properties.Priority
}

// gather adds the publishing of a message to changes: one for all messages, or
// in a cluster one for each queue.
func (c *Conn) gather(changes []change, m *broker.Message, t target, raw string) []change {
	if sh := c.keys.whole; sh != nil {
		if len(changes) == 0 {
			changes = []change{{shard: sh}}
		}
		changes[0].add(c, m, t, raw)
		return changes
	}
	for _, q := range t.queues {
		ch := change{shard: c.keys.shard(q)}
		ch.add(c, m, target{queues: []string{q}, fanout: t.fanout}, raw)
		changes = append(changes, ch)
	}
	if t.channel != "" { // by any slot: the cluster tells all its nodes
		var ch change
		ch.op("B", t.channel, raw)
		changes = append(changes, ch)
	}
	return changes
}

// commit applies changes that end no claim.
func (c *Conn) commit(ctx context.Context, changes []change) error {
	for _, ch := range changes {
		if ch.shard == nil {
			limited, cancel := c.rdb.Deadline(ctx)
			err := c.rdb.Do(limited, c.rdb.B().Publish().Channel(ch.args[1]).Message(ch.args[2]).Build().SetSlot(fanoutHome)).Error()
			cancel()
			if err != nil {
				return fault(ctx, err)
			}
			continue
		}
		if _, err := c.apply(ctx, ch.shard, []change{ch}); err != nil {
			return err
		}
	}
	return nil
}

// change is what apply.lua does as a whole.
type change struct {
	shard *shard // nil: a broadcast alone
	field string // of the claim that it ends; empty for none
	claim *claim // nil: nobody will ask what became of it
	ops   int
	args  []string
	bytes int
	ends  []*broker.ChordEnd
	// success is set for what most changes are, by which they cost the server half:
	// no operations, but a success to keep for a time. args are its key and document.
	success bool
	keep    time.Duration
}

// appendChanges appends what the script reads of changes: successes that are kept
// for the same time, one after the other, as a row.
func appendChanges(args []string, changes []change) []string {
	for len(changes) > 0 {
		ch := &changes[0]
		n := 0
		for n < len(changes) && changes[n].success && changes[n].keep == ch.keep {
			n++
		}
		if n == 0 {
			args = append(append(args, ch.field, strconv.Itoa(ch.ops)), ch.args...)
			changes = changes[1:]
			continue
		}
		args = append(args, "S", strconv.Itoa(n), redisconn.Milliseconds(ch.keep))
		for i := range changes[:n] {
			args = append(append(args, changes[i].field), changes[i].args...)
		}
		changes = changes[n:]
	}
	return args
}

func (ch *change) op(args ...string) {
	ch.ops++
	ch.args = append(ch.args, args...)
	for _, a := range args {
		ch.bytes += len(a)
	}
}

// add adds the publishing of a message.
func (ch *change) add(c *Conn, m *broker.Message, t target, raw string) {
	for _, q := range t.queues {
		list := c.keys.list(q, priorityOf(m))
		if t.fanout {
			ch.op("H", q, token(raw))
		}
		switch {
		case m.NotBefore.IsZero():
			ch.op("L", list, raw)
		case m.Headers.ETA != "":
			ch.op("T", q, list, due(m.NotBefore), raw)
		default:
			ch.op("P", q, list, due(m.NotBefore), raw)
		}
	}
	if t.channel != "" {
		ch.op("B", t.channel, raw)
	}
}

// end adds the end of a chord, with what happens if no other ended it before.
func (ch *change) end(k redisconn.ChordKeys, e *broker.ChordEnd, then *change) {
	ch.op("E", k.End, k.Parts, k.Added, k.Size, redisconn.Milliseconds(redisconn.EndFor(e.Keep)), strconv.Itoa(then.ops))
	ch.ops += then.ops
	ch.args = append(ch.args, then.args...)
	ch.bytes += then.bytes
	ch.ends = append(ch.ends, e)
}

// due is a time in ms, rounded up: no message comes before its time.
func due(t time.Time) string {
	ms := t.UnixMilli()
	if t.Nanosecond()%int(time.Millisecond) != 0 {
		ms++
	}
	return strconv.FormatInt(ms, 10)
}

// applyChanges and applyBytes bound one script.
const (
	applyChanges = 200
	applyBytes   = 4 << 20
)

// apply applies changes to one shard, many in one script, and tells which were: a
// change is not if its claim had ended. After an error some may be and some not.
func (c *Conn) apply(ctx context.Context, sh *shard, changes []change) (done []bool, err error) {
	done = make([]bool, 0, len(changes))
	for len(changes) > 0 {
		n, bytes, words, ends := 0, 0, 7, false
		for n < len(changes) && n < applyChanges && (n == 0 || bytes+changes[n].bytes <= applyBytes) {
			bytes += changes[n].bytes
			words += 2 + len(changes[n].args)
			ends = ends || changes[n].claim != nil
			n++
		}
		var at attempt
		if ends {
			at = c.attempts.next(sh)
		}
		args := append(make([]string, 0, words), sh.unacked, sh.index, c.keys.prefix, sh.home, sh.spread, at.key, at.value)
		args = appendChanges(args, changes[:n])
		limited, cancel := c.rdb.Deadline(ctx)
		out, err := c.exec(limited, applyScript, sh, args).AsIntSlice()
		cancel()
		if err != nil {
			err = fault(ctx, err)
			c.attempts.failed(at, changes[:n], err)
			return done, err
		}
		c.attempts.answered(at)
		for _, ch := range changes[:n] {
			if len(out) < 1+len(ch.ends) {
				return done, errors.New("redisbroker: the script told less than was asked")
			}
			done = append(done, out[0] == 1)
			for i, e := range ch.ends {
				e.Won = out[1+i] == 1
			}
			out = out[1+len(ch.ends):]
		}
		changes = changes[n:]
	}
	return done, nil
}
