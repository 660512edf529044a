package amqpbroker

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"

	"github.com/lovage-go/lovage/broker"
	amqp "github.com/rabbitmq/amqp091-go"
)

// lane takes messages from one queue on a channel of its own: delivery tags are
// in the order in which they come, the window is the queue's own, and what the
// server does not like about one queue does not touch the others.
type lane struct {
	cs      *Consumer
	queue   broker.Queue
	s       *session
	ch      *amqp.Channel
	tag     string        // consumer tag
	window  int           // its prefetch, which cannot be changed
	kept    bool          // its consumer lives as long as its claims
	drained chan struct{} // closed when no more messages come
	sent    *sent         // of all lanes of the queue
	turn    sync.Mutex    // held by who waits for an answer: the library does not tell whose it is

	mu      sync.Mutex // guards what follows
	ready   []*claim   // delivered and not claimed yet
	order   []*claim   // all unsettled, in the order of their tags
	unacked int
	retired bool // it takes no more, and ends with its last claim
	sealed  bool // nothing of it is claimed any more
	stopped bool // and its consumer is gone
	closing bool // by us
	ended   bool
	late    map[uint64]bool // tags that came after the end of the consumer
	asking  int             // calls that need the channel when no claim does
}

// claim is what Delivery.Claim holds: a delivery tag is good on its lane alone.
type claim struct {
	lane    *lane
	msg     amqp.Delivery
	noted   bool // handed back by this connection before: no orphan
	told    bool // with lane.mu: MarkLoss has told of the loss that this copy was made for
	settled bool // with lane.mu
}

// openLane consumes from a queue. A lane that is open too late for its caller
// serves the next.
func (cs *Consumer) openLane(ctx context.Context, s *session, q broker.Queue, window int) error {
	args, err := tableOf(q.Consumer)
	if err != nil {
		return fmt.Errorf("consume from queue %q: %w", q.Name, err)
	}
	// Nobody has told of the type of a queue that was not declared. A stream alone
	// refuses a consumer with a priority, which is 0 anyway.
	unseen := args == nil && (cs.conn.opt.passive || q.NoDeclare)
	if unseen {
		args = amqp.Table{"x-priority": int32(0)}
	}
	l := &lane{cs: cs, queue: q, s: s, kept: cs.conn.keeps(s, &q), tag: cs.name + "." + token(), window: window, drained: make(chan struct{}), sent: cs.sentFrom(q.Name)}
	if len(l.tag) > 255 {
		l.tag = l.tag[len(l.tag)-255:]
	}
	if err := s.call(ctx, func() error { return l.start(ctx, args) }); err != nil {
		if unseen && code(err) == amqp.PreconditionFailed {
			err = fmt.Errorf("%w: %w", streamError(q.Name), err)
		}
		return fmt.Errorf("consume from queue %q: %w", q.Name, fault(ctx, err))
	}
	return nil
}

// start opens the channel and has its messages taken.
func (l *lane) start(ctx context.Context, args amqp.Table) error {
	cs, q := l.cs, l.queue
	ch, err := l.s.conn.Channel()
	if err != nil {
		return err
	}
	closed := ch.NotifyClose(make(chan *amqp.Error, 1))
	cancelled := ch.NotifyCancel(make(chan string, 1))
	const global = false // each consumer's own: RabbitMQ 4 knows no other
	if err = ch.Qos(l.window, 0, global); err == nil && ctx.Err() != nil {
		err = context.Cause(ctx) // nobody waits for it any more
	}
	if err != nil {
		_ = ch.Close() // it is of no use
		return err
	}
	messages, err := ch.Consume(q.Name, l.tag, q.NoAck, q.Exclusive, false, false, args)
	if err != nil {
		if !isChannelError(err) && !q.NoAck { // the server may have sent messages, and the answer is lost
			cs.notes.Unseen(q.Name, l.window)
		}
		_ = ch.Close()
		return err
	}
	l.ch = ch
	cs.conn.group.Go(func() { l.pump(messages, closed, cancelled) })
	return cs.adopt(ctx, l)
}

// adopt makes a new lane that of its queue, or closes it if that has one by now.
func (cs *Consumer) adopt(ctx context.Context, l *lane) error {
	cs.mu.Lock()
	name := l.queue.Name
	stale := cs.closed || cs.lanes[name] != nil || !slices.ContainsFunc(cs.queues, func(q broker.Queue) bool { return q.Name == name })
	if !stale {
		cs.lanes[name] = l
	}
	cs.mu.Unlock()
	if !stale {
		cs.ring()
		return nil
	}
	if !l.queue.NoAck { // its consumer is there, and more may be on its way
		l.mu.Lock()
		cs.notes.Unseen(name, l.window-l.unacked)
		l.mu.Unlock()
	}
	ctx, cancel := cs.conn.bound(context.WithoutCancel(ctx))
	defer cancel()
	return l.close(ctx)
}

