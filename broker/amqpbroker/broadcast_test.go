package amqpbroker_test

import (
	"testing"
	"time"

	"github.com/lovage-go/lovage/broker"
	"github.com/lovage-go/lovage/broker/amqpbroker"
	"github.com/lovage-go/lovage/internal/testenv"
)

// TestBroadcastQueues: each worker has a queue of its own, which is deleted with
// its consumer: resting, handing back and a full window must not end it.
func TestBroadcastQueues(t *testing.T) {
	t.Parallel()
	url := testenv.RabbitMQ(t).Vhost(t)
	ctx := limit(t, patience)
	sender := open(t, url, nil)
	defer sender.Close()
	var consumers []broker.Consumer
	for _, name := range []string{"bcast.1", "bcast.2"} {
		c := open(t, url, nil)
		defer c.Close()
		q := broker.Broadcast("news")
		q.Name = name
		cs, err := c.Consume(ctx, broker.ConsumeConfig{Queues: []broker.Queue{q}, Window: 2})
		if err != nil {
			t.Fatal(err)
		}
		consumers = append(consumers, cs)
	}
	idle := limit(t, 50*time.Millisecond)
	for _, cs := range consumers {
		if ds, _ := cs.Claim(idle, 1); len(ds) > 0 {
			t.Fatal("something came before it was sent")
		}
		amqpbroker.Rest(cs)
	}
	for _, id := range []string{"a", "b", "c"} {
		m := task("", id)
		m.Exchange, m.RoutingKey, m.Mandatory = "news", "any", true
		if err := sender.Publish(ctx, m); err != nil {
			t.Fatal(err)
		}
	}
	for _, cs := range consumers {
		seen := ""
		for n := 0; n < 4; n++ {
			ds, err := cs.Claim(ctx, 1)
			if err != nil {
				t.Fatalf("after %q: %v", seen, err)
			}
			action := broker.Ack
			if n == 0 {
				action = broker.HandBack
			} else {
				seen += string(ds[0].Body)
			}
			if err := cs.Settle(ctx, broker.Settlement{Delivery: &ds[0], Action: action}); err != nil {
				t.Fatal(err)
			}
		}
		if len(seen) != 3 {
			t.Errorf("got %q, want three messages", seen)
		}
	}
}
