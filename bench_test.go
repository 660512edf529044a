package lovage_test

import (
	"context"
	"log/slog"
	"testing"

	"github.com/lovage-go/lovage"
	"github.com/lovage-go/lovage/broker"
)

// nop is a finisher that keeps nothing.
type nop struct{}

func (nop) Finish(context.Context, *lovage.Effects) error { return nil }

func benchApp(b *testing.B) (*world, *lovage.Handle[twoArgs, int]) {
	w := newWorld(b, lovage.Config{}, lovage.WithLogger(slog.New(slog.DiscardHandler)))
	h := lovage.Func(w.app, "t.add", func(_ context.Context, in twoArgs) (int, error) { return in.X + in.Y, nil })
	return w, h
}

// BenchmarkReceiveExecute is one message without a store: decode, plan, run,
// classify and encode the result. The bar is 5 µs and 30 allocations.
func BenchmarkReceiveExecute(b *testing.B) {
	w, h := benchApp(b)
	must[*lovage.Result[int]](b)(h.Delay(w.ctx(), twoArgs{2, 3}))
	d := w.claim()
	ctx := context.Background()
	b.ReportAllocs()
	for b.Loop() {
		r, err := w.app.Receive(d)
		if err != nil {
			b.Fatal(err)
		}
		if out := w.app.Execute(ctx, r, nop{}); out.State != lovage.Success {
			b.Fatal(out)
		}
	}
}

// BenchmarkDelay is one call onto the memory broker.
func BenchmarkDelay(b *testing.B) {
	w, h := benchApp(b)
	ctx := context.Background()
	conn := must[broker.Conn](b)(w.app.Broker(ctx))
	n := 0
	b.ReportAllocs()
	for b.Loop() {
		if _, err := h.Delay(ctx, twoArgs{2, 3}); err != nil {
			b.Fatal(err)
		}
		if n++; n%10_000 == 0 {
			if _, err := conn.(broker.Purger).Purge(ctx, "celery"); err != nil {
				b.Fatal(err)
			}
		}
	}
}