// pump takes deliveries until the channel ends.
func (l *lane) pump(messages <-chan amqp.Delivery, closed <-chan *amqp.Error, cancelled <-chan string) {
	for m := range messages {
		l.mu.Lock()
		if l.late[m.DeliveryTag] { // the library has it after all
			l.mu.Unlock()
			continue
		}
		cl := &claim{lane: l, msg: m}
		if m.Redelivered {
			cl.noted, cl.told = l.cs.notes.Take(l.queue.Name, key(l.queue.Name, &m))
		}
		l.ready = append(l.ready, cl)
		if !l.queue.NoAck {
			l.order = append(l.order, cl)
			l.unacked++
		}
		l.mu.Unlock()
		l.cs.ring()
	}
	close(l.drained)
	// The library ends the messages when it ends the consumer or the channel.
	var cause error
	select {
	case _, ok := <-cancelled:
		if !ok {
			break
		}
		cause = fmt.Errorf("%w: RabbitMQ has ended the consumer: the queue was deleted, or its leader moved", broker.ErrNoQueue)
		l.mu.Lock()
		keep := l.retired
		l.mu.Unlock()
		if !keep {
			l.turn.Lock()
			_ = l.ch.Close() // what is unsettled goes back
			l.turn.Unlock()
		}
	default:
	}
	if l.isRetired() && cause == nil { // ended by us; the channel lives on for its claims
		select {
		case e := <-closed:
			if e != nil {
				cause = e
			}
		case <-l.s.lost:
		}
	}
	select {
	case e := <-closed:
		if e != nil && cause == nil {
			cause = e
		}
	default:
	}
	if cause == nil && !l.s.alive() {
		cause = fmt.Errorf("%w: %w", broker.ErrUnavailable, l.s.why())
	}
	l.end(cause)
}

// end marks the channel as gone: its claims have ended.
func (l *lane) end(cause error) {
	l.mu.Lock()
	if l.ended {
		l.mu.Unlock()
		return
	}
	l.ended = true
	held, closing := l.unacked, l.closing
	if !closing { // or it is noted already
		l.noteLost()
	}
	l.ready, l.order = nil, nil
	l.mu.Unlock()
	if _, refused := errors.AsType[*amqp.Error](cause); l.s.alive() && (!closing || refused) {
		l.cs.conn.log.Warn("RabbitMQ closed the channel of a queue, which is opened again; what was claimed by it is delivered again",
			"queue", l.queue.Name, "claimed", held, "error", cause)
	}
	l.s.tap.forget(l.tag)
	l.cs.ring()
}

func (l *lane) isRetired() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.retired
}

func (l *lane) over() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.ended
}

// take claims messages.
func (l *lane) take(n int) (out []*claim) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.sealed {
		return nil
	}
	n = min(n, len(l.ready))
	out = slices.Clone(l.ready[:n])
	clear(l.ready[:n])
	l.ready = l.ready[n:]
	return out
}

// saturated: everything that the window lets come is claimed already.
func (l *lane) saturated() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return !l.ended && !l.queue.NoAck && len(l.ready) == 0 && l.unacked >= l.window
}

// claimed counts what is claimed of what was delivered.
func (l *lane) claimed() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.ended || l.queue.NoAck {
		return 0
	}
	return l.unacked - len(l.ready)
}

func (l *lane) replaceable() bool { return !l.over() && !l.queue.NoAck && !l.queue.AutoDelete }

