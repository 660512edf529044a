package amqpbroker

import (
	"sync"

	amqp "github.com/rabbitmq/amqp091-go"
)

// RabbitMQ marks a message as redelivered after a hand-back and after a death
// alike. What we handed back ourselves, or had when our connection was lost,
// cannot have cost a worker its life.

// identity is what a message is known by when it comes again.
type identity struct{ correlation, message, task string }

func identify(m *amqp.Delivery) identity {
	id, _ := m.Headers["id"].(string)
	return identity{m.CorrelationId, m.MessageId, id}
}

func (i identity) key(queue string) string {
	return queue + "\x00" + i.correlation + "\x00" + i.message + "\x00" + i.task
}

func key(queue string, m *amqp.Delivery) string { return identify(m).key(queue) }

// sent are the last messages of a queue that were settled, by whatever lane.
// Nobody confirms an ack, so those at the end may not have arrived when the
// connection is lost, and a server that dies forgets some that have.
type sent struct {
	mu   sync.Mutex // guards what follows
	ring []settledOne
	next int
}

type settledOne struct {
	identity
	told bool
}

const maxSent = 512

func (s *sent) add(cl *claim) {
	it := settledOne{identify(&cl.msg), cl.told}
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.ring) < maxSent {
		s.ring = append(s.ring, it)
		return
	}
	s.ring[s.next] = it
	s.next = (s.next + 1) % len(s.ring)
}

// take gives what is there, and forgets it.
func (s *sent) take() []settledOne {
	s.mu.Lock()
	defer s.mu.Unlock()
	ring := s.ring
	s.ring, s.next = nil, 0
	return ring
}

// note remembers that we hand a message back; an orphan that nobody has counted
// stays one. The caller holds l.mu.
func (l *lane) note(cl *claim) {
	if !cl.msg.Redelivered || cl.noted {
		l.cs.notes.Put(key(l.queue.Name, &cl.msg), cl.told)
	}
}

// noteLost remembers all that may come again after a loss. The caller holds l.mu.
func (l *lane) noteLost() {
	for _, it := range l.sent.take() {
		l.cs.notes.Put(it.key(l.queue.Name), it.told)
	}
	for _, cl := range l.open() {
		if !cl.settled {
			l.cs.notes.Put(key(l.queue.Name, &cl.msg), cl.told)
		}
	}
	if !l.queue.NoAck {
		l.cs.notes.Unseen(l.queue.Name, l.window-l.unacked)
	}
}
