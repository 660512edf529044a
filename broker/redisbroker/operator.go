package redisbroker

import (
	"context"
	"slices"
	"strings"
	"time"

	"github.com/lovage-go/lovage/broker"
	"github.com/redis/rueidis"
)

// Purge deletes what waits in a queue, ready and parked, at once.
func (c *Conn) Purge(ctx context.Context, queue string) (int, error) {
	limited, cancel := c.rdb.Deadline(ctx)
	defer cancel()
	sh := c.keys.shard(queue)
	keys := append([]string{sh.parked(queue), sh.parkedRaw(queue)}, c.keys.lists(queue)...)
	n, err := purgeScript.Exec(limited, c.rdb, keys, nil).AsInt64()
	return int(n), fault(ctx, err)
}

// Lengths counts queues. Without names it counts those that a Go program has
// declared or published to. Parked messages that are due count as delayed until
// somebody consumes from their queue. Counting claims reads the claims of all.
func (c *Conn) Lengths(ctx context.Context, queues ...string) (map[string]broker.Length, error) {
	limited, cancel := c.rdb.Deadline(ctx)
	defer cancel()
	if len(queues) == 0 {
		var err error
		if queues, err = c.everyQueue(limited); err != nil {
			return nil, err
		}
	}
	var cmds rueidis.Commands
	for _, q := range queues {
		for _, l := range c.keys.lists(q) {
			cmds = append(cmds, c.rdb.B().Llen().Key(l).Build())
		}
		sh := c.keys.shard(q)
		cmds = append(cmds, c.rdb.B().Zcard().Key(sh.parked(q)).Build(), c.rdb.B().Zcard().Key(sh.deadOf(q)).Build())
	}
	out := make(map[string]broker.Length, len(queues))
	if len(cmds) == 0 {
		return out, nil
	}
	counts := make([]int, len(cmds))
	for i, r := range c.rdb.DoMulti(limited, cmds...) {
		n, err := r.AsInt64()
		if err != nil {
			return nil, fault(ctx, err)
		}
		counts[i] = int(n)
	}
	per := len(c.keys.steps) + 2
	for i, q := range queues {
		of := counts[i*per : (i+1)*per]
		l := broker.Length{Delayed: of[per-2], Dead: of[per-1]}
		for _, n := range of[:per-2] {
			l.Ready += n
		}
		out[q] = l
	}
	for _, p := range c.keys.portions(queues) {
		if err := c.countClaimed(limited, p.shard, out); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// countClaimed adds the claims of Go consumers, whose fields name their list,
// and of Python's, whose records end with the routing key.
func (c *Conn) countClaimed(ctx context.Context, sh *shard, into map[string]broker.Length) error {
	add := func(list string) {
		q := c.keys.queueOf(list)
		if l, ok := into[q]; ok {
			l.Claimed++
			into[q] = l
		}
	}
	for cursor := uint64(0); ; {
		page, err := c.rdb.Do(ctx, c.rdb.B().Zscan().Key(sh.index).Cursor(cursor).Count(1000).Build()).AsScanEntry()
		if err != nil {
			return fault(ctx, err)
		}
		var others []string
		for i := 0; i+1 < len(page.Elements); i += 2 {
			if _, list := number(page.Elements[i]); strings.HasPrefix(page.Elements[i], "lv1:") {
				add(list)
			} else {
				others = append(others, page.Elements[i])
			}
		}
		for batch := range slices.Chunk(others, 100) {
			records, err := c.rdb.Do(ctx, c.rdb.B().Hmget().Key(sh.unacked).Field(batch...).Build()).ToArray()
			if err != nil {
				return fault(ctx, err)
			}
			for _, r := range records {
				record, err := r.ToString()
				if err != nil {
					continue
				}
				text := strings.TrimSuffix(record, `"]`)
				add(text[strings.LastIndex(text, `"`)+1:])
			}
		}
		if cursor = page.Cursor; cursor == 0 {
			return nil
		}
	}
}

// Peek lists waiting messages, next one first, the parked ones last.
func (c *Conn) Peek(ctx context.Context, queue string, offset, limit int) ([]broker.Delivery, error) {
	limited, cancel := c.rdb.Deadline(ctx)
	defer cancel()
	sh := c.keys.shard(queue)
	var out []broker.Delivery
	add := func(raw string) {
		cl := claim{raw: raw, queue: queue}
		d := cl.delivery()
		d.Claim = nil
		out = append(out, d)
	}
	for _, l := range c.keys.lists(queue) {
		if len(out) == limit {
			return out, nil
		}
		n, err := c.rdb.Do(limited, c.rdb.B().Llen().Key(l).Build()).AsInt64()
		if err != nil {
			return nil, fault(ctx, err)
		}
		if int(n) <= offset {
			offset -= int(n)
			continue
		}
		raws, err := c.rdb.Do(limited, c.rdb.B().Lrange().Key(l).Start(int64(-offset-(limit-len(out)))).Stop(int64(-offset-1)).Build()).AsStrSlice()
		if err != nil {
			return nil, fault(ctx, err)
		}
		offset = 0
		for _, raw := range slices.Backward(raws) {
			add(raw)
		}
	}
	if len(out) == limit {
		return out, nil
	}
	ids, err := c.rdb.Do(limited, c.rdb.B().Zrange().Key(sh.parked(queue)).Min(itoa(offset)).Max(itoa(offset+limit-len(out)-1)).Build()).AsStrSlice()
	if err != nil || len(ids) == 0 {
		return out, fault(ctx, err)
	}
	raws, err := c.rdb.Do(limited, c.rdb.B().Hmget().Key(sh.parkedRaw(queue)).Field(ids...).Build()).ToArray()
	if err != nil {
		return nil, fault(ctx, err)
	}
	for _, r := range raws {
		if raw, err := r.ToString(); err == nil {
			add(raw)
		}
	}
	return out, nil
}

// PeekDelayed lists the parked messages, the one that is due first in front.
func (c *Conn) PeekDelayed(ctx context.Context, queue string, offset, limit int) ([]broker.Delayed, error) {
	limited, cancel := c.rdb.Deadline(ctx)
	defer cancel()
	sh := c.keys.shard(queue)
	if limit <= 0 {
		return nil, nil
	}
	places, err := c.rdb.Do(limited, c.rdb.B().Zrange().Key(sh.parked(queue)).Min(itoa(offset)).Max(itoa(offset+limit-1)).Withscores().Build()).AsZScores()
	if err != nil || len(places) == 0 {
		return nil, fault(ctx, err)
	}
	ids := make([]string, len(places))
	for i, p := range places {
		ids[i] = p.Member
	}
	raws, err := c.rdb.Do(limited, c.rdb.B().Hmget().Key(sh.parkedRaw(queue)).Field(ids...).Build()).ToArray()
	if err != nil {
		return nil, fault(ctx, err)
	}
	var out []broker.Delayed
	for i, r := range raws {
		raw, err := r.ToString()
		if err != nil {
			continue // it has fallen due since
		}
		cl := claim{raw: raw, queue: queue}
		d := cl.delivery()
		d.Claim = nil
		out = append(out, broker.Delayed{Delivery: d, Due: time.UnixMilli(int64(places[i].Score))})
	}
	return out, nil
}

// unparkBatch is how many parked messages one script gives back.
const unparkBatch = 1000

// Unpark gives the parked messages of a queue back as plain ones with their ETA,
// for Python workers to hold. A Go consumer that lives parks them again.
func (c *Conn) Unpark(ctx context.Context, queue string) (int, error) {
	if err := c.alive(); err != nil {
		return 0, err
	}
	return c.unpark(ctx, queue, "", true)
}

// unpark is what the last Go consumer of a queue does when it leaves, if there
// are Python workers about.
func (c *Conn) unpark(ctx context.Context, queue, leaving string, force bool) (total int, err error) {
	sh, python := c.keys.shard(queue), c.keys.binding("celery.pidbox")
	if c.keys.spread {
		python = "" // knows no clusters
	}
	keys := append([]string{sh.parked(queue), sh.parkedRaw(queue), sh.consumers(queue)}, c.keys.lists(queue)...)
	for {
		limited, cancel := c.rdb.Deadline(ctx)
		n, err := unparkScript.Exec(limited, c.rdb, keys,
			[]string{c.keys.prefix, itoa(unparkBatch), leaving, flag(force), python}).AsInt64()
		cancel()
		total += int(n)
		if err != nil || n < unparkBatch {
			return total, fault(ctx, err)
		}
	}
}

// Pause stops deliveries from a queue to Go consumers; kombu knows no pause.
func (c *Conn) Pause(ctx context.Context, queue string) error {
	limited, cancel := c.rdb.Deadline(ctx)
	defer cancel()
	if c.keys.spread { // where Paused looks
		if err := c.learn(limited, []string{queue}); err != nil {
			return err
		}
	}
	return fault(ctx, c.rdb.Do(limited, c.rdb.B().Sadd().Key(c.keys.shard(queue).paused).Member(queue).Build()).Error())
}

// Resume starts them again.
func (c *Conn) Resume(ctx context.Context, queue string) error {
	limited, cancel := c.rdb.Deadline(ctx)
	defer cancel()
	return fault(ctx, c.rdb.Do(limited, c.rdb.B().Srem().Key(c.keys.shard(queue).paused).Member(queue).Build()).Error())
}

// Paused lists the paused queues by name.
func (c *Conn) Paused(ctx context.Context) ([]string, error) {
	limited, cancel := c.rdb.Deadline(ctx)
	defer cancel()
	parts, err := c.shards(limited)
	if err != nil {
		return nil, err
	}
	cmds := make(rueidis.Commands, len(parts))
	for i, p := range parts {
		cmds[i] = c.rdb.B().Smembers().Key(p.paused).Build()
	}
	var names []string
	for _, r := range c.rdb.DoMulti(limited, cmds...) {
		some, err := r.AsStrSlice()
		if err != nil {
			return nil, fault(ctx, err)
		}
		names = append(names, some...)
	}
	slices.Sort(names)
	return names, nil
}
