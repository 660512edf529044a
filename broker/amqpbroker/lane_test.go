package amqpbroker_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/lovage-go/lovage/broker"
	"github.com/lovage-go/lovage/internal/testenv"
)

// TestLateLanes: a claim does not wait for as long as it takes to consume, and the
// next one opens another lane. What the server has sent to the one that is then
// too late comes again, and nobody has died.
func TestLateLanes(t *testing.T) {
	t.Parallel()
	const messages, latency = 8, 100 * time.Millisecond
	server := testenv.RabbitMQ(t)
	for i := range 12 { // the server consumes, and its answer is on the way, in some of them
		wait := time.Duration(2+i/2)*latency + time.Duration(i%2)*latency/2
		t.Run(wait.String(), func(t *testing.T) {
			t.Parallel()
			vhost := server.Vhost(t)
			proxy := testenv.NewProxy(t, server.Addr)
			conn := open(t, strings.Replace(vhost, server.Addr, proxy.Addr, 1), nil)
			defer conn.Close()
			ctx := limit(t, patience)
			cs, err := conn.Consume(ctx, broker.ConsumeConfig{Queues: []broker.Queue{broker.Named("q")}, Window: messages})
			if err != nil {
				t.Fatal(err)
			}
			var msgs []*broker.Message
			for i := range messages {
				msgs = append(msgs, task("q", fmt.Sprint(i)))
			}
			if err := conn.Publish(ctx, msgs...); err != nil {
				t.Fatal(err)
			}
			proxy.Latency(latency)
			short, cancel := context.WithTimeout(ctx, wait)
			defer cancel()
			again := 0
			for n, c := 0, short; n < messages; c = ctx {
				ds, err := cs.Claim(c, 1)
				if err != nil && (c == ctx || !errors.Is(err, context.DeadlineExceeded)) {
					t.Fatalf("claimed %d of %d: %v", n, messages, err)
				}
				for i := range ds {
					n++
					if ds[i].Redelivered {
						again++
					}
					if ds[i].Orphaned {
						t.Error("a message is taken for an orphan")
					}
					if err := cs.Settle(ctx, broker.Settlement{Delivery: &ds[i]}); err != nil {
						t.Error(err)
					}
				}
			}
			t.Logf("%d of %d messages came again", again, messages)
		})
	}
}
