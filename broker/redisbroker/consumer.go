package redisbroker

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/lovage-go/lovage/broker"
	"github.com/lovage-go/lovage/internal/redisconn"
)

// Consumer takes messages. It is safe for concurrent use; calls of Claim take turns.
type Consumer struct {
	conn  *Conn
	name  string
	token string // names it among the consumers of its queues
	lease time.Duration
	ear   *ear
	done  chan struct{} // closed by Close
	turn  chan struct{} // holds one token: whose Claim it is

	// With the turn.
	looked time.Time // when lapsed consumers were last looked for

	mu      sync.Mutex
	closed  bool
	id      *identity
	doubted []*identity // earlier ones that may have claims nobody knows of
	queues  []string
	plan    *plan
	changed chan struct{} // closed when queues change
	held    map[*claim]struct{}
}

// identity is a name under which a consumer claims, in its fields. It gets a new
// one when the old is taken for dead, or when the outcome of a claim is unknown.
type identity struct {
	name       string
	last       uint64 // number of the last claim; with the turn
	registered bool   // with Consumer.mu
}

// claim is what Delivery.Claim holds.
type claim struct {
	consumer *Consumer
	id       *identity
	number   uint64
	field    string
	list     string
	queue    string

	raw     string // with Consumer.mu, as is what follows
	marks   marks
	counted bool
}

// plan is what a claim script is told about the queues.
type plan struct {
	keys []string // of one queue after another
	args []string
	per  int // keys of one queue
	argn int // arguments of one queue
	n    int
	ears []string // keys that tell of something new
}

func (c *Conn) plan(queues []string) *plan {
	p := &plan{n: len(queues), per: 4 + len(c.keys.steps), argn: 1 + 2*len(c.keys.steps), ears: []string{c.keys.paused}}
	for _, q := range queues {
		lists := c.keys.lists(q)
		p.keys = append(append(p.keys, c.keys.parked(q), c.keys.parkedRaw(q), c.keys.deadOf(q), c.keys.consumers(q)), lists...)
		p.args = append(p.args, q)
		for _, s := range c.keys.steps {
			list := c.keys.stepList(q, s)
			p.args = append(p.args, list, tail(list))
		}
		p.ears = append(append(p.ears, c.keys.parked(q)), lists...)
	}
	return p
}

// turned gives keys and arguments with another queue first.
func (p *plan) turned(first int) (keys, args []string) {
	return slices.Concat(p.keys[first*p.per:], p.keys[:first*p.per]), slices.Concat(p.args[first*p.argn:], p.args[:first*p.argn])
}

// Consume starts a consumer. Its queues are declared.
func (c *Conn) Consume(ctx context.Context, cfg broker.ConsumeConfig) (broker.Consumer, error) {
	if err := c.alive(); err != nil {
		return nil, err
	}
	cs := &Consumer{
		conn: c, name: cfg.Worker, token: redisconn.Token(), lease: cmp.Or(max(cfg.Lease, 0), c.lease), ear: newEar(c.rdb),
		done: make(chan struct{}), turn: make(chan struct{}, 1), changed: make(chan struct{}),
		id: newIdentity(), held: map[*claim]struct{}{},
	}
	if err := cs.Update(ctx, cfg.Queues...); err != nil {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed.Load() {
		return nil, c.alive()
	}
	c.consumers[cs] = struct{}{}
	return cs, nil
}

func newIdentity() *identity { return &identity{name: redisconn.Token()} }

// Update declares the queues and consumes from them from now on.
func (cs *Consumer) Update(ctx context.Context, queues ...broker.Queue) error {
	if err := cs.conn.Declare(ctx, queues...); err != nil {
		return err
	}
	var names []string
	for _, q := range queues {
		if !slices.Contains(names, q.Name) {
			names = append(names, q.Name)
		}
	}
	cs.mu.Lock()
	defer cs.mu.Unlock()
	cs.queues, cs.plan = names, cs.conn.plan(names)
	close(cs.changed)
	cs.changed = make(chan struct{})
	return nil
}

// Close hands back what is claimed, in the order it had, and ends the consumer.
// Closing twice is no error.
func (cs *Consumer) Close() error {
	cs.mu.Lock()
	if cs.closed {
		cs.mu.Unlock()
		return nil
	}
	cs.closed = true
	close(cs.done)
	cs.mu.Unlock()
	cs.turn <- struct{}{} // a Claim under way sees the end and leaves
	cs.ear.close()
	cs.mu.Lock()
	var back []*claim
	for cl := range cs.held {
		back = append(back, cl)
	}
	clear(cs.held)
	ids, queues := append(cs.doubted, cs.id), cs.queues
	cs.mu.Unlock()
	cs.conn.mu.Lock()
	delete(cs.conn.consumers, cs)
	cs.conn.mu.Unlock()
	if cs.conn.cut.Load() {
		return nil
	}
	slices.SortFunc(back, func(a, b *claim) int { return cmp.Compare(b.number, a.number) })
	changes := make([]change, len(back))
	for i, cl := range back {
		changes[i] = cs.handBack(cl)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 2*cs.conn.rdb.Timeout)
	defer cancel()
	_, err := cs.conn.apply(ctx, changes)
	for _, id := range ids {
		if err == nil && (id.registered || id != cs.id) {
			err = cs.conn.giveBack(ctx, id.name, true, marks{redelivered: true})
		}
	}
	for _, q := range queues {
		if err == nil {
			_, err = cs.conn.unpark(ctx, q, cs.token, false)
		}
	}
	if err != nil && !errors.Is(err, broker.ErrClosed) {
		return fmt.Errorf("hand back the claims of %s: %w", cs.name, err)
	}
	return nil
}

func (cs *Consumer) errClosed() error {
	return fmt.Errorf("redis broker %s: consumer: %w", cs.conn.rdb.ID, broker.ErrClosed)
}

// closedOr prefers the consumer's own end to what came of it.
func (cs *Consumer) closedOr(err error) error {
	select {
	case <-cs.done:
		return cs.errClosed()
	default:
		return err
	}
}

var (
	_ broker.Consumer       = (*Consumer)(nil)
	_ broker.AtomicFinisher = (*Consumer)(nil)
	_ broker.LeaseRenewer   = (*Consumer)(nil)
	_ broker.LossCounter    = (*Consumer)(nil)
)
