package amqpbroker

import (
	"cmp"
	"fmt"
	"slices"

	"github.com/lovage-go/lovage/broker"
)

// keeps reports whether the lanes of a queue are kept. When a node of a cluster dies,
// a quorum queue gives back what the consumers there had claimed, but of those alone
// that were not cancelled (rabbit_fifo, the command down with noconnection: RabbitMQ
// 3.8 to 4). The claims of others stay nobody's until the dead node is back and the
// queue has another leader. So it is for each queue that may be a quorum queue: a
// passive declaration does not tell, and from 3.11 on one without a type takes the
// virtual host's default.
func (c *Conn) keeps(s *session, q *broker.Queue) bool {
	named, _ := q.Arguments["x-queue-type"].(string)
	declared := !c.opt.passive && !q.NoDeclare
	kind := cmp.Or(q.Type, named)
	if kind == "" && declared {
		kind = c.opt.queueType
	}
	switch {
	case q.Exclusive || q.AutoDelete || q.Transient || q.NoAck:
		return false // no quorum queue, or nothing is claimed
	case q.Arguments["x-single-active-consumer"] == true:
		return false // one beside it would get nothing
	case kind != "":
		return kind == "quorum"
	case !declared:
		return true
	}
	return s.defaultsType()
}

// defaultsType reports whether the server's virtual hosts can have a default type of
// queues; so it is said of servers that tell no version.
func (s *session) defaultsType() bool {
	var major, minor int
	version, _ := s.conn.Properties["version"].(string)
	if _, err := fmt.Sscanf(version, "%d.%d", &major, &minor); err != nil {
		return true
	}
	return major > 3 || major == 3 && minor >= 11
}

// lanesOf are the lanes of a queue that take messages, the narrowest first. The
// caller holds cs.mu.
func (cs *Consumer) lanesOf(queue string) (out []*lane) {
	if l := cs.lanes[queue]; l != nil {
		out = append(out, l)
	}
	for l := range cs.rest {
		if l.kept && l.queue.Name == queue && l.takes() {
			out = append(out, l)
		}
	}
	slices.SortFunc(out, func(a, b *lane) int { return cmp.Compare(a.window, b.window) })
	return out
}

// takeFrom claims up to n messages of one queue, and appends them.
func takeFrom(lanes []*lane, n int, out []*claim) []*claim {
	for _, l := range lanes {
		got := l.take(n)
		out, n = append(out, got...), n-len(got)
	}
	return out
}

// saturated: all that the windows of a queue let come is claimed already. The caller
// holds cs.mu.
func (cs *Consumer) saturated(queue string) bool {
	return !slices.ContainsFunc(cs.lanesOf(queue), func(l *lane) bool { return !l.saturated() })
}

// takes reports whether messages come.
func (l *lane) takes() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return !l.retired && !l.ended
}

// seal ends the taking of messages if the lane may be stopped once n claims are
// settled.
func (l *lane) seal(n int) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.kept && l.unacked-len(l.ready) > n {
		return false
	}
	l.sealed = l.sealed || l.kept
	return true
}
