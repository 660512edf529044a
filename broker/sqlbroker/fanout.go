package sqlbroker

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"

	"github.com/lovage-go/lovage/broker"
	"github.com/lovage-go/lovage/internal/sqlstore"
)

// fanoutBatch is how many broadcasts a listener reads at a time.
const fanoutBatch = 128

// Broadcast sends messages to everybody who listens to the exchange. A message
// is kept for slow listeners for a minute, or for its Expiration if that is
// shorter, and of one exchange the newest 20,000.
func (c *Conn) Broadcast(ctx context.Context, exchange string, msgs ...*broker.Message) error {
	if err := c.alive(); err != nil {
		return err
	}
	if len(msgs) == 0 {
		return nil
	}
	rows := make([]sqlstore.Broadcast, len(msgs))
	for i, m := range msgs {
		if len(m.Body) > c.maxBody {
			return fmt.Errorf("broadcast to %q has a body of %d bytes, the limit is %d: %w", exchange, len(m.Body), c.maxBody, broker.ErrTooLarge)
		}
		at := *m
		at.Exchange = exchange
		rows[i].Headers, rows[i].Envelope = encodeMeta(&at)
		rows[i].Body = m.Body
		if m.Properties.HasExpiration {
			rows[i].Keep = max(m.Properties.Expiration, 1)
		}
	}
	return fault(c.db.UpdateLazily(ctx, func(tx *sqlstore.Tx) error { return tx.Broadcast(exchange, rows) }))
}

// Listen starts to receive what is broadcast from now on.
func (c *Conn) Listen(ctx context.Context, exchange, pattern string) (broker.Listener, error) {
	if err := c.alive(); err != nil {
		return nil, err
	}
	l := &listener{conn: c, exchange: exchange, pattern: pattern, done: make(chan struct{}), turn: make(chan struct{}, 1)}
	err := c.db.View(ctx, func(tx *sqlstore.Tx) (err error) {
		last, err := tx.LastBroadcast(exchange)
		l.last.Store(last)
		return err
	})
	if err != nil {
		return nil, fault(err)
	}
	return l, nil
}

// listener reads an exchange by the numbers of its messages.
type listener struct {
	conn              *Conn
	exchange, pattern string
	missed            atomic.Int64
	once              sync.Once
	done              chan struct{}
	turn              chan struct{} // holds one token: whose Next it is

	last atomic.Int64         // the number read up to; written with the turn
	buf  []sqlstore.Broadcast // with the turn
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
	ear := l.conn.db.Ear(sqlstore.BellFanout)
	defer ear.Close()
	for {
		select {
		case <-l.done:
			return broker.Delivery{}, l.errClosed()
		default:
		}
		for len(l.buf) > 0 {
			b := l.buf[0]
			l.buf = l.buf[1:]
			d := deliveryOf(&sqlstore.Delivery{Headers: b.Headers, Envelope: b.Envelope, Body: b.Body})
			if broker.MatchTopic(l.pattern, d.RoutingKey) {
				return d, nil
			}
		}
		ear.Listen()
		read := 0
		err := l.conn.db.View(ctx, func(tx *sqlstore.Tx) error {
			after := l.last.Load()
			rows, last, missed, err := tx.Broadcasts(l.exchange, after, fanoutBatch)
			if err != nil {
				return err
			}
			l.buf, read = rows, int(last-after)
			l.missed.Add(missed)
			l.last.Store(last)
			return nil
		})
		if err != nil {
			return broker.Delivery{}, fault(err)
		}
		if read > 0 {
			continue
		}
		if err := ear.Wait(ctx, sqlstore.SafetyPoll, l.done); err != nil {
			return broker.Delivery{}, fault(err)
		}
	}
}

// Missed counts the messages of the exchange that were deleted unread, those
// included that Next has not come to yet.
func (l *listener) Missed() int64 {
	var ahead int64
	missed := l.missed.Load()
	err := l.conn.db.View(context.Background(), func(tx *sqlstore.Tx) (err error) {
		ahead, err = tx.BroadcastsGone(l.exchange, l.last.Load())
		return err
	})
	if err != nil {
		return missed // what cannot be asked now is counted by Next
	}
	return missed + ahead
}

func (l *listener) Close() error {
	l.once.Do(func() { close(l.done) })
	return nil
}

func (l *listener) errClosed() error {
	return fmt.Errorf("sqlite %s: listener of %q: %w", l.conn.db.Path(), l.exchange, broker.ErrClosed)
}
