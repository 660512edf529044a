package amqpbroker

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/lovage-go/lovage/broker"
)

const (
	// defaultWindow is the most that is buffered for a consumer that names nothing.
	defaultWindow = 64
	// idle is how long a consumer that nobody claims from keeps what it has
	// buffered, and its place in the queue.
	idle = time.Second
	// patience is how long a Claim waits for acks before it widens a full window.
	patience = 20 * time.Millisecond
	// mendPause is the first pause before a lane is opened again after an error.
	mendPause = 50 * time.Millisecond
	mendLimit = 2 * time.Second
)

// Consumer takes messages. It is safe for concurrent use; calls of Claim take turns.
type Consumer struct {
	conn   *Conn
	name   string
	notes  *broker.Notes // what went back from here
	window int
	strict bool          // the first queue is always served first
	bell   chan struct{} // rings when something has come or ended
	done   chan struct{} // closed by Close
	turn   chan struct{} // holds one token: whose Claim it is

	// With the turn.
	first int // the queue that is served first
	asked demand

	mu     sync.Mutex // guards what follows
	closed bool
	queues []broker.Queue
	lanes  map[string]*lane         // by queue; opened by Claim
	rest   map[*lane]bool           // further ones with claims, retired or kept
	sent   map[string]*sent         // by queue
	copies map[string]chan struct{} // by the key of a message that is sent again: closed when it is acked
	idle   *time.Timer              // runs while nobody claims
	pause  time.Duration
	again  time.Time // not before this is a lane opened again
}

// Consume starts a consumer. Its queues are declared. Messages begin to come with
// the first Claim, as many as it asks for, and window at most.
func (c *Conn) Consume(ctx context.Context, cfg broker.ConsumeConfig) (broker.Consumer, error) {
	if err := c.alive(); err != nil {
		return nil, err
	}
	cs := &Consumer{
		conn: c, name: cmp.Or(cfg.Worker, "lovage"), notes: cmp.Or(cfg.Notes, &c.notes), window: min(cmp.Or(max(cfg.Window, 0), defaultWindow), 65535),
		bell: make(chan struct{}, 1), done: make(chan struct{}), turn: make(chan struct{}, 1),
		lanes: map[string]*lane{}, rest: map[*lane]bool{}, sent: map[string]*sent{}, copies: map[string]chan struct{}{}, strict: cfg.Strict,
	}
	cs.idle = time.AfterFunc(idle, cs.rested)
	c.mu.Lock()
	c.consumers[cs] = struct{}{}
	c.mu.Unlock()
	if err := cs.Update(ctx, cfg.Queues...); err != nil {
		return nil, errors.Join(err, cs.Close())
	}
	if c.closed.Load() {
		return nil, c.errClosed()
	}
	return cs, nil
}

// Update changes the queues. Claims stay; what nobody has claimed yet of a queue
// that is left goes back.
func (cs *Consumer) Update(ctx context.Context, queues ...broker.Queue) error {
	ctx, cancel := cs.conn.bound(ctx)
	defer cancel()
	var wanted []broker.Queue
	for _, q := range queues {
		if !slices.ContainsFunc(wanted, func(x broker.Queue) bool { return x.Name == q.Name }) {
			wanted = append(wanted, q)
		}
	}
	s, err := cs.conn.in.get(ctx)
	if err != nil {
		return err
	}
	if err := cs.conn.declareBy(ctx, s, wanted, true); err != nil {
		return err
	}
	cs.mu.Lock()
	cs.queues = wanted
	var left []*lane
	for name := range cs.sent {
		if !slices.ContainsFunc(wanted, func(q broker.Queue) bool { return q.Name == name }) {
			left = append(left, cs.lanesOf(name)...)
		}
	}
	cs.mu.Unlock()
	var errs []error
	for _, l := range left {
		errs = append(errs, cs.letGo(ctx, l))
	}
	cs.ring()
	return errors.Join(errs...)
}

// leave stops a lane; its claims stay. The next Claim opens another.
func (cs *Consumer) leave(ctx context.Context, l *lane) error {
	cs.mu.Lock()
	if cs.lanes[l.queue.Name] == l {
		cs.setAside(l)
	}
	cs.mu.Unlock()
	defer cs.ring()
	return l.retire(ctx)
}

