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
//
// It returns when the server has handled the ack, and so does a call for a copy
// that came here before that: who dies in its run leaves the copy alone.
func (cs *Consumer) MarkLoss(ctx context.Context, d *broker.Delivery) (losses int, moved bool, err error) {
	cl, ok := d.Claim.(*claim)
	if !ok || cl.lane.cs != cs {
		return 0, false, broker.ErrLeaseLost
	}
	ctx, cancel := cs.conn.bound(ctx)
	defer cancel()
	if err := cs.copied(ctx, cl); err != nil {
		return 0, false, err
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
	defer cs.copying(cl)()
	m := cl.kept(own)
	m.losses, m.counted, m.expiration = own.losses+1, true, own.expiration
	o := &outgoing{key: cl.lane.queue.Name, mandatory: true, msg: again(&cl.msg, m)}
	if err := cs.conn.deliver(ctx, []*outgoing{o})[0]; err != nil {
		return 0, false, err
	}
	if err := cl.ackForSure(ctx); err != nil {
		cs.conn.log.Warn("a message was sent again with its losses and could not be acknowledged; it may run twice", "queue", cl.lane.queue.Name, "error", err)
	}
	cs.tidy(ctx)
	return m.losses, true, nil
}

// copying tells that a copy of a message is sent and its ack is not handled yet; the
// func tells that it is.
func (cs *Consumer) copying(cl *claim) func() {
	id, handled := key(cl.lane.queue.Name, &cl.msg), make(chan struct{})
	cs.mu.Lock()
	defer cs.mu.Unlock()
	cs.copies[id] = handled
	return func() {
		cs.mu.Lock()
		defer cs.mu.Unlock()
		if cs.copies[id] == handled {
			delete(cs.copies, id)
		}
		close(handled)
	}
}

// copied waits for the ack of the message that a claim may be a copy of.
func (cs *Consumer) copied(ctx context.Context, cl *claim) error {
	cs.mu.Lock()
	handled, is := cs.copies[key(cl.lane.queue.Name, &cl.msg)]
	cs.mu.Unlock()
	if !is {
		return nil
	}
	select {
	case <-handled:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// ackForSure acks a message and returns when the server has handled that. Acks have
// no answer of their own, but a channel does everything in turn: the answer that is
// waited for is that to a prefetch, which is for consumers to come, and there are none.
func (cl *claim) ackForSure(ctx context.Context) error {
	l := cl.lane
	l.mu.Lock()
	l.asking++ // the channel stays, though this may be its last claim
	l.mu.Unlock()
	defer func() {
		l.mu.Lock()
		l.asking--
		l.mu.Unlock()
	}()
	st := &settlement{claim: cl, action: broker.Ack}
	if l.settle([]*settlement{st}); st.err != nil {
		return st.err
	}
	return fault(ctx, l.ask(ctx, func() error { return l.ch.Qos(l.window, 0, false) }))
}

var _ broker.LossMarker = (*Consumer)(nil)
