package redisbroker

import (
	"cmp"
	"context"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/lovage-go/lovage/broker"
)

// renewBatch is how many claims one script renews.
const renewBatch = 1000

// RenewEvery is a third of the lease.
func (cs *Consumer) RenewEvery() time.Duration { return cs.lease / 3 }

// Renew extends the lease and re-scores the claims held, by the server's clock.
func (cs *Consumer) Renew(ctx context.Context, held []*broker.Delivery) (gone []*broker.Delivery, err error) {
	by := map[*identity][]*broker.Delivery{}
	cs.mu.Lock()
	closed := cs.closed
	for _, d := range held {
		cl, _ := d.Claim.(*claim)
		if _, running := cs.held[cl]; running && !closed {
			by[cl.id] = append(by[cl.id], d)
		} else {
			gone = append(gone, d)
		}
	}
	queues := map[*identity][]string{}
	for _, s := range cs.stands {
		queues[s.id] = s.plan.Load().queues
		if s.id.registered && by[s.id] == nil && !closed {
			by[s.id] = []*broker.Delivery{}
		}
	}
	// What is retired and holds nothing is left to lapse.
	cs.doubted = slices.DeleteFunc(cs.doubted, func(id *identity) bool { return by[id] == nil && !id.unsure })
	var unsure []*identity
	for _, id := range cs.doubted {
		if id.unsure && !closed {
			unsure = append(unsure, id)
		}
	}
	cs.mu.Unlock()
	for id, ds := range by {
		for first := true; first || len(ds) > 0; first = false {
			n := min(len(ds), renewBatch)
			lost, e := cs.renew(ctx, id, queues[id], ds[:n])
			gone = append(gone, lost...)
			if e != nil { // the other shards of a cluster may be well
				err = cmp.Or(err, e)
				break
			}
			ds = ds[n:]
		}
	}
	for _, id := range unsure {
		err = cmp.Or(err, cs.release(ctx, id))
	}
	if len(gone) > 0 {
		cs.mu.Lock()
		for _, d := range gone {
			if cl, ok := d.Claim.(*claim); ok {
				delete(cs.held, cl)
			}
		}
		cs.mu.Unlock()
	}
	return gone, err
}

// release gives back what a claim took whose answer was lost. The others of the
// identity would keep it claimed for as long as they are.
func (cs *Consumer) release(ctx context.Context, id *identity) error {
	limited, cancel := cs.conn.rdb.Deadline(ctx)
	defer cancel()
	if err := cs.conn.restoreAll(limited, id.shard, id.name, id.last, marks{redelivered: true}); err != nil {
		return err
	}
	cs.mu.Lock()
	defer cs.mu.Unlock()
	id.unsure = false
	return nil
}

func (cs *Consumer) renew(ctx context.Context, id *identity, queues []string, ds []*broker.Delivery) (lost []*broker.Delivery, err error) {
	sh := id.shard
	args := make([]string, 0, 3+len(ds))
	args = append(args, id.name, strconv.FormatInt(cs.lease.Milliseconds(), 10), cs.token)
	for _, d := range ds {
		args = append(args, d.Claim.(*claim).field)
	}
	limited, cancel := cs.conn.rdb.Deadline(ctx)
	defer cancel()
	keys := []string{sh.unacked, sh.index, sh.workers}
	for _, q := range queues {
		keys = append(keys, sh.consumers(q))
	}
	r := renewScript.Exec(limited, cs.conn.rdb, keys, args)
	if n, err := r.AsInt64(); err == nil && n < 0 {
		cs.lapsed(id)
		return ds, nil
	}
	at, err := r.AsIntSlice()
	if err != nil {
		return nil, fault(ctx, err)
	}
	for _, i := range at {
		lost = append(lost, ds[i])
	}
	return lost, nil
}

