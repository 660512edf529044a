package redisbroker_test

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/lovage-go/lovage/broker"
	"github.com/lovage-go/lovage/broker/redisbroker"
	"github.com/lovage-go/lovage/internal/testenv"
	"github.com/redis/rueidis"
)

// stale puts a claim into unacked as a Python worker makes it that died an hour
// ago.
func stale(t *testing.T, c *redisbroker.Conn, url, tag, queue string) {
	t.Helper()
	rdb := client(t, url)
	key, err := json.Marshal(queue)
	if err != nil {
		t.Fatal(err)
	}
	hold(t, rdb, tag, "["+c.WriteEnvelope(task(queue, tag))+`, "", `+string(key)+"]", time.Now().Add(-2*time.Hour))
}

// hold puts a record to unacked, as kombu does.
func hold(t *testing.T, rdb rueidis.Client, tag, record string, at time.Time) {
	t.Helper()
	for _, r := range rdb.DoMulti(t.Context(), rdb.B().Zadd().Key("unacked_index").ScoreMember().ScoreMember(float64(at.UnixMilli())/1000, tag).Build(),
		rdb.B().Hset().Key("unacked").FieldValue().FieldValue(tag, record).Build()) {
		if err := r.Error(); err != nil {
			t.Fatal(err)
		}
	}
}

// TestSweepsForPython: with the option given, Go gives back what dead Python
// workers held; without, it leaves that to them.
func TestSweepsForPython(t *testing.T) {
	t.Parallel()
	server := testenv.Redis(t)
	url := server.URL(server.DB(t))
	patient := open(t, url, nil)
	defer patient.Close()
	stale(t, patient, url, "tag-1", "q")
	stale(t, patient, url, "tag-2", "q")
	cs := consume(t, patient, "q")
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if ds, err := cs.Claim(ctx, 10); err == nil {
		t.Fatalf("claimed %d although the option is not given", len(ds))
	}
	rdb := client(t, url) // kombu's lock, of a Python worker that was killed in its sweep
	if err := rdb.Do(t.Context(), rdb.B().Set().Key("unacked_mutex").Value("kombu").Nx().Build()).Error(); err != nil {
		t.Fatal(err)
	}
	sweeper := open(t, url, map[string]any{"visibility_timeout": 3600})
	defer sweeper.Close()
	cs = consume(t, sweeper, "q") // sweeps at once
	for got := 0; got < 2; {
		ds, err := cs.Claim(limit(t), 10)
		if err != nil {
			t.Fatal(err)
		}
		for i := range ds {
			if !ds[i].Redelivered || ds[i].Orphaned || !strings.HasPrefix(ds[i].Properties.CorrelationID, "tag-") {
				t.Errorf("delivered %+v", ds[i])
			}
			if err := cs.Settle(t.Context(), broker.Settlement{Delivery: &ds[i]}); err != nil {
				t.Error(err)
			}
		}
		got += len(ds)
	}
}

// TestSweepsOnce: what several workers give back at once, and Python has claimed
// again by then under the same tag, is given back once.
func TestSweepsOnce(t *testing.T) {
	t.Parallel()
	server := testenv.Redis(t)
	url := server.URL(server.DB(t))
	rdb := client(t, url)
	c := open(t, url, map[string]any{"visibility_timeout": 3600})
	defer c.Close()
	const claims = 300
	for i := range claims {
		stale(t, c, url, fmt.Sprintf("tag-%d", i), "q")
	}
	done := make(chan struct{})
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for {
				if err := c.Sweep(t.Context()); err != nil {
					t.Error(err)
				}
				select {
				case <-done:
					return
				default:
				}
			}
		})
	}
	claimed, last := map[string]int{}, limit(t)
	for n := 0; n < claims; {
		got, err := rdb.Do(last, rdb.B().Brpop().Key("q").Timeout(1).Build()).AsStrSlice()
		if err != nil {
			if rueidis.IsRedisNil(err) && last.Err() == nil {
				continue
			}
			t.Fatal(err)
		}
		var envelope struct {
			Properties struct {
				ID string `json:"correlation_id"`
			}
		}
		if err := json.Unmarshal([]byte(got[1]), &envelope); err != nil {
			t.Fatal(err)
		}
		tag := envelope.Properties.ID
		if claimed[tag]++; claimed[tag] == 1 {
			n++
		}
		hold(t, rdb, tag, "["+got[1]+`, "", "q"]`, time.Now())
	}
	close(done)
	wg.Wait()
	for tag, n := range claimed {
		if n != 1 {
			t.Errorf("%s came %d times", tag, n)
		}
	}
	if n, err := rdb.Do(t.Context(), rdb.B().Llen().Key("q").Build()).AsInt64(); err != nil || n != 0 {
		t.Errorf("%d more are given back, %v", n, err)
	}
}

// sweepPy is kombu's own sweep, as its workers do it on a timer. It prints how
// often each of its transactions was tried.
const sweepPy = `
import json, sys, time
from kombu import Connection
from redis import Redis
with Connection(sys.argv[1], transport_options={'visibility_timeout': 60}) as conn:
    channel = conn.default_channel
    tries = []
    transaction = Redis.transaction
    def counted(self, func, *watches, **kwargs):
        tries.append(0)
        def once(pipe):
            tries[-1] += 1
            return func(pipe)
        return transaction(self, once, *watches, **kwargs)
    Redis.transaction = counted
    start = time.time()
    while channel.client.zcount('unacked_index', 0, start - 3600):
        channel.qos.restore_visible(num=10, interval=1)
    print(json.dumps({'tries': tries, 'seconds': time.time() - start}))
`

