package redisbroker

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/lovage-go/lovage/broker"
	"github.com/lovage-go/lovage/protocol"
	"github.com/redis/rueidis"
)

// deadHead is the first line of a stored dead letter; the raw message follows.
type deadHead struct {
	At     int64  `json:"at,omitempty"` // ms, by the server's clock
	Queue  string `json:"queue"`
	List   string `json:"list"`
	Reason string `json:"reason"`
	Losses int    `json:"losses,omitempty"`
}

// letter is a stored dead letter.
type letter struct {
	shard *shard
	id    string // in its shard
	queue string // of the shard, in a cluster
	head  deadHead
	raw   string
}

// number orders the letters of all shards.
func (l *letter) number() uint64 {
	n, _ := strconv.ParseUint(l.id, 10, 64)
	return n
}

// find takes an id apart: a number, and in a cluster @ and the queue.
func (c *Conn) find(id string) (letter, error) {
	l := letter{shard: c.keys.whole, id: id}
	found := true
	if l.shard == nil {
		if l.id, l.queue, found = strings.Cut(id, "@"); found {
			l.shard = c.keys.shard(l.queue)
		}
	}
	if _, err := strconv.ParseUint(l.id, 10, 64); err != nil || !found {
		return l, fmt.Errorf("dead letter %q: ids are numbers, in a Redis Cluster with @ and the queue", id)
	}
	return l, nil
}

// DeadLetters lists newest first, those of all queues if queue is empty.
func (c *Conn) DeadLetters(ctx context.Context, queue, after string, limit int) ([]broker.Dead, error) {
	var (
		last  letter
		parts []portion
		err   error
	)
	if after != "" {
		if last, err = c.find(after); err != nil {
			return nil, err
		}
	}
	limited, cancel := c.rdb.Deadline(ctx)
	defer cancel()
	if queue != "" {
		parts = c.keys.portions([]string{queue})
	} else if parts, err = c.shards(limited); err != nil {
		return nil, err
	}
	var cmds rueidis.Commands
	for _, p := range parts {
		key, from := p.deadIndex, "+inf"
		if queue != "" {
			key = p.deadOf(queue)
		}
		if after != "" {
			from = "(" + last.id
			if c.keys.spread && p.queues[0] > last.queue { // comes after the same number of another queue
				from = last.id
			}
		}
		cmds = append(cmds, c.rdb.B().Zrevrangebyscore().Key(key).Max(from).Min("-inf").Limit(0, int64(limit)).Build())
	}
	var found []letter
	for i, r := range c.rdb.DoMulti(limited, cmds...) {
		ids, err := r.AsStrSlice()
		if err != nil {
			return nil, fault(ctx, err)
		}
		for _, id := range ids {
			l := letter{shard: parts[i].shard, id: id}
			if c.keys.spread {
				l.queue = parts[i].queues[0]
			}
			found = append(found, l)
		}
	}
	if len(parts) > 1 {
		slices.SortFunc(found, func(a, b letter) int {
			return cmp.Or(cmp.Compare(b.number(), a.number()), cmp.Compare(a.queue, b.queue))
		})
		found = found[:min(limit, len(found))]
	}
	letters, err := c.letters(limited, found)
	if err != nil {
		return nil, err
	}
	out := make([]broker.Dead, len(letters))
	for i := range letters {
		out[i] = letters[i].dead()
	}
	return out, nil
}

// DeadLetter gives one.
func (c *Conn) DeadLetter(ctx context.Context, id string) (broker.Dead, error) {
	l, err := c.find(id)
	if err != nil {
		return broker.Dead{}, err
	}
	letters, err := c.letters(ctx, []letter{l})
	if err != nil {
		return broker.Dead{}, err
	}
	if len(letters) == 0 {
		return broker.Dead{}, fmt.Errorf("there is no dead letter %s: list them to see the ids", id)
	}
	return letters[0].dead(), nil
}

// letters reads those that are there.
func (c *Conn) letters(ctx context.Context, wanted []letter) ([]letter, error) {
	if len(wanted) == 0 {
		return nil, nil
	}
	cmds := make(rueidis.Commands, len(wanted))
	for i, l := range wanted {
		cmds[i] = c.rdb.B().Hget().Key(l.shard.dead).Field(l.id).Build()
	}
	limited, cancel := c.rdb.Deadline(ctx)
	defer cancel()
	out := make([]letter, 0, len(wanted))
	for i, r := range c.rdb.DoMulti(limited, cmds...) {
		text, err := r.ToString()
		if rueidis.IsRedisNil(err) {
			continue
		}
		if err != nil {
			return nil, fault(ctx, err)
		}
		l := wanted[i]
		var head string
		head, l.raw, _ = strings.Cut(text, "\n")
		if err := json.Unmarshal([]byte(head), &l.head); err != nil {
			return nil, fmt.Errorf("dead letter %s: its first line: %w", l.id, err)
		}
		out = append(out, l)
	}
	return out, nil
}

func (l *letter) dead() broker.Dead {
	id := l.id
	if l.queue != "" {
		id += "@" + l.queue
	}
	d := broker.Dead{ID: id, Queue: l.head.Queue, Reason: l.head.Reason, At: time.UnixMilli(l.head.At), Losses: l.head.Losses}
	e, err := parseEnvelope(l.raw)
	if err != nil { // which is what made some of them dead: shown as it is
		d.Body = []byte(l.raw)
		return d
	}
	d.Headers, d.Properties, d.Body = e.deliveredHeaders(), e.props, e.body
	d.TaskID = e.props.CorrelationID
	if h, err := protocol.ParseHeaders(d.Headers); err == nil {
		d.Task = h.Task
		if h.ID != "" {
			d.TaskID = h.ID
		}
	}
	return d
}

// RequeueDead sends letters back to their queues without their marks.
func (c *Conn) RequeueDead(ctx context.Context, ids ...string) (int, error) {
	return c.undead(ctx, ids, func(l *letter) (list, raw string) {
		return c.keys.prefix + l.head.List, mark(l.raw, marks{})
	})
}

// DropDead deletes letters.
func (c *Conn) DropDead(ctx context.Context, ids ...string) (int, error) {
	return c.undead(ctx, ids, func(*letter) (string, string) { return "", "" })
}

func (c *Conn) undead(ctx context.Context, ids []string, to func(*letter) (list, raw string)) (n int, err error) {
	var wanted []letter
	for _, id := range ids {
		if l, err := c.find(id); err == nil { // what is no id is none that is there
			wanted = append(wanted, l)
		}
	}
	letters, err := c.letters(ctx, wanted)
	if err != nil {
		return 0, err
	}
	for i := range letters {
		l := &letters[i]
		keys := []string{l.shard.dead, l.shard.deadIndex, l.shard.deadOf(l.head.Queue)}
		list, raw := to(l)
		if list != "" {
			keys = append(keys, list)
		}
		limited, cancel := c.rdb.Deadline(ctx)
		done, err := undeadScript.Exec(limited, c.rdb, keys, []string{l.id, raw}).AsInt64()
		cancel()
		if err != nil {
			return n, fault(ctx, err)
		}
		n += int(done)
	}
	return n, nil
}

func itoa(n int) string { return strconv.Itoa(n) }
