package redisbroker

import (
	"slices"
	"sync/atomic"
	"time"
)

// stand is a consumer's place at one shard: it has one, or in a cluster one for
// each queue. But for its plan and identity it is for the holder of the turn.
type stand struct {
	*shard
	plan atomic.Pointer[plan]
	ear  *ear
	id   *identity // with Consumer.mu

	heard  *plan         // that the ear was armed for; nil: it hears nothing
	asked  *plan         // that was looked for last
	turns  int           // claims that it was asked for
	looked time.Time     // when lapsed consumers were last looked for
	until  time.Time     // nothing happens before, unless the ear hears it
	pause  time.Duration // of a stand that hears nothing
	moves  time.Time     // since when its slot is on the way to another node
}

// listens reports whether the server tells of what is new.
func (s *stand) listens() bool {
	return s.heard != nil && s.heard == s.plan.Load() && s.ear.armed.Load()
}

// quiet reports whether there is no need to look.
func (s *stand) quiet() bool {
	return s.asked == s.plan.Load() && (s.heard == nil || s.listens()) && time.Now().Before(s.until)
}

// stand takes up the stands for queues and leaves the others. Its caller holds
// cs.mu.
func (cs *Consumer) stand(queues []string) {
	c := cs.conn
	var stands []*stand
	for _, p := range c.keys.portions(queues) {
		var s *stand
		if at := slices.IndexFunc(cs.stands, func(s *stand) bool { return s.home == p.home }); at >= 0 {
			s = cs.stands[at]
		} else {
			s = &stand{shard: p.shard, ear: newEar(c.rdb, cs.ring), id: cs.newIdentity(p.shard)}
		}
		if old := s.plan.Load(); old == nil || !slices.Equal(old.queues, p.queues) {
			s.plan.Store(c.plan(s.shard, p.queues))
		}
		stands = append(stands, s)
	}
	for _, s := range cs.stands {
		if slices.Contains(stands, s) {
			continue
		}
		cs.leaving = append(cs.leaving, s)
		if s.id.registered {
			cs.doubted = append(cs.doubted, s.id)
		}
	}
	cs.stands = stands
}

// standing gives the stands, and what ends when there are others. It is for the
// holder of the turn.
func (cs *Consumer) standing() ([]*stand, <-chan struct{}) {
	cs.mu.Lock()
	defer cs.mu.Unlock()
	for _, s := range cs.leaving {
		s.ear.close()
	}
	cs.leaving = nil
	return cs.stands, cs.changed
}

// plan is what a claim script is told about the queues.
type plan struct {
	queues []string
	keys   []string // of one queue after another
	args   []string
	per    int // keys of one queue
	argn   int // arguments of one queue
	n      int
	ears   []string // keys that tell of something new
}

func (c *Conn) plan(sh *shard, queues []string) *plan {
	p := &plan{queues: queues, n: len(queues), per: 4 + len(c.keys.steps), argn: 1 + 2*len(c.keys.steps), ears: []string{sh.paused}}
	for _, q := range queues {
		lists := c.keys.lists(q)
		p.keys = append(append(p.keys, sh.parked(q), sh.parkedRaw(q), sh.deadOf(q), sh.consumers(q)), lists...)
		p.args = append(p.args, q)
		for _, s := range c.keys.steps {
			list := c.keys.stepList(q, s)
			p.args = append(p.args, list, tail(list))
		}
		p.ears = append(append(p.ears, sh.parked(q)), lists...)
	}
	return p
}

// turned gives keys and arguments with another queue first.
func (p *plan) turned(first int) (keys, args []string) {
	return slices.Concat(p.keys[first*p.per:], p.keys[:first*p.per]), slices.Concat(p.args[first*p.argn:], p.args[:first*p.argn])
}