// mostTries is how often a transaction of kombu's sweep may fail before it goes
// through; kombu itself has no bound.
const mostTries = 100

// TestInteropPythonSweepsWhileGoRuns: kombu restores under WATCH of unacked,
// which Go changes all the time, at full rate; it must get through all the same,
// and must not touch what Go holds.
func TestInteropPythonSweepsWhileGoRuns(t *testing.T) {
	t.Parallel()
	server := testenv.PrivateRedis(t)
	url := server.URL(0)
	c := open(t, url, nil)
	defer c.Close()
	const restored = 20
	for i := range restored {
		stale(t, c, url, fmt.Sprintf("tag-%d", i), "other")
	}
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	var (
		wg      sync.WaitGroup
		settled atomic.Int64
	)
	for range 2 {
		wg.Go(func() {
			msgs := make([]*broker.Message, 200)
			for i := range msgs {
				msgs[i] = task("work", taskID(i))
			}
			for ctx.Err() == nil {
				if err := c.Publish(context.WithoutCancel(ctx), msgs...); err != nil {
					t.Error(err)
					return
				}
			}
		})
		cs := consume(t, c, "work")
		wg.Go(func() {
			for ctx.Err() == nil {
				ds, err := cs.Claim(ctx, 100)
				if err != nil && ctx.Err() == nil {
					t.Error(err)
					return
				}
				sts := make([]broker.Settlement, len(ds))
				for i := range ds {
					sts[i].Delivery = &ds[i]
				}
				if err := cs.Settle(context.WithoutCancel(ctx), sts...); err != nil {
					t.Errorf("a claim of Go's was taken: %v", err)
					return
				}
				settled.Add(int64(len(ds)))
			}
		})
	}
	limited, cancel := context.WithTimeout(ctx, 60*time.Second)
	defer cancel()
	start := time.Now()
	raw := testenv.Python(t, limited, nil, sweepPy, url)
	rate := float64(settled.Load()) / time.Since(start).Seconds()
	stop()
	wg.Wait()
	var sweep struct {
		Tries   []int
		Seconds float64
	}
	if err := json.Unmarshal(raw, &sweep); err != nil {
		t.Fatalf("%v in %s", err, raw)
	}
	t.Logf("kombu restored %d messages in %.3f s, with %d tries each, while Go settled %.0f/s", len(sweep.Tries), sweep.Seconds, sweep.Tries, rate)
	if len(sweep.Tries) != restored || slices.Max(sweep.Tries) > mostTries {
		t.Errorf("kombu tried its transactions %d times, want %d transactions of at most %d tries", sweep.Tries, restored, mostTries)
	}
	other := consume(t, c, "other")
	for n := 0; n < restored; {
		ds, err := other.Claim(limit(t), 10)
		if err != nil {
			t.Fatal(err)
		}
		for i := range ds {
			if !ds[i].Redelivered {
				t.Errorf("message %s is not marked as redelivered", ds[i].Properties.CorrelationID)
			}
			if err := other.Settle(t.Context(), broker.Settlement{Delivery: &ds[i]}); err != nil {
				t.Error(err)
			}
		}
		n += len(ds)
	}
}

// restorePy is kombu's sweep of the claims of a Go worker that nobody renews.
const restorePy = `
import sys
from kombu import Connection
with Connection(sys.argv[1], transport_options={'visibility_timeout': 0}) as conn:
    channel = conn.default_channel
    channel.qos.restore_visible(num=100, interval=1)
    print(channel.client.hlen('unacked'), sorted(channel.client.keys('q*')))
`

// TestInteropPythonRestoresGoClaims: with no Go worker left, kombu's sweep can
// restore what they held, each message to the list it came from, and the old
// holder cannot settle it any more.
func TestInteropPythonRestoresGoClaims(t *testing.T) {
	t.Parallel()
	server := testenv.Redis(t)
	url := server.URL(server.DB(t))
	c := open(t, url, nil)
	defer c.Close()
	urgent := task("q", "later")
	six := 6
	urgent.Properties.Priority = &six
	if err := c.Publish(t.Context(), task("q", "now"), urgent); err != nil {
		t.Fatal(err)
	}
	cs := consume(t, c, "q")
	ds, err := cs.Claim(limit(t), 10)
	if err != nil || len(ds) != 2 {
		t.Fatalf("claimed %d, %v", len(ds), err)
	}
	out := testenv.Python(t, limit(t), nil, restorePy, url)
	if got, want := strings.TrimSpace(string(out)), `0 [b'q', b'q\x06\x166']`; got != want {
		t.Errorf("after kombu's sweep: %s, want %s", got, want)
	}
	for i := range ds {
		if err := cs.Settle(t.Context(), broker.Settlement{Delivery: &ds[i]}); err == nil {
			t.Error("the old holder settled what was restored")
		}
	}
	again, err := cs.Claim(limit(t), 10)
	if err != nil || len(again) != 2 || !again[0].Redelivered || again[0].Properties.CorrelationID != "now" {
		t.Fatalf("claimed %d again, %v", len(again), err)
	}
	for i := range again {
		if err := cs.Settle(t.Context(), broker.Settlement{Delivery: &again[i]}); err != nil {
			t.Error(err)
		}
	}
}
