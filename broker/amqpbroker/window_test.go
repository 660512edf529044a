package amqpbroker_test

import (
	"strconv"
	"testing"
	"time"

	"github.com/lovage-go/lovage/broker"
	"github.com/lovage-go/lovage/internal/testenv"
	"github.com/lovage-go/lovage/protocol"
)

// TestWindowStepsDown: a consumer that took many messages at a time and now takes
// one at a time gives back what it has buffered, while it goes on: another consumer
// gets nearly all.
func TestWindowStepsDown(t *testing.T) {
	t.Parallel()
	const window, others = 100, 200
	url := testenv.RabbitMQ(t).Vhost(t)
	ctx := limit(t, patience)
	var consumers [2]broker.Consumer
	queue := broker.Named("q")
	for i := range consumers {
		conn := open(t, url, nil)
		t.Cleanup(func() {
			if err := conn.Close(); err != nil {
				t.Error(err)
			}
		})
		if i == 0 {
			msgs := make([]*broker.Message, window+others)
			for i := range msgs {
				msgs[i] = &broker.Message{Queue: "q", Headers: protocol.Headers{Task: "t", ID: strconv.Itoa(i)}, Body: []byte("[[], {}, {}]")}
			}
			if err := conn.Publish(ctx, msgs...); err != nil {
				t.Fatal(err)
			}
		}
		var err error
		if consumers[i], err = conn.Consume(ctx, broker.ConsumeConfig{Queues: []broker.Queue{queue}, Window: 2 * others}); err != nil {
			t.Fatal(err)
		}
	}
	slow, other := consumers[0], consumers[1]
	take := func(cs broker.Consumer, limit int) int {
		ds, err := cs.Claim(ctx, limit)
		if err != nil {
			t.Fatal(err)
		}
		for i := range ds {
			if err := cs.Settle(ctx, broker.Settlement{Delivery: &ds[i], Action: broker.Ack}); err != nil {
				t.Fatal(err)
			}
		}
		return len(ds)
	}
	for n := 0; n < window; { // its window is that wide then
		n += take(slow, window-n)
	}
	ended := make(chan int)
	go func() {
		n := 0
		for n < others/2+window/4 { // more than the window leaves it
			ds, err := other.Claim(ctx, others)
			if err != nil {
				break
			}
			n += len(ds)
		}
		ended <- n
	}()
	run := time.NewTicker(50 * time.Millisecond) // how long each message takes
	defer run.Stop()
	for {
		select {
		case n := <-ended:
			if least := others/2 + window/4; n < least {
				t.Errorf("the other consumer got %d messages, want %d or more", n, least)
			}
			return
		case <-run.C:
			take(slow, 1)
		}
	}
}