// CountLoss counts the worker that died on an orphaned message, once for each
// value of the delivery's Losses, and takes the mark of an orphan from it. The
// count is kept in the message.
func (cs *Consumer) CountLoss(ctx context.Context, d *broker.Delivery) (int, error) {
	cl, _ := d.Claim.(*claim)
	cs.mu.Lock()
	_, running := cs.held[cl]
	if !running {
		cs.mu.Unlock()
		return 0, errLost(d)
	}
	raw, m, counted := cl.raw, cl.marks, cl.counted
	cs.mu.Unlock()
	if counted && m.losses > d.Losses {
		return m.losses, nil
	}
	m.losses++
	m.orphaned = false
	m.redelivered = true
	raw = mark(raw, m)
	limited, cancel := cs.conn.rdb.Limit(ctx)
	defer cancel()
	n, err := replaceScript.Exec(limited, cs.conn.rdb, []string{cl.id.shard.unacked}, []string{cl.field, "[" + raw + tail(cl.list)}).AsInt64()
	if err != nil {
		return 0, fault(ctx, err)
	}
	if n == 0 {
		return 0, errLost(d)
	}
	cs.mu.Lock()
	defer cs.mu.Unlock()
	cl.raw, cl.marks, cl.counted = raw, m, true
	return m.losses, nil
}

// takeBack gives back the claims of a consumer whose lease has run out. One of this
// process has lost its connection, and not its life.
func (cs *Consumer) takeBack(ctx context.Context, sh *shard, name string) error {
	return cs.conn.giveBack(ctx, sh, name, false, marks{redelivered: true, orphaned: !cs.notes.Has(name)})
}

// giveBack returns all claims of a consumer to where they were and forgets the
// consumer. Unless forced it does so only if the lease has run out. Several may
// do it at once: each claim is given back by one of them.
func (c *Conn) giveBack(ctx context.Context, sh *shard, name string, force bool, with marks) error {
	dead, err := lapseScript.Exec(ctx, c.rdb, []string{sh.workers}, []string{name, flag(force)}).AsInt64()
	if err != nil {
		return fault(ctx, err)
	}
	if dead == 0 && !force {
		return nil
	}
	if err := c.restoreAll(ctx, sh, name, 0, with); err != nil {
		return err
	}
	if err := c.rdb.Do(ctx, c.rdb.B().Zrem().Key(sh.workers).Member(name).Build()).Error(); err != nil {
		return fault(ctx, err)
	}
	return nil
}

// restoreAll puts the claims of a consumer back that come after the one of a
// number.
func (c *Conn) restoreAll(ctx context.Context, sh *shard, name string, after uint64, with marks) error {
	for cursor := uint64(0); ; {
		page, err := c.rdb.Do(ctx, c.rdb.B().Zscan().Key(sh.index).Cursor(cursor).Match("lv1:"+name+":*").Count(1000).Build()).AsScanEntry()
		if err != nil {
			return fault(ctx, err)
		}
		var fields []string
		for i := 0; i+1 < len(page.Elements); i += 2 {
			if n, _ := number(page.Elements[i]); n > after {
				fields = append(fields, page.Elements[i])
			}
		}
		if err := c.restore(ctx, sh, fields, with); err != nil {
			return err
		}
		if cursor = page.Cursor; cursor == 0 {
			return nil
		}
	}
}

// restore puts claimed messages back to the consuming end of their lists, in
// the order in which they were claimed.
func (c *Conn) restore(ctx context.Context, sh *shard, fields []string, with marks) error {
	slices.SortFunc(fields, func(a, b string) int {
		x, _ := number(a)
		y, _ := number(b)
		switch {
		case x > y:
			return -1
		case x < y:
			return 1
		}
		return 0
	})
	for len(fields) > 0 {
		n := min(len(fields), 100)
		records, err := c.rdb.Do(ctx, c.rdb.B().Hmget().Key(sh.unacked).Field(fields[:n]...).Build()).ToArray()
		if err != nil {
			return fault(ctx, err)
		}
		var changes []change
		for i, r := range records {
			record, err := r.ToString()
			if err != nil {
				continue // settled in between
			}
			_, list := number(fields[i])
			raw, ok := strings.CutSuffix(strings.TrimPrefix(record, "["), tail(list))
			if !ok {
				continue // none of ours
			}
			m := with
			if e, err := parseEnvelope(raw); err == nil {
				m.orphaned = with.orphaned || e.marks.orphaned
				m.losses = e.marks.losses
			}
			ch := change{field: fields[i]}
			ch.op("R", list, mark(raw, m))
			changes = append(changes, ch)
		}
		if _, err := c.apply(ctx, sh, changes); err != nil {
			return err
		}
		fields = fields[n:]
	}
	return nil
}