// letGo stops a lane and gives back what nobody has claimed.
func (cs *Consumer) letGo(ctx context.Context, l *lane) error {
	err := cs.leave(ctx, l)
	l.mu.Lock()
	l.giveBackReady()
	l.mu.Unlock()
	cs.tidy(ctx)
	return err
}

// open opens the lanes that are missing, each with its share of a limit.
func (cs *Consumer) open(ctx context.Context, limit int) error {
	for {
		cs.mu.Lock()
		i := slices.IndexFunc(cs.queues, func(q broker.Queue) bool { return cs.lanes[q.Name] == nil })
		if i < 0 || cs.closed {
			cs.mu.Unlock()
			return nil
		}
		q, window := cs.queues[i], cs.share(limit)
		if q.AutoDelete { // its consumer cannot be replaced
			window = cs.window
		}
		cs.mu.Unlock()
		s, err := cs.conn.in.get(ctx)
		if err != nil {
			return err
		}
		err = cs.openLane(ctx, s, q, window)
		if errors.Is(err, broker.ErrNoQueue) { // it was deleted
			if err = cs.conn.declareBy(ctx, s, []broker.Queue{q}, true); err == nil {
				err = cs.openLane(ctx, s, q, window)
			}
		}
		if err != nil {
			return err
		}
	}
}

