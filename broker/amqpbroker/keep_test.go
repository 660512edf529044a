package amqpbroker_test

import (
	"context"
	"strconv"
	"strings"
	"testing"

	"github.com/lovage-go/lovage/broker"
	"github.com/lovage-go/lovage/broker/amqpbroker"
	"github.com/lovage-go/lovage/internal/testenv"
	"github.com/lovage-go/lovage/protocol"
)

const basicCancel = "60.30"

// TestClaimsKeepTheirConsumer: on a queue that is a quorum queue, or may be one, no
// consumer with claims is cancelled, whatever is asked for and for however long
// nothing is; when the claims are settled it is. The frames are recorded. A consumer
// of a classic queue is cancelled, and others get at once what it had buffered.
func TestClaimsKeepTheirConsumer(t *testing.T) {
	t.Parallel()
	server := testenv.RabbitMQ(t)
	for name, c := range map[string]struct {
		options map[string]any
		queue   broker.Queue
		keeps   bool
	}{
		"Quorum":     {map[string]any{"queue_type": "quorum"}, broker.Named("q"), true},
		"Argument":   {nil, broker.Queue{Name: "q", Arguments: map[string]any{"x-queue-type": "quorum"}}, true},
		"Undeclared": {nil, broker.Queue{Name: "q", NoDeclare: true}, true},
		"Classic":    {nil, broker.Named("q"), false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			const n = 120
			vhost := server.Vhost(t)
			tp := newTap(t, server.Addr)
			ctx := limit(t, patience)
			declared := c.queue
			declared.NoDeclare = false
			first := open(t, vhost, c.options)
			defer first.Close()
			if err := first.Declare(ctx, declared); err != nil {
				t.Fatal(err)
			}
			msgs := make([]*broker.Message, n)
			for i := range msgs {
				msgs[i] = &broker.Message{Queue: "q", Headers: protocol.Headers{Task: "t", ID: strconv.Itoa(i)}, Properties: protocol.Properties{CorrelationID: strconv.Itoa(i)}, Body: []byte("[[], {}, {}]")}
			}
			if err := first.Publish(ctx, msgs...); err != nil {
				t.Fatal(err)
			}
			conn := open(t, strings.Replace(vhost, server.Addr, tp.addr, 1), c.options)
			defer conn.Close()
			cs, err := conn.Consume(ctx, broker.ConsumeConfig{Queues: []broker.Queue{c.queue}, Window: 100})
			if err != nil {
				t.Fatal(err)
			}
			seen := map[string]bool{}
			var held []broker.Delivery
			take := func(most int) []broker.Delivery {
				t.Helper()
				ds, err := cs.Claim(ctx, most)
				if err != nil {
					t.Fatalf("with %d of %d claimed: %v", len(seen), n, err)
				}
				for _, d := range ds {
					if seen[d.Properties.CorrelationID] {
						t.Errorf("message %s came twice", d.Properties.CorrelationID)
					}
					seen[d.Properties.CorrelationID] = true
				}
				return ds
			}
			held = append(held, take(2)...)
			for len(held) < 30 { // wider than it was opened
				held = append(held, take(30-len(held))...)
			}
			amqpbroker.Rest(cs)
			held = append(held, take(1)...)
			if cancelled := cancels(tp); cancelled > 0 == c.keeps {
				t.Errorf("%d consumers were cancelled while they had claims", cancelled)
			}
			settle(ctx, t, cs, held)
			for len(seen) < n {
				settle(ctx, t, cs, take(40))
			}
			amqpbroker.Rest(cs)
			if cancels(tp) == 0 {
				t.Error("no consumer was cancelled, and none has claims")
			}
		})
	}
}

func settle(ctx context.Context, t *testing.T, cs broker.Consumer, ds []broker.Delivery) {
	t.Helper()
	for i := range ds {
		if err := cs.Settle(ctx, broker.Settlement{Delivery: &ds[i], Action: broker.Ack}); err != nil {
			t.Fatal(err)
		}
	}
}

func cancels(tp *tap) (n int) {
	for _, m := range tp.all() {
		if m.name() == basicCancel {
			n++
		}
	}
	return n
}
