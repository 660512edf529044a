package memory

import (
	"bytes"
	"container/heap"
	"slices"
	"time"

	"github.com/lovage-go/lovage/broker"
	"github.com/lovage-go/lovage/protocol"
)

// item is a message in the store. It is in exactly one place: ready, delayed,
// claimed, or among the dead letters.
type item struct {
	headers    []byte
	props      protocol.Properties
	body       []byte
	exchange   string
	routingKey string
	taskID     string
	task       string
	queue      *queue

	seq         uint64 // place in the queue
	first       uint64 // the seq it was published with: its identity
	priority    int
	due         time.Time // delayed until
	redelivered bool
	orphaned    bool // a holder died and that was not counted yet

	reason string // dead letter
	deadAt time.Time
	deadID string
}

func (it *item) lossKey() string {
	if it.taskID != "" {
		return it.taskID
	}
	return "\x00" + itoa(it.first)
}

func (it *item) delivery(losses int) broker.Delivery {
	return broker.Delivery{
		Headers:     bytes.Clone(it.headers),
		Properties:  cloneProperties(it.props),
		Body:        bytes.Clone(it.body),
		Exchange:    it.exchange,
		RoutingKey:  it.routingKey,
		Queue:       it.queue.name,
		Redelivered: it.redelivered,
		Orphaned:    it.orphaned,
		Losses:      losses,
	}
}

// claim is a consumer's hold on an item.
type claim struct {
	item     *item
	holder   *consumer
	deadline time.Time
	index    int // in queue.claimed; -1 when the claim has ended
	counted  bool
}

// queue is guarded by store.mu.
type queue struct {
	store   *Store
	name    string
	ready   ordered[*item]
	delayed ordered[*item]
	claimed ordered[*claim]
	waiters []*waiter   // who waits longest first
	timer   *time.Timer // next due message or lapsing lease, while somebody waits
}

// waiter is one blocked Claim.
type waiter struct {
	ring   chan struct{}
	queues []*queue
}

func newQueue(s *Store, name string) *queue {
	q := &queue{store: s, name: name}
	q.ready.less = beforeReady
	q.delayed.less = beforeDelayed
	q.claimed.less = func(a, b *claim) bool { return a.deadline.Before(b.deadline) }
	q.claimed.moved = func(c *claim, i int) { c.index = i }
	return q
}

func beforeReady(a, b *item) bool {
	if a.priority != b.priority {
		return a.priority > b.priority
	}
	return a.seq < b.seq
}

func beforeDelayed(a, b *item) bool {
	if !a.due.Equal(b.due) {
		return a.due.Before(b.due)
	}
	return a.seq < b.seq
}

// add puts an item into the queue: ready now, or later if it is due later.
func (q *queue) add(it *item, now time.Time) {
	it.queue = q
	if it.due.After(now) {
		heap.Push(&q.delayed, it)
		q.arm(now)
		return
	}
	heap.Push(&q.ready, it)
	q.ring()
}

// advance does what time has brought: due messages are ready, in the order in
// which they fell due, and claims whose lease has ended are orphans.
func (q *queue) advance(now time.Time) {
	for len(q.delayed.s) > 0 && !q.delayed.s[0].due.After(now) {
		it := heap.Pop(&q.delayed).(*item)
		it.seq = q.store.nextSeq()
		heap.Push(&q.ready, it)
		q.ring()
	}
	for len(q.claimed.s) > 0 && !q.claimed.s[0].deadline.After(now) {
		q.orphan(q.claimed.s[0])
	}
}

// take claims the next ready item for a consumer.
func (q *queue) take(c *consumer, now time.Time) *claim {
	it := heap.Pop(&q.ready).(*item)
	cl := &claim{item: it, holder: c, deadline: now.Add(c.lease)}
	heap.Push(&q.claimed, cl)
	c.claims[cl] = struct{}{}
	return cl
}

// release ends a claim; the item is then in nobody's hands.
func (q *queue) release(cl *claim) *item {
	heap.Remove(&q.claimed, cl.index)
	cl.index = -1
	delete(cl.holder.claims, cl)
	cl.item.redelivered = true
	return cl.item
}

// orphan ends a claim whose holder is gone; the item keeps its place.
func (q *queue) orphan(cl *claim) {
	it := q.release(cl)
	it.orphaned = true
	heap.Push(&q.ready, it)
	q.ring()
}

// ring wakes the blocked claim that has waited longest, if there is something to
// take: consumers that wait have their turns. Who is woken and leaves anything,
// for whatever reason, rings again.
func (q *queue) ring() {
	if len(q.ready.s) > 0 && len(q.waiters) > 0 {
		q.waiters[0].wake()
	}
}

// wake ends the wait.
func (w *waiter) wake() {
	w.leave()
	select {
	case w.ring <- struct{}{}:
	default:
	}
}

// leave takes the waiter out of its queues.
func (w *waiter) leave() {
	for _, q := range w.queues {
		q.waiters = slices.DeleteFunc(q.waiters, func(o *waiter) bool { return o == w })
	}
}

// arm sets the timer to what happens next, if anybody waits for it.
func (q *queue) arm(now time.Time) {
	var next time.Time
	if len(q.delayed.s) > 0 {
		next = q.delayed.s[0].due
	}
	if len(q.claimed.s) > 0 && (next.IsZero() || q.claimed.s[0].deadline.Before(next)) {
		next = q.claimed.s[0].deadline
	}
	if len(q.waiters) == 0 || next.IsZero() {
		if q.timer != nil {
			q.timer.Stop()
		}
		return
	}
	if q.timer == nil {
		q.timer = time.AfterFunc(next.Sub(now), q.expire)
		return
	}
	q.timer.Reset(next.Sub(now))
}

func (q *queue) expire() {
	q.store.mu.Lock()
	defer q.store.mu.Unlock()
	now := time.Now()
	q.advance(now)
	q.arm(now)
}

// waiting lists ready and delayed items, next one first.
func (q *queue) waiting() []*item {
	r, d := slices.Clone(q.ready.s), slices.Clone(q.delayed.s)
	slices.SortFunc(r, func(a, b *item) int { return order(beforeReady, a, b) })
	slices.SortFunc(d, func(a, b *item) int { return order(beforeDelayed, a, b) })
	return append(r, d...)
}

func order(less func(a, b *item) bool, a, b *item) int {
	switch {
	case less(a, b):
		return -1
	case less(b, a):
		return 1
	}
	return 0
}

// ordered is a heap by a less function; moved, if set, is told each index.
type ordered[T any] struct {
	s     []T
	less  func(a, b T) bool
	moved func(v T, i int)
}

func (o *ordered[T]) Len() int           { return len(o.s) }
func (o *ordered[T]) Less(i, j int) bool { return o.less(o.s[i], o.s[j]) }
func (o *ordered[T]) Swap(i, j int) {
	o.s[i], o.s[j] = o.s[j], o.s[i]
	if o.moved != nil {
		o.moved(o.s[i], i)
		o.moved(o.s[j], j)
	}
}

func (o *ordered[T]) Push(x any) {
	o.s = append(o.s, x.(T))
	if o.moved != nil {
		o.moved(x.(T), len(o.s)-1)
	}
}

func (o *ordered[T]) Pop() any {
	var zero T
	n := len(o.s) - 1
	x := o.s[n]
	o.s[n] = zero
	o.s = o.s[:n]
	return x
}

func (o *ordered[T]) fix(i int) { heap.Fix(o, i) }
