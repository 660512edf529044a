package redisbroker

import (
	"context"
	"encoding/json"
	"fmt"
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
	id   string
	head deadHead
	raw  string
}

// DeadLetters lists newest first, those of all queues if queue is empty.
func (c *Conn) DeadLetters(ctx context.Context, queue, after string, limit int) ([]broker.Dead, error) {
	key, from := c.keys.deadIndex, "+inf"
	if queue != "" {
		key = c.keys.deadOf(queue)
	}
	if after != "" {
		if _, err := strconv.ParseUint(after, 10, 64); err != nil {
			return nil, fmt.Errorf("dead letter %q: ids are numbers", after)
		}
		from = "(" + after
	}
	limited, cancel := c.rdb.Deadline(ctx)
	defer cancel()
	ids, err := c.rdb.Do(limited, c.rdb.B().Zrevrangebyscore().Key(key).Max(from).Min("-inf").Limit(0, int64(limit)).Build()).AsStrSlice()
	if err != nil {
		return nil, fault(ctx, err)
	}
	letters, err := c.letters(ctx, ids)
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
	letters, err := c.letters(ctx, []string{id})
	if err != nil {
		return broker.Dead{}, err
	}
	if len(letters) == 0 {
		return broker.Dead{}, fmt.Errorf("there is no dead letter %s: list them to see the ids", id)
	}
	return letters[0].dead(), nil
}

// letters reads those that are there.
func (c *Conn) letters(ctx context.Context, ids []string) ([]letter, error) {
	if len(ids) == 0 {
		return nil, nil
	}
	limited, cancel := c.rdb.Deadline(ctx)
	defer cancel()
	values, err := c.rdb.Do(limited, c.rdb.B().Hmget().Key(c.keys.dead).Field(ids...).Build()).ToArray()
	if err != nil {
		return nil, fault(ctx, err)
	}
	out := make([]letter, 0, len(ids))
	for i, v := range values {
		text, err := v.ToString()
		if rueidis.IsRedisNil(err) {
			continue
		}
		if err != nil {
			return nil, fault(ctx, err)
		}
		l := letter{id: ids[i]}
		var head string
		head, l.raw, _ = strings.Cut(text, "\n")
		if err := json.Unmarshal([]byte(head), &l.head); err != nil {
			return nil, fmt.Errorf("dead letter %s: its first line: %w", ids[i], err)
		}
		out = append(out, l)
	}
	return out, nil
}

func (l *letter) dead() broker.Dead {
	d := broker.Dead{ID: l.id, Queue: l.head.Queue, Reason: l.head.Reason, At: time.UnixMilli(l.head.At), Losses: l.head.Losses}
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
	letters, err := c.letters(ctx, ids)
	if err != nil {
		return 0, err
	}
	for i := range letters {
		l := &letters[i]
		list, raw := to(l)
		limited, cancel := c.rdb.Deadline(ctx)
		done, err := undeadScript.Exec(limited, c.rdb, []string{c.keys.dead, c.keys.deadIndex, c.keys.deadOf(l.head.Queue)}, []string{l.id, list, raw}).AsInt64()
		cancel()
		if err != nil {
			return n, fault(ctx, err)
		}
		n += int(done)
	}
	return n, nil
}

func itoa(n int) string { return strconv.Itoa(n) }
