package amqpbroker

import (
	"context"
	"fmt"
	"time"

	"github.com/lovage-go/lovage/broker"
)

// Settle ends claims. Acks go many in one frame. What goes elsewhere (Requeue, to
// the other end of the queue; Park; DeadLetter) is published under confirm and
// acked then, so that a crash in between leaves two of it and never none. So is a
// run that had begun and is handed back: returned, it would look to others as if
// its worker had died.
func (cs *Consumer) Settle(ctx context.Context, settlements ...broker.Settlement) error {
	ctx, cancel := cs.conn.bound(ctx)
	defer cancel()
	all := make([]settlement, len(settlements))
	lanes := map[*lane][]*settlement{}
	var moves []*settlement
	var outs []*outgoing
	for i := range settlements {
		st, s := &all[i], &settlements[i]
		cl, ok := s.Delivery.Claim.(*claim)
		if !ok || cl.lane.cs != cs {
			st.err = fmt.Errorf("a claim of another consumer: %w", broker.ErrLeaseLost)
			continue
		}
		st.claim, st.action = cl, s.Action
		switch {
		case s.Action == broker.Requeue, s.Action == broker.Park, s.Action == broker.DeadLetter, s.Action == broker.HandBack && s.Started:
			if st.err = cl.held(); st.err != nil {
				continue
			}
			o, err := cs.move(ctx, cl, s)
			if st.err = err; err == nil {
				moves, outs = append(moves, st), append(outs, o)
			}
		default:
			lanes[cl.lane] = append(lanes[cl.lane], st)
		}
	}
	back := map[*lane]int{}
	for i := range all {
		if st := &all[i]; st.err == nil && st.action == broker.HandBack {
			back[st.claim.lane]++
		}
	}
	for l, n := range back {
		cs.stopFor(ctx, l, n)
	}
	for l, list := range lanes {
		l.settle(list)
	}
	clear(lanes)
	for i, err := range cs.conn.deliver(ctx, outs) {
		st := moves[i]
		if st.err = err; err == nil {
			st.action = broker.Ack
			lanes[st.claim.lane] = append(lanes[st.claim.lane], st)
		}
	}
	for l, list := range lanes {
		l.settle(list)
	}
	cs.tidy(ctx)
	errs := make([]error, len(all))
	for i := range all {
		errs[i] = all[i].err
	}
	return collapse(errs)
}

// stopFor stops the lane of messages that are handed back: they would come straight
// back to us, and what is in our window would overtake them. One that is kept goes on
// if it has other claims.
func (cs *Consumer) stopFor(ctx context.Context, l *lane, n int) {
	if l.queue.AutoDelete || !l.seal(n) {
		return
	}
	if err := cs.leave(ctx, l); err != nil {
		cs.conn.log.Warn("a consumer could not be stopped", "queue", l.queue.Name, "error", err)
	}
}

// held reports whether a claim can still be settled.
func (cl *claim) held() error {
	cl.lane.mu.Lock()
	defer cl.lane.mu.Unlock()
	if cl.settled || cl.lane.ended || !cl.lane.s.alive() {
		return cl.lane.lost()
	}
	return nil
}

// kept are the marks that a claimed message keeps when it is sent again: where it
// was sent to first, and its losses.
func (cl *claim) kept(own marks) marks {
	m := marks{losses: own.losses, counted: own.counted}
	d := broker.Delivery{Exchange: cl.msg.Exchange, RoutingKey: cl.msg.RoutingKey}
	undelay(&d)
	if own.exchange != "" || own.routingKey != "" {
		d.Exchange, d.RoutingKey = own.exchange, own.routingKey
	}
	if d.Exchange != "" || d.RoutingKey != cl.lane.queue.Name {
		m.exchange, m.routingKey = d.Exchange, d.RoutingKey
	}
	return m
}

// move is the message that takes the claimed one's place.
func (cs *Consumer) move(ctx context.Context, cl *claim, s *broker.Settlement) (*outgoing, error) {
	c, queue := cs.conn, cl.lane.queue.Name
	own := marksOf(cl.msg.Headers)
	m := cl.kept(own)
	switch s.Action {
	case broker.Requeue, broker.HandBack:
		m.requeued, m.expiration = true, own.expiration
		return &outgoing{key: queue, mandatory: true, msg: again(&cl.msg, m)}, nil
	case broker.Park:
		markOnce(&cl.msg)
		o := &outgoing{key: queue, mandatory: true, msg: again(&cl.msg, m)}
		if own.expiration != "" {
			o.msg.Expiration = own.expiration
		}
		wait := time.Until(s.Until)
		if wait <= 0 {
			m.expiration = own.expiration
			o.msg = again(&cl.msg, m)
			return o, nil
		}
		return o, c.delay(ctx, o, wait, m)
	}
	if err := c.ensureDead(ctx); err != nil {
		return nil, err
	}
	m.losses = max(m.losses, s.Delivery.Losses) // the result store may have counted them
	return c.deadLetter(cl, queue, s.Reason, m, own), nil
}

// tidy closes retired lanes whose last claim is settled.
func (cs *Consumer) tidy(ctx context.Context) {
	cs.mu.Lock()
	var empty []*lane
	for l := range cs.rest {
		l.mu.Lock()
		if l.ended || l.stopped && l.asking == 0 && len(l.open()) == 0 {
			empty = append(empty, l)
			delete(cs.rest, l)
		}
		l.mu.Unlock()
	}
	cs.mu.Unlock()
	for _, l := range empty {
		if err := l.close(ctx); err != nil {
			cs.conn.log.Warn("a channel did not close well", "queue", l.queue.Name, "error", err)
		}
	}
}
