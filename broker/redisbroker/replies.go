package redisbroker

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/lovage-go/lovage/broker"
	"github.com/redis/rueidis"
)

// Reply pushes a message to the lists that are bound by its routing key, in
// kombu's table of bindings, and lets them expire: their reader may be gone for
// good.
func (c *Conn) Reply(ctx context.Context, keep time.Duration, m *broker.Message) error {
	if err := c.alive(); err != nil {
		return err
	}
	if len(m.Body) > c.maxBody {
		return fmt.Errorf("reply to %q has a body of %d bytes, the limit is %d: %w", m.Exchange, len(m.Body), c.maxBody, broker.ErrTooLarge)
	}
	t, err := c.bound(ctx, m.Exchange, m.RoutingKey)
	if err != nil || len(t.queues) == 0 {
		return err
	}
	raw := c.encode(m)
	var cmds rueidis.Commands
	for _, q := range t.queues {
		key := c.keys.prefix + c.keys.list(q, priorityOf(m))
		cmds = append(cmds, c.rdb.B().Lpush().Key(key).Element(raw).Build(),
			c.rdb.B().Pexpire().Key(key).Milliseconds(max(keep.Milliseconds(), 1)).Build())
	}
	limited, cancel := c.rdb.Deadline(ctx)
	defer cancel()
	for _, r := range c.rdb.DoMulti(limited, cmds...) {
		if err := r.Error(); err != nil {
			return fmt.Errorf("reply to %q: %w", m.Exchange, fault(ctx, err))
		}
	}
	return nil
}

// Replies binds the list that kombu's clients would have for a routing key.
func (c *Conn) Replies(ctx context.Context, exchange, routingKey string) (broker.Listener, error) {
	if err := c.alive(); err != nil {
		return nil, err
	}
	queue := routingKey + "." + exchange
	l := &replies{conn: c, list: c.keys.prefix + queue, table: c.keys.binding(exchange),
		member: c.keys.member(routingKey, "", queue)}
	l.open, l.end = context.WithCancel(context.Background())
	limited, cancel := c.rdb.Deadline(ctx)
	defer cancel()
	if err := c.rdb.Do(limited, c.rdb.B().Sadd().Key(l.table).Member(l.member).Build()).Error(); err != nil {
		return nil, fmt.Errorf("listen for replies on %q: %w", exchange, fault(ctx, err))
	}
	return l, nil
}

// replies receives from one list.
type replies struct {
	conn                *Conn
	list, table, member string
	open                context.Context // ends by Close
	end                 context.CancelFunc
	once                sync.Once
}

// Next waits for the next reply.
func (l *replies) Next(ctx context.Context) (broker.Delivery, error) {
	bounded, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(l.open, cancel)()
	for {
		switch {
		case l.open.Err() != nil:
			return broker.Delivery{}, l.errClosed()
		case ctx.Err() != nil:
			return broker.Delivery{}, context.Cause(ctx)
		}
		got, err := l.conn.rdb.Do(bounded, l.conn.rdb.B().Brpop().Key(l.list).Timeout(1).Build()).AsStrSlice()
		switch {
		case rueidis.IsRedisNil(err):
		case err == nil && len(got) == 2:
			cl := claim{raw: got[1]}
			d := cl.delivery()
			d.Claim = nil
			return d, nil
		case bounded.Err() != nil: // whose end it was shows above
		case err != nil:
			return broker.Delivery{}, fmt.Errorf("wait for replies: %w", fault(ctx, err))
		}
	}
}

// Missed is 0: the list keeps what nobody has taken yet.
func (l *replies) Missed() int64 { return 0 }

// Close unbinds and deletes the list. Closing twice is no error.
func (l *replies) Close() (err error) {
	l.once.Do(func() {
		l.end()
		ctx, cancel := context.WithTimeout(context.Background(), l.conn.rdb.Timeout)
		defer cancel()
		b := l.conn.rdb.B
		for _, r := range l.conn.rdb.DoMulti(ctx, b().Srem().Key(l.table).Member(l.member).Build(), b().Del().Key(l.list).Build()) {
			if e := r.Error(); e != nil && err == nil && l.conn.alive() == nil {
				err = fmt.Errorf("delete the queue of replies: %w", fault(ctx, e))
			}
		}
	})
	return err
}

func (l *replies) errClosed() error {
	return fmt.Errorf("redis broker %s: listener for replies: %w", l.conn.rdb.ID, broker.ErrClosed)
}
