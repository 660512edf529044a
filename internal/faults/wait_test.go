package faults_test

import (
	"context"
	"io"
	"testing"
	"time"

	"github.com/lovage-go/lovage"
	"github.com/lovage-go/lovage/internal/testenv"
	"github.com/lovage-go/lovage/worker"
)

// TestRedisWaits: a client waits for a result, and its own connection is lost
// before the result is there. It is told all the same.
func TestRedisWaits(t *testing.T) {
	t.Parallel()
	for name, lose := range map[string]func(p *proxy){
		"Drop":      (*proxy).Drop,
		"Reset":     (*proxy).Reset,
		"HalfOpen":  (*proxy).HalfOpen,
		"Away":      func(p *proxy) { p.Down(); time.AfterFunc(2*time.Second, p.Up) },
		"Blackhole": func(p *proxy) { p.Blackhole(); time.AfterFunc(2*time.Second, p.Heal) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := redis(t, testenv.Redis(t))
			// The worker is not what is tested: it goes around the proxy.
			r := newRig(t, stores{through: s.direct, direct: s.direct, broker: s.broker, results: s.results}, worker.Config{})
			r.start()
			waiter, nap := r.app(s.through, io.Discard)
			defer waiter.Close(context.Background())
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			defer cancel()
			res, err := nap.Delay(ctx, napArgs{name, 1000}, lovage.TaskID(name))
			if err != nil {
				t.Fatal(err)
			}
			type answer struct {
				got string
				err error
				at  time.Time
			}
			answered := make(chan answer, 1)
			go func() {
				got, err := res.Get(ctx)
				answered <- answer{got, err, time.Now()}
			}()
			r.ledger.wait(patience, r.started(name))
			<-time.After(200 * time.Millisecond) // it has subscribed
			lose(s.broker)
			a := <-answered
			if a.err != nil || a.got != name {
				t.Fatalf("got %q, %v", a.got, a.err)
			}
			var ended time.Time
			r.ledger.wait(patience, func() bool { ended = r.ledger.ended[name]; return !ended.IsZero() })
			late := a.at.Sub(ended)
			t.Logf("told %v after the task had ended", late.Round(time.Millisecond))
			if late > 2*time.Second+within() {
				t.Errorf("told %v after the task had ended", late)
			}
		})
	}
}
