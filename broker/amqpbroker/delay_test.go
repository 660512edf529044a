package amqpbroker_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/lovage-go/lovage/broker"
	"github.com/lovage-go/lovage/internal/testenv"
	amqp "github.com/rabbitmq/amqp091-go"
)

// TestHalfMadeDelays: somebody else makes the delay queues, and has not bound
// them yet, or was killed before. They are bound by whoever needs them.
func TestHalfMadeDelays(t *testing.T) {
	t.Parallel()
	url := testenv.RabbitMQ(t).Vhost(t)
	other, err := amqp.Dial(url)
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	ch, err := other.Channel()
	if err != nil {
		t.Fatal(err)
	}
	next := "celery_delayed_delivery"
	for i := range 7 {
		name := fmt.Sprint("lovage_delayed_", i)
		for _, exchange := range []string{next, name} {
			if err := ch.ExchangeDeclare(exchange, "topic", true, false, false, false, nil); err != nil {
				t.Fatal(err)
			}
		}
		args := amqp.Table{"x-dead-letter-exchange": next, "x-message-ttl": 1 << i}
		if _, err := ch.QueueDeclare(name, true, false, false, false, args); err != nil {
			t.Fatal(err)
		}
		next = name
	}
	s := newSite(t, url, nil)
	if err := s.c.Publish(t.Context(), delayedTask("q", "late", 100*time.Millisecond)); err != nil {
		t.Fatal(err)
	}
	d := s.claim(limit(t, patience))
	if d.Properties.CorrelationID != "late" {
		t.Errorf("got %q", d.Properties.CorrelationID)
	}
	if err := s.settle(d, broker.Ack); err != nil {
		t.Error(err)
	}
}
