package amqpbroker_test

import (
	"slices"
	"testing"
	"time"

	"github.com/lovage-go/lovage/broker"
	"github.com/lovage-go/lovage/broker/amqpbroker"
	"github.com/lovage-go/lovage/internal/testenv"
)

// TestBroadcastQueues: each worker has a queue of its own, which is deleted with
// its consumer: resting, handing back and a full window must not end it. What is
// late comes to it too, and who only sends has none.
func TestBroadcastQueues(t *testing.T) {
	t.Parallel()
	url := testenv.RabbitMQ(t).Vhost(t)
	ctx := limit(t, patience)
	sender := open(t, url, nil)
	defer sender.Close()
	named := func(name string) broker.Queue {
		q := broker.Broadcast("news")
		q.Name = name
		return q
	}
	if err := sender.Declare(ctx, named("bcast.sender")); err != nil {
		t.Fatal(err)
	}
	var consumers []broker.Consumer
	for _, name := range []string{"bcast.1", "bcast.2"} {
		c := open(t, url, nil)
		defer c.Close()
		cs, err := c.Consume(ctx, broker.ConsumeConfig{Queues: []broker.Queue{named(name)}, Window: 2})
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
	for _, id := range []string{"a", "b", "c", "late"} {
		m := task("", id)
		m.Exchange, m.RoutingKey, m.Mandatory = "news", "any", true
		if id == "late" {
			m.NotBefore = time.Now().Add(100 * time.Millisecond)
		}
		if err := sender.Publish(ctx, m); err != nil {
			t.Fatal(err)
		}
	}
	for _, cs := range consumers {
		var seen []string
		for n := range 6 {
			ds, err := cs.Claim(ctx, 1)
			if err != nil {
				t.Fatalf("after %q: %v", seen, err)
			}
			st := broker.Settlement{Delivery: &ds[0]}
			switch n {
			case 0:
				st.Action = broker.HandBack
			case 1:
				st.Action, st.Until = broker.Park, time.Now().Add(50*time.Millisecond)
			default:
				seen = append(seen, string(ds[0].Body))
			}
			if err := cs.Settle(ctx, st); err != nil {
				t.Fatal(err)
			}
		}
		if slices.Sort(seen); !slices.Equal(seen, []string{"a", "b", "c", "late"}) {
			t.Errorf("got %q, want each message once", seen)
		}
	}
	if ls, err := sender.Lengths(ctx, "bcast.sender"); err != nil || ls["bcast.sender"].Ready > 0 {
		t.Errorf("the sender has a queue, which nobody empties: %+v, %v", ls, err)
	}
}

// TestAutoDeleteQueue: what is late comes to a queue that goes with its consumer.
func TestAutoDeleteQueue(t *testing.T) {
	t.Parallel()
	c := open(t, testenv.RabbitMQ(t).Vhost(t), nil)
	defer c.Close()
	ctx := limit(t, patience)
	q := broker.Named("passing")
	q.AutoDelete = true
	cs, err := c.Consume(ctx, broker.ConsumeConfig{Queues: []broker.Queue{q}})
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range []time.Duration{20 * time.Millisecond, time.Second} {
		if err := c.Publish(ctx, delayedTask("passing", "late", d)); err != nil {
			t.Fatal(err)
		}
		ds, err := cs.Claim(ctx, 1)
		if err != nil || string(ds[0].Body) != "late" {
			t.Fatalf("after %v: %v, %v", d, ds, err)
		}
		if err := cs.Settle(ctx, broker.Settlement{Delivery: &ds[0]}); err != nil {
			t.Error(err)
		}
	}
}
