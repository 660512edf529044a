package amqpbroker

import (
	"context"

	"github.com/lovage-go/lovage/broker"
)

// RabbitMQ counts nothing that could be used as losses. A classic queue only says
// redelivered; a quorum queue counts returns in x-delivery-count, those of a
// worker that hands back what it has buffered like those of one that died, so
// that a message nobody has run yet would be given up after some restarts. So the
// count is in the message, whatever the type of the queue.

// died reports whether the message was claimed before and not handed back by us.
func (cl *claim) died() bool { return cl.msg.Redelivered && !cl.noted }

// fresh reports whether the message is a copy that was made to count a loss, and
// nobody was told of that loss yet. The losses are those before it.
func (cl *claim) fresh() bool {
	return !cl.died() && !cl.told && marksOf(cl.msg.Headers).counted
}

// MarkLoss sends the message again with one loss more, under confirm, and acks it
// then; a crash in between leaves both. The copy goes to the end of the queue. A
// copy that comes for the first time, or that this connection has handed back,
// was counted when it was made: its count is told, once. To ask again is to tell
// of another loss, such as a child process.
func (cs *Consumer) MarkLoss(ctx context.Context, d *broker.Delivery) (losses int, moved bool, err error) {
	cl, ok := d.Claim.(*claim)
	if !ok || cl.lane.cs != cs {
		return 0, false, broker.ErrLeaseLost
	}
	if err := cl.held(); err != nil {
		return 0, false, err
	}
	own := marksOf(cl.msg.Headers)
	cl.lane.mu.Lock()
	fresh := cl.fresh()
	cl.told = cl.told || fresh
	cl.lane.mu.Unlock()
	if fresh {
		return own.losses, false, nil
	}
	ctx, cancel := cs.conn.bound(ctx)
	defer cancel()
	m := cl.kept(own)
	m.losses, m.counted, m.expiration = own.losses+1, true, own.expiration
	o := &outgoing{key: cl.lane.queue.Name, mandatory: true, msg: again(&cl.msg, m)}
	if err := cs.conn.deliver(ctx, []*outgoing{o})[0]; err != nil {
		return 0, false, err
	}
	st := &settlement{claim: cl, action: broker.Ack}
	cl.lane.settle([]*settlement{st})
	if st.err != nil {
		cs.conn.log.Warn("a message was sent again with its losses and could not be acknowledged; it may run twice", "queue", cl.lane.queue.Name, "error", st.err)
	}
	cs.tidy(ctx)
	return m.losses, true, nil
}

var _ broker.LossMarker = (*Consumer)(nil)
