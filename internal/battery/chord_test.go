package battery_test

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/lovage-go/lovage"
	_ "github.com/lovage-go/lovage/backend/redisbackend"
	_ "github.com/lovage-go/lovage/broker/redisbroker"
	"github.com/lovage-go/lovage/internal/testenv"
	"github.com/lovage-go/lovage/worker"
)

var chords = flag.Int("chords", 200, "chords of the chord test")

// chordMembers is how many members a chord has.
const chordMembers = 10

// chordApp is what runs Python's chords.
func chordApp(broker, results string, l *ledger, log *slog.Logger) *lovage.App {
	app := lovage.New("battery", lovage.Config{BrokerURL: broker, ResultBackend: results, TaskMaxWorkerLosses: lovage.NoLimit}, lovage.WithLogger(log))
	lovage.Func(app, "battery.part", func(ctx context.Context, i int) (int, error) {
		select {
		case <-time.After(time.Duration(i) * time.Millisecond):
		case <-ctx.Done():
			return 0, context.Cause(ctx)
		}
		if i%7 == 3 && lovage.RequestFrom(ctx).Retries == 0 {
			return 0, lovage.Retry(errors.New("once more"), lovage.Countdown(20*time.Millisecond))
		}
		return i, nil
	})
	lovage.Func(app, "battery.body", func(ctx context.Context, list []int) ([]int, error) {
		r := lovage.RequestFrom(ctx)
		l.write("body", r.ID, r.Delivery.Redelivered)
		return list, nil
	})
	return app
}

func runChordWorker(r role) error {
	l, err := openLedger(r.Ledger)
	if err != nil {
		return err
	}
	app := chordApp(r.Broker, r.Results, l, slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn})))
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	w := worker.New(app, worker.Config{Concurrency: 4, Lease: 3 * time.Second, Ready: func(worker.Info) { fmt.Println("ready") }})
	if err := w.Run(ctx); err != nil {
		return err
	}
	return app.Close(context.Background())
}

// chordsPy sends chords and prints the ids of their bodies.
const chordsPy = `
import json, sys
from celery import Celery, chord, signature
app = Celery('battery', broker=sys.argv[1], backend=sys.argv[2])
app.conf.task_default_queue = 'celery'
sig = lambda name, *a: signature(name, args=a, app=app)
print(json.dumps([chord([sig('battery.part', i) for i in range(int(sys.argv[4]))], sig('battery.body')).apply_async().id for _ in range(int(sys.argv[3]))]))
`

// TestChordsEndOnce: Python sends chords to Go workers that are killed at random.
// Each body gets the results of all members in order, and runs once: again only
// if the worker that ran it was killed.
func TestChordsEndOnce(t *testing.T) {
	for name, apart := range map[string]bool{"OneStore": false, "TwoStores": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			began := time.Now()
			server := testenv.Redis(t)
			broker := server.URL(server.DB(t))
			results := broker
			if apart {
				results = server.URL(server.DB(t))
			}
			dir := t.TempDir()
			path := filepath.Join(dir, "ledger")
			r := role{Kind: "chords", Broker: broker, Results: results, Ledger: path}
			workers := []*process{start(t, dir, r), start(t, dir, r), start(t, dir, r)}
			t.Cleanup(func() {
				for _, w := range workers {
					_ = w.cmd.Process.Kill()
					<-w.gone
				}
			})
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute+time.Duration(*chords)*100*time.Millisecond)
			defer cancel()
			kills := make(chan int, 1)
			killing, stop := context.WithCancel(ctx)
			go func() {
				rng := rand.New(rand.NewPCG(*seed, 7))
				n := 0
				defer func() { kills <- n }()
				for {
					select {
					case <-time.After(time.Duration(200+rng.IntN(400)) * time.Millisecond):
					case <-killing.Done():
						return
					}
					i := rng.IntN(len(workers))
					_ = workers[i].cmd.Process.Kill()
					<-workers[i].gone
					workers[i] = start(t, dir, r)
					n++
				}
			}()
			var ids []string
			out := testenv.Python(t, ctx, nil, chordsPy, broker, results, fmt.Sprint(*chords), fmt.Sprint(chordMembers))
			if err := json.Unmarshal(out, &ids); err != nil {
				t.Fatal(err)
			}
			judge := chordApp(broker, results, &ledger{f: os.Stderr}, slog.New(slog.DiscardHandler))
			defer judge.Close(context.Background())
			ended := 0
			err := judge.Results(ctx, ids, func(m *lovage.Meta) error {
				list, err := lovage.DecodeResult[[]int](m)
				if text := fmt.Sprint(list); err != nil || text != "[0 1 2 3 4 5 6 7 8 9]" {
					t.Errorf("body %s: %s, %v", m.TaskID, text, err)
				}
				if ended++; ended == len(ids)*4/5 { // the last ones end in peace
					stop()
				}
				return nil
			})
			stop()
			n := <-kills
			if err != nil {
				t.Fatalf("%d of %d bodies ended, after %d kills: %v\n%s", ended, len(ids), n, err, tail(dir))
			}
			data, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			fresh, runs := map[string]int{}, map[string]int{}
			for line := range strings.Lines(string(data)) {
				f := strings.Fields(line)
				if runs[f[1]]++; f[2] == "false" {
					fresh[f[1]]++
				}
			}
			again := 0
			for _, id := range ids {
				if fresh[id] > 1 || runs[id] == 0 {
					t.Errorf("body %s was delivered afresh %d times, of %d runs", id, fresh[id], runs[id])
				}
				again += runs[id] - 1
			}
			t.Logf("%d chords of %d, %d kills, %d bodies run again after one, %v", len(ids), chordMembers, n, again, time.Since(began).Round(time.Millisecond))
		})
	}
}
