package amqpbroker

import (
	"context"
	"time"
)

// The prefetch of a living consumer cannot be changed. A lane whose window does not
// fit is replaced: another is opened, the old one is cancelled and keeps its channel
// until its claims are settled. Or, where a cancelled consumer endangers its claims
// (see [lane.kept]), the other is opened beside it, and the old one goes on until it
// has no claims. Messages are taken from the narrowest lane first, so that a wide one
// is soon without claims when a narrow one is enough.

// demand is how many messages the claims of the last second asked for at most.
type demand struct {
	most  int
	since time.Time
}

// narrow replaces lanes whose window is more than twice what is claimed and asked
// for, once a second at most: runs have become long, and what waits here could be
// run by others. It is handed back, from a lane that is kept when the last claim of
// it has ended. An error is told; the next Claim opens what is missing. The caller
// has the turn.
func (cs *Consumer) narrow(ctx context.Context, limit int) {
	cs.asked.most = max(cs.asked.most, limit)
	now := time.Now()
	if now.Sub(cs.asked.since) < idle {
		return
	}
	most := cs.asked.most
	cs.asked = demand{since: now}
	spare := cs.spare()
	need, aside, wide := 0, false, []*lane{}
	cs.mu.Lock()
	for _, l := range cs.lanes {
		claimed := l.claimed()
		if need += claimed; l.replaceable() && l.window > 2*(claimed+most) {
			if l.kept && claimed > 0 {
				cs.setAside(l)
				aside = true
			} else {
				wide = append(wide, l)
			}
		}
	}
	cs.mu.Unlock()
	var err error
	for _, l := range append(spare, wide...) {
		if e := cs.letGo(ctx, l); e != nil && l.s.alive() {
			err = e
		}
	}
	if err == nil && (aside || len(wide) > 0) {
		err = cs.open(ctx, need+most)
	}
	if err != nil {
		cs.conn.log.Warn("a consumer could not be replaced by one with a smaller window", "consumer", cs.name, "error", err)
	}
}

// spare are the lanes that were set aside and have no claims any more.
func (cs *Consumer) spare() (out []*lane) {
	cs.mu.Lock()
	defer cs.mu.Unlock()
	for l := range cs.rest {
		if l.kept && l.takes() && l.claimed() == 0 {
			out = append(out, l)
		}
	}
	return out
}

// setAside makes room for another lane of a queue. The caller holds cs.mu.
func (cs *Consumer) setAside(l *lane) {
	delete(cs.lanes, l.queue.Name)
	cs.rest[l] = true
}

// widen replaces lanes whose window is all claimed: at once those that are much
// narrower than what is asked for now, the others after a little, since acks may
// be on their way. What came by the old lane in the meantime is claimed.
func (cs *Consumer) widen(ctx context.Context, limit int, waited time.Duration) (claims []*claim, wait time.Duration, err error) {
	cs.mu.Lock()
	want := cs.share(limit)
	var narrow []*lane
	for _, l := range cs.lanes {
		if !cs.saturated(l.queue.Name) || l.queue.AutoDelete {
			continue // what its window has room for may be under way
		}
		switch left := patience - waited; {
		case l.window*2 > want && left > 0:
			wait = left
		case l.kept:
			cs.setAside(l)
			cs.ring() // mend opens another
		default:
			narrow = append(narrow, l)
		}
	}
	cs.mu.Unlock()
	if len(narrow) == 0 {
		return nil, max(wait, 0), nil
	}
	for _, l := range narrow {
		err := cs.leave(ctx, l)
		claims = append(claims, l.take(limit-len(claims))...)
		l.mu.Lock()
		l.giveBackReady()
		l.mu.Unlock()
		if err != nil && l.s.alive() && len(claims) == 0 {
			return nil, 0, err
		}
	}
	cs.tidy(ctx)
	if len(claims) > 0 {
		return claims, 0, nil
	}
	return nil, 0, nil // the bell has rung, and mend opens them
}

// rested stops all lanes when nobody has claimed for a while: others can have
// what waits here. Those that are kept wait until they have no claims.
func (cs *Consumer) rested() {
	select {
	case cs.turn <- struct{}{}:
		defer func() { <-cs.turn }()
	default:
		return // a Claim is under way
	}
	lanes := cs.spare()
	cs.mu.Lock()
	if cs.closed {
		cs.mu.Unlock()
		return
	}
	for _, l := range cs.lanes {
		if l.kept && l.claimed() > 0 {
			cs.idle.Reset(idle)
		} else if !l.queue.AutoDelete { // it would be deleted
			lanes = append(lanes, l)
		}
	}
	for l := range cs.rest {
		if l.kept && l.takes() && l.claimed() > 0 {
			cs.idle.Reset(idle)
		}
	}
	cs.mu.Unlock()
	ctx, cancel := context.WithTimeout(context.Background(), closeTimeout)
	defer cancel()
	for _, l := range lanes {
		if err := cs.letGo(ctx, l); err != nil && l.s.alive() {
			cs.conn.log.Warn("a consumer could not be stopped", "queue", l.queue.Name, "error", err)
		}
	}
}

// share is the window of one queue for a limit of all. Who holds many messages
// gets a quarter of them more, or it would need a channel for each few. The
// caller holds cs.mu.
func (cs *Consumer) share(limit int) int {
	held := 0
	for l := range cs.rest {
		held += l.claimed()
	}
	n := max(len(cs.queues), 1)
	return min((max(min(limit, cs.window), held/4, 1)+n-1)/n, 65535)
}
