package amqpbroker

import (
	"sync"

	amqp "github.com/rabbitmq/amqp091-go"
)

// notes remember which messages this connection has handed back. RabbitMQ marks a
// message as redelivered after a hand-back and after a death alike; one that we
// handed back ourselves cannot have cost a worker its life.
type notes struct {
	mu   sync.Mutex
	keys map[string]bool // whether the losses of this copy were told
	ring []string        // the oldest is forgotten first
	next int
}

const maxNotes = 10_000

func noteKey(queue string, m *amqp.Delivery) string {
	id, _ := m.Headers["id"].(string)
	return queue + "\x00" + m.CorrelationId + "\x00" + m.MessageId + "\x00" + id
}

func (n *notes) put(key string, told bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.keys == nil {
		n.keys, n.ring = map[string]bool{}, make([]string, maxNotes)
	}
	delete(n.keys, n.ring[n.next])
	n.keys[key], n.ring[n.next] = told, key
	n.next = (n.next + 1) % maxNotes
}

// take reports whether there is a note, and drops it.
func (n *notes) take(key string) (noted, told bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	told, noted = n.keys[key]
	delete(n.keys, key)
	return noted, told
}
