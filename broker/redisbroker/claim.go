package redisbroker

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/lovage-go/lovage/broker"
	"github.com/lovage-go/lovage/internal/redisconn"
)

const (
	// claimMax is the most messages, and claimBytes the bytes after which no
	// further message is taken, of one script.
	claimMax   = 500
	claimBytes = 8 << 20
	// lookEvery is how often a consumer says that it is there, and a busy one
	// looks for those that have lapsed; an idle one always does. It is more
	// often if the lease is short.
	lookEvery = 5 * time.Second
	// movePoll is the pause while a slot is on its way to another node.
	movePoll = 20 * time.Millisecond
)

// Claim waits for the first message and takes as many more as are there, up to
// limit. The queues take turns in being asked first.
func (cs *Consumer) Claim(ctx context.Context, limit int) ([]broker.Delivery, error) {
	select {
	case cs.turn <- struct{}{}:
		defer func() { <-cs.turn }()
	case <-cs.done:
		return nil, cs.errClosed()
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	for fresh := true; ; fresh = false {
		select {
		case <-cs.done:
			return nil, cs.errClosed()
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		default:
		}
		stands, changed := cs.standing()
		for _, s := range stands {
			if fresh && !s.listens() {
				s.pause, s.until = firstPoll, time.Time{}
			}
		}
		out, err := cs.round(ctx, stands, min(max(limit, 1), claimMax))
		if len(out) > 0 {
			return out, nil
		}
		if err != nil {
			return nil, cs.closedOr(err)
		}
		if err := cs.rest(ctx, stands, changed); err != nil {
			return nil, err
		}
	}
}

// round asks each stand that may have something, another one first each time. A
// stand of a cluster that cannot be reached does not keep the others from being
// asked; the error is that of the last one if all have failed.
func (cs *Consumer) round(ctx context.Context, stands []*stand, limit int) (out []broker.Delivery, err error) {
	failed := 0
	if !cs.strict {
		cs.first++
	}
	for i := range stands {
		s := stands[(cs.first+i)%len(stands)]
		if s.quiet() {
			continue
		}
		start := time.Now()
		got, e := cs.look(ctx, s, limit-len(out))
		switch {
		case redisconn.Moving(e):
			cs.moving(s)
		case e != nil:
			err = e
			failed++
			s.until = time.Now().Add(max(lastPoll, time.Since(start))) // the others have as long for themselves
			if !broker.Retryable(e) {
				return out, e
			}
		}
		if out == nil {
			out = got // most often it is all
		} else {
			out = append(out, got...)
		}
		if len(out) >= limit {
			return out, nil
		}
	}
	if failed < len(stands) {
		err = nil
	}
	return out, err
}

// moving postpones a stand whose slot is on its way to another node, and tells
// if it has been for long.
func (cs *Consumer) moving(s *stand) {
	now := time.Now()
	s.until = now.Add(movePoll)
	switch {
	case s.moves.IsZero():
		s.moves = now
	case now.Sub(s.moves) > lookEvery:
		s.moves = now
		cs.conn.log.Warn("a queue cannot be read, its slot is on the way to another node of the cluster: see CLUSTER SHARDS whether the migration goes on", "queue", s.asked.queues)
	}
}

// look takes what a stand has. If that is nothing it listens, and looks again
// for what came before it did. In a cluster it listens anew each time, for the
// queue may have moved.
func (cs *Consumer) look(ctx context.Context, s *stand, limit int) ([]broker.Delivery, error) {
	s.until, s.asked = time.Time{}, s.plan.Load()
	for again := range 2 {
		out, wait, err := cs.take(ctx, s, limit)
		if err == nil {
			s.moves = time.Time{}
		}
		if err != nil || len(out) > 0 {
			return out, err
		}
		if s.listens() && (again == 1 || !cs.conn.keys.spread) {
			s.until = time.Now().Add(wait)
			return nil, nil
		}
		if !s.ear.arm(ctx, s.asked.ears) {
			s.heard = nil
			s.until = time.Now().Add(min(wait, s.pause))
			s.pause = min(2*s.pause, lastPoll)
			return nil, nil
		}
		s.heard = s.asked
	}
	return nil, nil // it goes on
}

// rest waits until something may have changed.
func (cs *Consumer) rest(ctx context.Context, stands []*stand, changed <-chan struct{}) error {
	wait := safetyPoll
	for _, s := range stands {
		if !s.quiet() {
			return nil
		}
		wait = min(wait, time.Until(s.until))
	}
	t := time.NewTimer(wait)
	defer t.Stop()
	select {
	case <-cs.ring:
	case <-t.C:
	case <-changed:
	case <-cs.done:
		return cs.errClosed()
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	return nil
}

// take claims what is there, and else tells how long nothing will happen by
// itself. Only the holder of the turn calls it. It does not end with ctx: what
// the script has claimed must be known.
func (cs *Consumer) take(ctx context.Context, s *stand, limit int) (out []broker.Delivery, wait time.Duration, err error) {
	if s.asked.n == 0 {
		return nil, safetyPoll, nil
	}
	for range 8 {
		var again bool
		if out, wait, again, err = cs.takeOnce(ctx, s, limit); !again {
			return out, wait, err
		}
	}
	return out, 0, err
}

func (cs *Consumer) takeOnce(ctx context.Context, s *stand, limit int) (out []broker.Delivery, wait time.Duration, again bool, err error) {
	cs.mu.Lock()
	id, p := s.id, s.asked
	registered := id.registered
	cs.mu.Unlock()
	look := time.Since(s.looked) > min(lookEvery, cs.lease/3)
	k, sh := &cs.conn.keys, s.shard
	first := 0
	if !cs.strict {
		first = s.turns % p.n
	}
	s.turns++
	keys, args := p.turned(first)
	keys = append([]string{sh.unacked, sh.index, sh.workers, sh.paused, sh.dead, sh.deadID, sh.deadIndex}, keys...)
	args = append([]string{
		id.name, strconv.FormatUint(id.last, 10), strconv.Itoa(limit), strconv.FormatInt(cs.lease.Milliseconds(), 10),
		flag(registered), flag(look), strconv.Itoa(claimBytes), strconv.Itoa(p.n), strconv.Itoa(len(k.steps)), k.prefix, cs.token, sh.spread,
	}, args...)
	limited, cancel := cs.conn.rdb.Limit(ctx)
	defer cancel()
	reply, err := claimScript.Exec(limited, cs.conn.rdb, keys, args).ToArray()
	if redisconn.Moving(err) {
		return nil, 0, false, err
	}
	if err != nil {
		cs.doubt(s, id)
		return nil, 0, false, fault(ctx, err)
	}
	last, err := reply[0].AsInt64()
	if err != nil {
		return nil, 0, false, fault(ctx, err)
	}
	if last < 0 { // taken for dead, or idle for longer than its lease
		cs.lapsed(id)
		return nil, 0, true, nil
	}
	id.last = uint64(last)
	if buried, _ := reply[2].AsInt64(); buried > 0 {
		cs.conn.log.Error("items that are no JSON object are put to the dead letters", "number", buried, "worker", cs.name)
	}
	ms, _ := reply[1].AsInt64()
	if wait = time.Duration(ms) * time.Millisecond; ms < 0 || wait > safetyPoll {
		wait = safetyPoll
	}
	dead, _ := reply[3].AsStrSlice()
	claims := make([]claim, len(reply)-5)
	out = make([]broker.Delivery, len(claims))
	from, _ := reply[4].ToArray()
	for i := 0; len(from) > 1; from = from[2:] {
		list, _ := from[0].ToString()
		n, _ := from[1].AsInt64()
		queue := k.queueOf(list)
		for end := min(i+int(n), len(claims)); i < end; i++ {
			raw, _ := reply[5+i].ToString()
			cl := &claims[i]
			*cl = claim{consumer: cs, id: id, number: id.last - uint64(len(claims)-i-1), list: list, queue: queue, raw: raw}
			cl.field = field(id.name, cl.number, list)
			out[i] = cl.delivery()
		}
	}
	cs.mu.Lock()
	if len(claims) > 0 {
		id.registered = true
	}
	for i := range claims {
		cs.held[&claims[i]] = struct{}{}
	}
	cs.mu.Unlock()
	if look {
		s.looked = time.Now()
		if err := cs.conn.sweep(limited); err != nil && !broker.Retryable(err) {
			cs.conn.log.Error("the claims of lapsed Python workers could not be given back", "error", err)
		}
	}
	for _, name := range dead {
		switch err := cs.takeBack(limited, sh, name); {
		case err == nil:
			again = len(out) == 0
		case !broker.Retryable(err): // else somebody will, and the loss of the connection shows elsewhere
			cs.conn.log.Error("the claims of a lapsed worker could not be given back", "error", err)
		}
	}
	return out, wait, again, nil
}

// field is that of a claim.
func field(name string, number uint64, list string) string {
	return "lv1:" + name + ":" + strconv.FormatUint(number, 10) + ":" + list
}

// number reads what a field says of its claim.
func number(field string) (n uint64, list string) {
	_, rest, _ := strings.Cut(field, ":")
	_, rest, _ = strings.Cut(rest, ":")
	digits, list, ok := strings.Cut(rest, ":")
	if !ok {
		return 0, ""
	}
	n, _ = strconv.ParseUint(digits, 10, 64)
	return n, list
}

func (cl *claim) delivery() broker.Delivery {
	d := broker.Delivery{Queue: cl.queue, Claim: cl}
	e, err := parseEnvelope(cl.raw)
	if err != nil {
		d.Malformed = err
		d.Body = []byte(cl.raw)
		return d
	}
	cl.marks = e.marks
	d.Headers, d.Body, d.Properties = e.deliveredHeaders(), e.body, e.props
	d.Exchange, d.RoutingKey = e.exchange, e.routingKey
	d.Redelivered, d.Orphaned, d.Losses = e.marks.redelivered, e.marks.orphaned, e.marks.losses
	return d
}

// lapsed ends an identity whose claims others may have taken.
func (cs *Consumer) lapsed(id *identity) {
	cs.mu.Lock()
	defer cs.mu.Unlock()
	for _, s := range cs.stands {
		if s.id == id {
			s.id = cs.newIdentity(s.shard)
		}
	}
	for cl := range cs.held {
		if cl.id == id {
			delete(cs.held, cl)
		}
	}
}

// doubt retires an identity under which a claim may have been made that nobody
// here knows of: it is renewed as long as it holds claims that are known, and
// Renew or Close gives back what else it has.
func (cs *Consumer) doubt(s *stand, id *identity) {
	cs.mu.Lock()
	defer cs.mu.Unlock()
	if s.id == id {
		id.unsure = true
		cs.doubted = append(cs.doubted, id)
		s.id = cs.newIdentity(s.shard)
	}
}

func flag(b bool) string {
	if b {
		return "1"
	}
	return ""
}

// errLost is the error for a claim that has ended.
func errLost(d *broker.Delivery) error {
	return fmt.Errorf("settle a message of queue %q: %w", d.Queue, broker.ErrLeaseLost)
}
