package redisbroker

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	"github.com/lovage-go/lovage/broker"
	"github.com/lovage-go/lovage/internal/redisconn"
	"github.com/lovage-go/lovage/protocol"
	"github.com/redis/rueidis"
)

// Settle ends claims, many in one script. A claim that has ended, as all have
// after Close, gives broker.ErrLeaseLost for its entry. After a lost connection
// it is open which have ended; settling them again tells, and is no error if it
// was the earlier call that did it.
func (cs *Consumer) Settle(ctx context.Context, settlements ...broker.Settlement) error {
	finishes := make([]broker.Finish, len(settlements))
	for i, s := range settlements {
		finishes[i].Settle = s
	}
	return cs.finishAll(ctx, finishes)
}

// finisher is a consumer where one script reaches queues and results alike: not in
// a cluster.
type finisher struct{ *Consumer }

// FinishAll commits finishes, each as a whole or not at all, many in one
// script: what follows, the results under Celery's keys of this database and the
// end of the claim, by which it is fenced. Finishing again after a lost
// connection does not do it twice, and tells that it is done.
func (cs finisher) FinishAll(ctx context.Context, finishes ...broker.Finish) error {
	return cs.finishAll(ctx, finishes)
}

func (cs *Consumer) finishAll(ctx context.Context, finishes []broker.Finish) error {
	if len(finishes) == 0 {
		return nil
	}
	var (
		errs    = make([]error, len(finishes))
		claims  = make([]*claim, len(finishes))
		batches []*batch // by shard
	)
	for i := range finishes {
		ch, cl, err := cs.finish(ctx, &finishes[i])
		claims[i] = cl
		if errs[i] = err; err != nil {
			continue
		}
		at := slices.IndexFunc(batches, func(b *batch) bool { return b.shard == ch.shard })
		if at < 0 {
			at = len(batches)
			batches = append(batches, &batch{shard: ch.shard, changes: make([]change, 0, len(finishes)), at: make([]int, 0, len(finishes))})
		}
		b := batches[at]
		b.changes, b.at = append(b.changes, ch), append(b.at, i)
	}
	for _, b := range batches {
		done, err := cs.conn.apply(ctx, b.shard, b.changes)
		for j, i := range b.at {
			switch {
			case j >= len(done):
				errs[i] = err
			case !done[j]:
				errs[i] = errLost(finishes[i].Settle.Delivery)
			}
		}
	}
	cs.conn.attempts.settleDoubts(ctx, cs.conn, claims, errs)
	cs.mu.Lock()
	for i, cl := range claims {
		if cl != nil && (errs[i] == nil || errors.Is(errs[i], broker.ErrLeaseLost)) {
			delete(cs.held, cl)
		}
	}
	cs.mu.Unlock()
	return collapse(errs)
}

// batch is the changes of one shard.
type batch struct {
	shard   *shard
	changes []change
	at      []int // positions
}

// finish prepares a finish; what can be refused is refused here.
func (cs *Consumer) finish(ctx context.Context, f *broker.Finish) (ch change, cl *claim, err error) {
	d := f.Settle.Delivery
	if d == nil {
		return ch, nil, errors.New("redisbroker: settlement without a delivery")
	}
	cl, _ = d.Claim.(*claim)
	if cl == nil || cl.consumer != cs {
		return ch, nil, errLost(d)
	}
	cs.mu.Lock()
	_, running := cs.held[cl]
	raw, m := cl.raw, cl.marks
	cs.mu.Unlock()
	if !running {
		return ch, cl, errLost(d)
	}
	ch.shard, ch.field, ch.claim = cl.id.shard, cl.field, cl
	m.redelivered = true
	switch f.Settle.Action {
	case broker.Ack, broker.Reject:
	case broker.Requeue:
		ch.op("L", cl.list, mark(raw, m))
	case broker.HandBack:
		ch.op("R", cl.list, mark(raw, m))
	case broker.Park:
		ch.op("P", cl.queue, cl.list, due(f.Settle.Until), mark(raw, m))
	case broker.DeadLetter:
		head, err := json.Marshal(deadHead{Queue: cl.queue, List: cl.list, Reason: f.Settle.Reason, Losses: m.losses})
		if err != nil {
			return ch, nil, err
		}
		ch.op("D", cl.queue, string(head), raw)
	default:
		return ch, nil, fmt.Errorf("redisbroker: settle with %v: %w", f.Settle.Action, broker.ErrUnsupported)
	}
	if r, ok := plain(f); ok && ch.ops == 0 {
		ch.success, ch.keep, ch.args = true, r.Expires, []string{redisconn.TaskKey + r.TaskID, rueidis.BinaryString(r.Meta)}
		ch.bytes = len(r.TaskID) + len(r.Meta)
		return ch, cl, nil
	}
	if err := cs.follow(ctx, &ch, f.Publish, f.Store); err != nil {
		return ch, nil, err
	}
	for _, e := range f.Ends {
		var then change
		if err := cs.follow(ctx, &then, e.Publish, e.Store); err != nil {
			return ch, nil, err
		}
		ch.end(cs.conn.rdb.Chord("", e.Group), e, &then)
	}
	return ch, cl, nil
}

// follow adds messages and results to a change.
func (cs *Consumer) follow(ctx context.Context, ch *change, msgs []*broker.Message, recs []*protocol.Record) error {
	for _, msg := range msgs {
		t, text, err := cs.conn.prepare(ctx, msg)
		if err != nil {
			return err
		}
		ch.add(cs.conn, msg, t, text)
	}
	for _, r := range recs {
		ch.op(cs.conn.rdb.AppendStore([]string{"S"}, "", r)...)
	}
	return nil
}

// plain gives the result of a finish that keeps nothing else, if it is a success
// in Celery's own form.
func plain(f *broker.Finish) (r *protocol.Record, ok bool) {
	if len(f.Publish)+len(f.Ends) > 0 || len(f.Store) != 1 || f.Store[0].State != protocol.Success || redisconn.StateOf(f.Store[0].Meta) != protocol.Success {
		return nil, false
	}
	return f.Store[0], true
}

// handBack is the change that hands a claim back.
func (cs *Consumer) handBack(cl *claim) (ch change) {
	m := cl.marks
	m.redelivered = true
	ch.shard, ch.field = cl.id.shard, cl.field
	ch.op("R", cl.list, mark(cl.raw, m))
	return ch
}
