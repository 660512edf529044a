package amqpbroker_test

import (
	"sync"
	"testing"

	"github.com/lovage-go/lovage/broker"
	"github.com/lovage-go/lovage/broker/amqpbroker"
	"github.com/lovage-go/lovage/broker/brokertest"
	"github.com/lovage-go/lovage/internal/testenv"
)

func open(t testing.TB, url string, options map[string]any) *amqpbroker.Conn {
	t.Helper()
	c, err := amqpbroker.Open(t.Context(), broker.Config{URL: url, Options: options, MaxBody: 6 << 20})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// always is what AMQP cannot do, whatever the type of the queue.
var always = []brokertest.Ability{brokertest.Bindings, brokertest.Peek, brokertest.PeekDelayed, brokertest.Pause, brokertest.Leases, brokertest.Atomic,
	brokertest.Orphans, brokertest.Claims, brokertest.Delays, brokertest.Listing, brokertest.Zero, brokertest.Unexpiry}

func TestConformance(t *testing.T) {
	t.Parallel()
	server := testenv.RabbitMQ(t)
	for name, kind := range map[string]struct {
		options map[string]any
		lacks   []brokertest.Ability
	}{
		"Classic":  {map[string]any{"delayed_queue_type": "classic"}, []brokertest.Ability{brokertest.Priority}},
		"Priority": {map[string]any{"max_priority": 10, "delayed_queue_type": "classic"}, nil},
		"Quorum":   {map[string]any{"queue_type": "quorum"}, []brokertest.Ability{brokertest.Priority, brokertest.Places}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var urls sync.Map
			at := func(url string) broker.Conn {
				c := open(t, url, kind.options)
				urls.Store(c, url)
				return c
			}
			brokertest.Run(t, brokertest.Harness{
				Open: func(t *testing.T) broker.Conn { return at(server.Vhost(t)) },
				Reopen: func(t *testing.T, c broker.Conn) broker.Conn {
					url, _ := urls.Load(c)
					return at(url.(string))
				},
				Kill:  func(t *testing.T, c broker.Conn) { c.(*amqpbroker.Conn).Cut() },
				Lacks: append(kind.lacks, always...),
			})
		})
	}
}
