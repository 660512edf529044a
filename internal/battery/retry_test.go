package battery_test

import (
	"context"
	"flag"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/lovage-go/lovage"
)

var calls = flag.Int("calls", 15, "calls of each client of the retry test")

// TestRetriesAreAnswered: clients call tasks that are tried again after 10 to
// 200 ms, one call after the other, while workers are killed. A wake-up that is
// lost anywhere on the way leaves a client without an answer.
func TestRetriesAreAnswered(t *testing.T) {
	dir := t.TempDir()
	url := fmt.Sprintf("sqlite://%s?lease=5s", filepath.Join(dir, "retry.db"))
	r := role{Kind: "worker", Broker: url, Results: url, Ledger: filepath.Join(dir, "ledger"), Slots: 2, Mix: "calm"}
	workers := []*process{start(t, dir, r), start(t, dir, r)}
	t.Cleanup(func() {
		for _, w := range workers {
			_ = w.cmd.Process.Kill()
			<-w.gone
		}
	})
	const clients = 4
	const patience = time.Minute
	var mu sync.Mutex
	var late []time.Duration // beyond the countdowns
	var wg sync.WaitGroup
	for c := range clients {
		wg.Go(func() {
			rng := rand.New(rand.NewPCG(*seed, uint64(c)))
			p := newParts(r, nil, slog.New(slog.DiscardHandler))
			defer p.app.Close(context.Background())
			for i := range *calls {
				in := flaky{Failures: rng.IntN(3), Millis: 10 + rng.IntN(190)}
				if rng.IntN(8) == 0 {
					in.Millis = 0
				}
				began := time.Now()
				ctx, cancel := context.WithTimeout(t.Context(), patience)
				res, err := p.flaky.Delay(ctx, in, lovage.TaskID(fmt.Sprintf("c%d-%d", c, i)))
				if err == nil {
					_, err = res.Get(ctx)
				}
				cancel()
				if err != nil {
					t.Errorf("client %d, call %d, %+v: no answer within %v: %v\n%s", c, i, in, patience, err, tail(dir))
					return
				}
				mu.Lock()
				late = append(late, time.Since(began)-time.Duration(in.Failures*in.Millis)*time.Millisecond)
				mu.Unlock()
			}
		})
	}
	done := make(chan struct{})
	go func() { wg.Wait(); close(done) }()
	kill := time.NewTicker(700 * time.Millisecond)
	defer kill.Stop()
	kills := 0
	for {
		select {
		case <-kill.C:
			i := kills % len(workers)
			_ = workers[i].cmd.Process.Kill()
			<-workers[i].gone
			kills++
			workers[i] = start(t, dir, r)
			continue
		case <-done:
		}
		break
	}
	slices.Sort(late)
	if n := len(late); n > 0 {
		t.Logf("%d calls, %d kills: answered after their countdowns within p50 %v, p99 %v, at most %v", n, kills, late[n/2], late[n*99/100], late[n-1])
	}
}