// retire stops to take messages. The channel stays until the claims that came by
// it are settled; what nobody has claimed stays in ready until it is given back.
func (l *lane) retire(ctx context.Context) error {
	l.mu.Lock()
	if l.ended || l.retired {
		l.mu.Unlock()
		return nil
	}
	l.retired = true
	l.mu.Unlock()
	l.s.tap.watch(l.tag, l.tooLate)
	err := l.ask(ctx, func() error { return l.ch.Cancel(l.tag, false) })
	if err == nil {
		select { // what was under way is in ready then
		case <-l.drained:
		case <-ctx.Done():
			err = context.Cause(ctx)
		}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.stopped = true
	if l.ended {
		return nil
	}
	return err
}

// tooLate gives a message back that the server sent after it had ended the
// consumer, as quorum queues do. The library throws such a message away, and it
// would be nobody's until the channel ends.
func (l *lane) tooLate(tag uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.ended || slices.ContainsFunc(l.order, func(cl *claim) bool { return cl != nil && cl.msg.DeliveryTag == tag }) {
		return
	}
	if l.late == nil {
		l.late = map[uint64]bool{}
	}
	l.late[tag] = true
	l.cs.notes.Unseen(l.queue.Name, 1)
	_ = l.ch.Nack(tag, false, true) // an error is the channel's end, which gives it back too
}

// giveBackReady returns what nobody has claimed. The caller holds l.mu.
func (l *lane) giveBackReady() {
	for _, cl := range l.ready {
		l.giveBack(cl)
	}
	l.ready = nil
}

// giveBack returns a message to its place in the queue. The caller holds l.mu.
func (l *lane) giveBack(cl *claim) {
	if cl.settled || l.ended {
		return
	}
	cl.settled = true
	l.unacked--
	l.note(cl)
	_ = l.ch.Nack(cl.msg.DeliveryTag, false, true) // an error is the channel's end, which gives it back too
}

// open are the unsettled claims, in the order of their tags. The caller holds l.mu.
func (l *lane) open() []*claim {
	i := 0
	for i < len(l.order) && l.order[i].settled {
		l.order[i] = nil
		i++
	}
	l.order = l.order[i:]
	return l.order
}

// close ends the channel; the server takes back what is unsettled.
func (l *lane) close(ctx context.Context) error {
	l.mu.Lock()
	if l.ended {
		l.mu.Unlock()
		return nil
	}
	l.retired, l.closing = true, true
	for _, cl := range l.open() {
		if !cl.settled {
			l.note(cl)
		}
	}
	l.mu.Unlock()
	if l.ch.IsClosed() {
		return nil // the server was first: pump ends the lane, and tells why
	}
	err := l.ask(ctx, l.ch.Close)
	if _, first := errors.AsType[*amqp.Error](err); first {
		return nil // likewise
	}
	l.end(broker.ErrClosed)
	if errors.Is(err, broker.ErrUnavailable) {
		return nil
	}
	return err
}

// ask runs what waits for an answer on the channel.
func (l *lane) ask(ctx context.Context, f func() error) error {
	return l.s.call(ctx, func() error {
		l.turn.Lock()
		defer l.turn.Unlock()
		return f()
	})
}

// settlement is what becomes of a claim of this lane, and its outcome.
type settlement struct {
	claim  *claim
	action broker.Action
	err    error
}

// settle ends claims by acks, rejects and hand-backs.
func (l *lane) settle(list []*settlement) {
	l.mu.Lock()
	defer l.mu.Unlock()
	acks := map[*claim]*settlement{}
	var rest []*settlement
	seen := map[*claim]bool{}
	for _, st := range list {
		switch cl := st.claim; {
		case cl.settled || seen[cl] || l.ended || !l.s.alive():
			st.err = l.lost()
		case st.action == broker.Ack:
			acks[cl] = st
		default:
			rest = append(rest, st)
		}
		seen[st.claim] = true
	}
	l.ackOldest(acks)
	for _, st := range acks {
		l.did(st, l.ch.Ack(st.claim.msg.DeliveryTag, false))
	}
	slices.SortFunc(rest, func(a, b *settlement) int { return cmp.Compare(a.claim.msg.DeliveryTag, b.claim.msg.DeliveryTag) })
	for _, st := range rest {
		if st.action == broker.Reject {
			l.did(st, l.ch.Reject(st.claim.msg.DeliveryTag, false))
			continue
		}
		l.note(st.claim)
		l.did(st, l.ch.Nack(st.claim.msg.DeliveryTag, false, true))
	}
	if l.retired { // what came later goes back later, or it would overtake
		l.giveBackReady()
	}
	l.open()
}

// ackOldest acknowledges in one frame all claims up to the first that is not to be
// acknowledged, and takes them out of acks.
func (l *lane) ackOldest(acks map[*claim]*settlement) {
	var run []*settlement
	for _, cl := range l.open() {
		if st := acks[cl]; st != nil {
			run = append(run, st)
		} else if !cl.settled {
			break
		}
	}
	if len(run) < 2 {
		return
	}
	err := l.ch.Ack(run[len(run)-1].claim.msg.DeliveryTag, true)
	for _, st := range run {
		delete(acks, st.claim)
		l.did(st, err)
	}
}

// did keeps the outcome of what was sent for a claim. The caller holds l.mu.
func (l *lane) did(st *settlement, err error) {
	st.claim.settled = true
	l.unacked--
	l.sent.add(st.claim)
	if err != nil {
		st.err = l.lost()
	}
}

func (l *lane) lost() error {
	return fmt.Errorf("queue %q: %w", l.queue.Name, broker.ErrLeaseLost)
}
