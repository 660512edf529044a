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
	conn   *Conn
	name   string
	token  string // names it among the consumers of its queues
	lease  time.Duration
	ring   chan struct{} // one token: an ear has heard something
	done   chan struct{} // closed by Close
	turn   chan struct{} // holds one token: whose Claim it is
	first  int           // which stand is asked first; with the turn
	strict bool          // the first queue is always asked first
	notes  *broker.Notes // the names of all identities of this process

	tuning  sync.Mutex      // guards taps and asked
	taps    map[string]*tap // by exchange
	asked   []broker.Queue  // for good
	tapping sync.WaitGroup

	mu      sync.Mutex
	closed  bool
	stands  []*stand    // replaced as a whole
	doubted []*identity // earlier ones that may have claims nobody knows of
	leaving []*stand    // whose ears are to be closed
	changed chan struct{}
	held    map[*claim]struct{}
}

// identity is a name under which a consumer claims, in its fields. It gets a new
// one when the old is taken for dead, or when the outcome of a claim is unknown.
type identity struct {
	shard      *shard
	name       string
	last       uint64 // number of the last claim; with the turn
	registered bool   // with Consumer.mu
	unsure     bool   // with Consumer.mu: an answer was lost, after the last claim that is known
}

func (cs *Consumer) newIdentity(sh *shard) *identity {
	id := &identity{shard: sh, name: redisconn.Token()}
	cs.notes.Put(id.name, false)
	return id
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

	doubts []doubt // with attempts.mu: those that may have ended it
}

// Consume starts a consumer. Its queues are declared.
func (c *Conn) Consume(ctx context.Context, cfg broker.ConsumeConfig) (broker.Consumer, error) {
	if err := c.alive(); err != nil {
		return nil, err
	}
	cs := &Consumer{
		conn: c, name: cfg.Worker, strict: cfg.Strict, notes: cmp.Or(cfg.Notes, new(broker.Notes)), token: redisconn.Token(), lease: cmp.Or(max(cfg.Lease, 0), c.lease), ring: make(chan struct{}, 1),
		done: make(chan struct{}), turn: make(chan struct{}, 1), changed: make(chan struct{}), held: map[*claim]struct{}{}, taps: map[string]*tap{},
	}
	if err := cs.Update(ctx, cfg.Queues...); err != nil {
		return nil, errors.Join(err, cs.tune(ctx, nil))
	}
	c.mu.Lock()
	closed := c.closed.Load()
	if !closed {
		c.consumers[cs] = struct{}{}
	}
	c.mu.Unlock()
	if closed {
		return nil, errors.Join(c.alive(), cs.tune(ctx, nil))
	}
	if c.keys.spread {
		return cs, nil
	}
	return finisher{cs}, nil
}

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
	cs.tuning.Lock()
	defer cs.tuning.Unlock()
	if cs.ended() {
		return cs.errClosed()
	}
	if err := cs.tune(ctx, queues); err != nil {
		return err
	}
	if err := cs.conn.show(ctx, queues); err != nil {
		return err
	}
	if err := cs.leave(ctx, cs.asked, queues); err != nil {
		return err
	}
	cs.asked = queues
	cs.mu.Lock()
	defer cs.mu.Unlock()
	cs.stand(names)
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
	cs.tuning.Lock()
	untapped := cs.tune(context.Background(), nil)
	asked := cs.asked
	cs.tuning.Unlock()
	cs.tapping.Wait()
	cs.turn <- struct{}{} // a Claim under way sees the end and leaves
	stands, _ := cs.standing()
	cs.mu.Lock()
	var back []*claim
	for cl := range cs.held {
		back = append(back, cl)
	}
	clear(cs.held)
	ids := cs.doubted
	var queues []string
	for _, s := range stands {
		s.ear.close()
		if s.id.registered {
			ids = append(ids, s.id)
		}
		queues = append(queues, s.plan.Load().queues...)
	}
	cs.mu.Unlock()
	cs.conn.mu.Lock()
	delete(cs.conn.consumers, cs)
	cs.conn.mu.Unlock()
	if cs.conn.cut.Load() {
		return nil
	}
	slices.SortFunc(back, func(a, b *claim) int { return cmp.Compare(b.number, a.number) })
	changes := map[*shard][]change{}
	for _, cl := range back {
		changes[cl.id.shard] = append(changes[cl.id.shard], cs.handBack(cl))
	}
	ctx, cancel := context.WithTimeout(context.Background(), 2*cs.conn.rdb.Timeout)
	defer cancel()
	var errs []error // in a cluster some may be well
	for sh, chs := range changes {
		_, err := cs.conn.apply(ctx, sh, chs)
		errs = append(errs, err)
	}
	for _, id := range ids {
		errs = append(errs, cs.conn.giveBack(ctx, id.shard, id.name, true, marks{redelivered: true}))
	}
	for _, q := range queues {
		_, err := cs.conn.unpark(ctx, q, cs.token, false)
		errs = append(errs, err)
	}
	errs = append(errs, cs.conn.remove(ctx, asked), cs.conn.attempts.forget(ctx, cs.conn), untapped)
	errs = slices.DeleteFunc(errs, func(err error) bool { return err == nil || errors.Is(err, broker.ErrClosed) })
	if len(errs) > 0 {
		return fmt.Errorf("hand back the claims of %s: %w", cs.name, errs[0])
	}
	return nil
}

func (cs *Consumer) ended() bool {
	select {
	case <-cs.done:
		return true
	default:
		return false
	}
}

func (cs *Consumer) errClosed() error {
	return fmt.Errorf("redis broker %s: consumer: %w", cs.conn.rdb.ID, broker.ErrClosed)
}

// closedOr prefers the consumer's own end to what came of it.
func (cs *Consumer) closedOr(err error) error {
	if cs.ended() {
		return cs.errClosed()
	}
	return err
}

var (
	_ broker.Consumer       = (*Consumer)(nil)
	_ broker.AtomicFinisher = finisher{}
	_ broker.LeaseRenewer   = (*Consumer)(nil)
	_ broker.LossCounter    = (*Consumer)(nil)
)
