package amqpbroker

import (
	"github.com/lovage-go/lovage/protocol"
	amqp "github.com/rabbitmq/amqp091-go"
)

// markOnce tells a message with an ETA from its copies. One that comes to a worker
// too early is sent to the delay queues and acked then; a crash in between leaves
// the original as well, which comes again and is sent again, or runs. So each copy
// gets a mark of its own, and the original one when it comes again: the worker
// runs the first. A mark that is there stays, since its owner may have started.
//
// The ETA parts the copies from a retry, which has the same id.
func markOnce(m *amqp.Delivery) {
	eta, _ := m.Headers["eta"].(string)
	if _, marked := m.Headers[protocol.OnceHeader]; marked || eta == "" {
		return
	}
	owner := "original"
	if !m.Redelivered {
		owner = token()
	}
	m.Headers[protocol.OnceHeader] = eta + "/" + owner
}