// Claim waits for the first message and returns it with what else is there. The
// lanes that the server has closed are opened again on the way; a lost connection
// is an error, once, and the next call connects again.
func (cs *Consumer) Claim(ctx context.Context, limit int) ([]broker.Delivery, error) {
	select {
	case cs.turn <- struct{}{}:
		defer func() { <-cs.turn }()
	case <-cs.done:
		return nil, cs.errClosed()
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	cs.idle.Stop()
	defer cs.idle.Reset(idle)
	limit = max(limit, 1)
	began := time.Now()
	for {
		select {
		case <-cs.done:
			return nil, cs.errClosed()
		default:
		}
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		if claims := cs.take(limit); len(claims) > 0 {
			cs.narrow(ctx, limit)
			return cs.deliveries(claims), nil
		}
		wait, err := cs.mend(ctx, limit)
		if err == nil {
			var full time.Duration
			var claims []*claim
			if claims, full, err = cs.widen(ctx, limit, time.Since(began)); len(claims) > 0 {
				return cs.deliveries(claims), nil
			}
			if full > 0 && (wait == 0 || full < wait) {
				wait = full
			}
		}
		if err != nil {
			return nil, cs.closedOr(fmt.Errorf("consume: %w", fault(ctx, err)))
		}
		var retry <-chan time.Time
		if wait > 0 {
			retry = time.After(wait)
		}
		select {
		case <-cs.bell:
		case <-retry:
		case <-cs.done:
			return nil, cs.errClosed()
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
}

// take takes from the queues in turn, from each as much as there is.
func (cs *Consumer) take(limit int) (out []*claim) {
	cs.mu.Lock()
	queues := make([][]*lane, 0, len(cs.queues))
	for i := range cs.queues {
		if lanes := cs.lanesOf(cs.queues[(cs.first+i)%len(cs.queues)].Name); len(lanes) > 0 {
			queues = append(queues, lanes)
		}
	}
	if !cs.strict {
		cs.first++
	}
	cs.mu.Unlock()
	for i, lanes := range queues {
		share := (limit - len(out) + len(queues) - i - 1) / (len(queues) - i)
		if cs.strict {
			share = limit - len(out)
		}
		out = takeFrom(lanes, share, out)
	}
	for _, lanes := range queues { // what others left of their share
		out = takeFrom(lanes, limit-len(out), out)
	}
	return out
}

func (cs *Consumer) deliveries(claims []*claim) []broker.Delivery {
	ds := make([]broker.Delivery, len(claims))
	for i, cl := range claims {
		if cl.msg.Redelivered {
			markOnce(&cl.msg)
		}
		ds[i] = cs.conn.delivery(cl.lane.queue.Name, &cl.msg)
		ds[i].Orphaned = cl.died()
		if cl.fresh() {
			ds[i].Orphaned, ds[i].Losses = true, ds[i].Losses-1 // MarkLoss tells the last one
		}
		ds[i].Claim = cl
	}
	return ds
}

// mend opens the lanes that are not there, or that the server has closed. It tells
// after how long to try once more, 0 if there is no need.
func (cs *Consumer) mend(ctx context.Context, limit int) (wait time.Duration, err error) {
	cs.mu.Lock()
	for name, l := range cs.lanes {
		if !l.over() {
			continue
		}
		delete(cs.lanes, name)
		if !l.s.alive() {
			err = fmt.Errorf("%w: %w", broker.ErrUnavailable, l.s.why())
			continue
		}
		cs.later()
	}
	missing := slices.ContainsFunc(cs.queues, func(q broker.Queue) bool { return cs.lanes[q.Name] == nil })
	wait = time.Until(cs.again)
	cs.mu.Unlock()
	if err != nil {
		cs.endLost()
		return 0, err
	}
	if !missing {
		return 0, nil
	}
	if wait > 0 {
		return wait, nil
	}
	if err = cs.open(ctx, limit); err == nil {
		cs.mu.Lock()
		cs.pause = 0
		cs.mu.Unlock()
		return 0, nil
	}
	if ctx.Err() != nil || errors.Is(err, broker.ErrUnavailable) || errors.Is(err, broker.ErrClosed) {
		return 0, err
	}
	cs.mu.Lock()
	wait = cs.later()
	cs.mu.Unlock()
	cs.conn.log.Warn("a queue cannot be consumed; trying again", "after", wait, "error", err)
	return wait, nil
}

func (cs *Consumer) sentFrom(queue string) *sent {
	cs.mu.Lock()
	defer cs.mu.Unlock()
	s := cs.sent[queue]
	if s == nil {
		s = new(sent)
		cs.sent[queue] = s
	}
	return s
}

// endLost ends all lanes of a lost connection: what they had is noted when Claim
// tells of the loss.
func (cs *Consumer) endLost() {
	cs.mu.Lock()
	var lost []*lane
	for l := range cs.rest {
		lost = append(lost, l)
	}
	for _, l := range cs.lanes {
		lost = append(lost, l)
	}
	cs.mu.Unlock()
	for _, l := range lost {
		if !l.s.alive() {
			l.end(fmt.Errorf("%w: %w", broker.ErrUnavailable, l.s.why()))
		}
	}
}

// later puts the next try off. The caller holds cs.mu.
func (cs *Consumer) later() time.Duration {
	cs.pause = min(max(2*cs.pause, mendPause), mendLimit)
	cs.again = time.Now().Add(cs.pause)
	return cs.pause
}

// Close hands back what is claimed and ends the consumer. Closing twice is no error.
func (cs *Consumer) Close() error {
	cs.mu.Lock()
	if cs.closed {
		cs.mu.Unlock()
		return nil
	}
	cs.closed = true
	close(cs.done)
	cs.idle.Stop()
	cs.mu.Unlock()
	select {
	case cs.turn <- struct{}{}: // a Claim under way has seen the end
		defer func() { <-cs.turn }()
	case <-time.After(closeTimeout):
	}
	cs.mu.Lock()
	lanes := make([]*lane, 0, len(cs.lanes)+len(cs.rest))
	for _, l := range cs.lanes {
		lanes = append(lanes, l)
	}
	for l := range cs.rest {
		lanes = append(lanes, l)
	}
	clear(cs.lanes)
	clear(cs.rest)
	cs.mu.Unlock()
	cs.conn.mu.Lock()
	delete(cs.conn.consumers, cs)
	cs.conn.mu.Unlock()
	if cs.conn.wasCut.Load() {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), closeTimeout)
	defer cancel()
	var errs []error
	for _, l := range lanes {
		errs = append(errs, l.close(ctx))
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("hand back the claims of %s: %w", cs.name, err)
	}
	return nil
}

func (cs *Consumer) ring() {
	select {
	case cs.bell <- struct{}{}:
	default:
	}
}

func (cs *Consumer) errClosed() error {
	return fmt.Errorf("rabbitmq broker %s: consumer: %w", cs.conn.at.id(), broker.ErrClosed)
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

var _ broker.Consumer = (*Consumer)(nil)
