package broker

import "time"

// Exchange is an AMQP exchange as data. The zero Exchange is the anonymous one.
type Exchange struct {
	Name       string
	Type       string // direct (default), topic, fanout, headers
	Transient  bool   // not durable
	AutoDelete bool
	Arguments  map[string]any
}

// Binding ties a queue to an exchange.
type Binding struct {
	Exchange   Exchange
	RoutingKey string
	Arguments  map[string]any
}

// Queue is a queue as data, with the fields that Celery's users set. Drivers
// honour what their system knows and ignore the rest of the AMQP arguments.
type Queue struct {
	Name       string
	Alias      string
	Exchange   Exchange
	RoutingKey string
	Bindings   []Binding // further bindings

	Transient  bool // not durable
	Exclusive  bool
	AutoDelete bool
	NoAck      bool
	NoDeclare  bool

	MessageTTL  time.Duration // 0: none
	Expires     time.Duration // unused queue is deleted; 0: never
	MaxLength   int
	MaxPriority int
	Type        string // classic, quorum
	Arguments   map[string]any
	Consumer    map[string]any // consumer_arguments
}

// Broadcast returns Celery's queue of that name: each worker has one of its own
// on a fanout exchange, so that every worker gets a copy of a message. It is known
// by the exchange's name, as its alias; the App gives it a name that is unique.
// It goes with its consumer.
func Broadcast(exchange string) Queue {
	return Queue{Alias: exchange, Exchange: Exchange{Name: exchange, Type: "fanout"}, AutoDelete: true}
}

// Named returns the plain durable direct queue of a name, as Celery makes it
// for a name it does not know: exchange and routing key are the name.
func Named(name string) Queue {
	return Queue{Name: name, Exchange: Exchange{Name: name, Type: "direct"}, RoutingKey: name}
}

// Direct returns the queue of one worker, by its node name, as Celery's
// worker_direct makes it.
func Direct(node string) Queue {
	return Queue{Name: node + ".dq2", Exchange: Exchange{Name: "C.dq2", Type: "direct"}, RoutingKey: node}
}
