package amqpbroker

import (
	"context"
	"time"
)

// demand is how many messages the claims of the last second asked for at most.
type demand struct {
	most  int
	since time.Time
}

// narrow replaces lanes whose window is more than twice what is claimed and asked
// for, once a second at most: runs have become long, and what waits here could be
// run by others. It is handed back. An error is told; the next Claim opens what is
// missing. The caller has the turn.
func (cs *Consumer) narrow(ctx context.Context, limit int) {
	cs.asked.most = max(cs.asked.most, limit)
	now := time.Now()
	if now.Sub(cs.asked.since) < idle {
		return
	}
	most := cs.asked.most
	cs.asked = demand{since: now}
	need, wide := 0, []*lane{}
	cs.mu.Lock()
	for _, l := range cs.lanes {
		claimed, narrower := l.claimed()
		if need += claimed; narrower && l.window > 2*(claimed+most) {
			wide = append(wide, l)
		}
	}
	cs.mu.Unlock()
	if len(wide) == 0 {
		return
	}
	var err error
	for _, l := range wide {
		if e := cs.letGo(ctx, l); e != nil && l.s.alive() {
			err = e
		}
	}
	if err == nil {
		err = cs.open(ctx, need+most)
	}
	if err != nil {
		cs.conn.log.Warn("a consumer could not be replaced by one with a smaller window", "consumer", cs.name, "error", err)
	}
}

// claimed counts what is claimed of what was delivered, and tells whether the lane
// can be replaced.
func (l *lane) claimed() (n int, replaceable bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.unacked - len(l.ready), !l.ended && !l.queue.NoAck && !l.queue.AutoDelete
}
