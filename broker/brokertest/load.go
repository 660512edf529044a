package brokertest

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"

	"github.com/lovage-go/lovage/broker"
)

var loadCases = []testCase{
	{"Load/ManyConsumersOneDeliveryEach", nil, func(w *world) {
		const consumers, messages = 16, 640
		seen := w.drain(consumers, messages, func() {
			for i := 0; i < messages; i += 64 {
				ids := make([]string, 64)
				for j := range ids {
					ids[j] = fmt.Sprint(i + j)
				}
				w.send("q", ids...)
			}
		})
		w.once(seen, messages)
	}},
	{"Load/ManyPublishers", nil, func(w *world) {
		const publishers, each = 64, 10
		seen := w.drain(4, publishers*each, func() {
			errs := make([]error, publishers)
			var wg sync.WaitGroup
			for p := range publishers {
				wg.Go(func() {
					for i := range each {
						errs[p] = errors.Join(errs[p], w.conn.Publish(w.ctx, message("q", fmt.Sprint(p*each+i))))
					}
				})
			}
			wg.Wait()
			w.must(errors.Join(errs...))
		})
		w.once(seen, publishers*each)
	}},
	{"Load/HandBacksAmongManyConsumers", nil, func(w *world) {
		// Half of the consumers hand back what they get; all messages are
		// acked by the others, once each.
		const messages = 200
		ctx, stop := context.WithCancel(w.ctx)
		var wg sync.WaitGroup
		for range 2 {
			cs := w.consumer(w.other(), "q")
			wg.Go(func() {
				for range messages {
					ds, err := cs.Claim(ctx, 3)
					if err != nil {
						return
					}
					for i := range ds {
						if err := cs.Settle(w.ctx, broker.Settlement{Delivery: &ds[i], Action: broker.HandBack}); err != nil {
							w.Errorf("hand back: %v", err)
						}
					}
				}
			})
		}
		ids := make([]string, messages)
		for i := range ids {
			ids[i] = fmt.Sprint(i)
		}
		seen := w.drain(2, messages, func() { w.send("q", ids...) })
		stop()
		wg.Wait()
		w.once(seen, messages)
	}},
}

// drain starts consumers on connections of their own, calls publish and acks
// until so many messages are acked. It returns how often each body was.
func (w *world) drain(consumers, messages int, publish func()) map[string]int {
	w.Helper()
	ctx, stop := context.WithCancel(w.ctx)
	defer stop()
	var (
		mu    sync.Mutex
		seen  = map[string]int{}
		acked atomic.Int64
		wg    sync.WaitGroup
	)
	for range consumers {
		cs := w.consumer(w.other(), "q")
		wg.Go(func() {
			for {
				ds, err := cs.Claim(ctx, 7)
				if err != nil {
					if ctx.Err() == nil {
						w.Errorf("claim: %v", err)
					}
					return
				}
				sts := make([]broker.Settlement, len(ds))
				mu.Lock()
				for i := range ds {
					seen[string(ds[i].Body)]++
					sts[i] = broker.Settlement{Delivery: &ds[i]}
				}
				mu.Unlock()
				if err := cs.Settle(w.ctx, sts...); err != nil {
					w.Errorf("ack: %v", err)
				}
				if acked.Add(int64(len(ds))) >= int64(messages) {
					stop()
				}
			}
		})
	}
	publish()
	wg.Wait()
	if err := w.ctx.Err(); err != nil {
		w.Errorf("%d of %d messages were acked: %v", acked.Load(), messages, context.Cause(w.ctx))
	}
	return seen
}

func (w *world) once(seen map[string]int, messages int) {
	w.Helper()
	if len(seen) != messages {
		w.Errorf("%d different messages were delivered, want %d", len(seen), messages)
	}
	for id, n := range seen {
		if n != 1 {
			w.Errorf("message %s was acked %d times", id, n)
		}
	}
	w.wantLength("q", broker.Length{})
}
