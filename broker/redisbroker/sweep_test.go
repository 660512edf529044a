package redisbroker_test

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/lovage-go/lovage/broker"
	"github.com/lovage-go/lovage/broker/redisbroker"
	"github.com/lovage-go/lovage/internal/testenv"
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
	record := "[" + c.WriteEnvelope(task(queue, tag)) + `, "", ` + string(key) + "]"
	if err := rdb.Do(t.Context(), rdb.B().Hset().Key("unacked").FieldValue().FieldValue(tag, record).Build()).Error(); err != nil {
		t.Fatal(err)
	}
	at := float64(time.Now().Add(-2*time.Hour).UnixMilli()) / 1000
	if err := rdb.Do(t.Context(), rdb.B().Zadd().Key("unacked_index").ScoreMember().ScoreMember(at, tag).Build()).Error(); err != nil {
		t.Fatal(err)
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
	sweeper := open(t, url, map[string]any{"visibility_timeout": 3600})
	defer sweeper.Close()
	cs = consume(t, sweeper, "q")
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

// sweepPy is kombu's own sweep, as its workers do it on a timer.
const sweepPy = `
import sys, time
from kombu import Connection
with Connection(sys.argv[1], transport_options={'visibility_timeout': 60}) as conn:
    channel = conn.default_channel
    start = time.time()
    while channel.client.hlen('unacked') and channel.client.zcount('unacked_index', 0, start - 3600):
        channel.qos.restore_visible(num=10, interval=1)
    print(time.time() - start)
`

// TestInteropPythonSweepsWhileGoRuns: kombu restores under WATCH of unacked,
// which Go changes all the time; it must get through all the same, and must not
// touch what Go holds.
func TestInteropPythonSweepsWhileGoRuns(t *testing.T) {
	t.Parallel()
	server := testenv.PrivateRedis(t)
	url := server.URL(0)
	c := open(t, url, nil)
	defer c.Close()
	for i := range 5 {
		stale(t, c, url, fmt.Sprintf("tag-%d", i), "other")
	}
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	var wg sync.WaitGroup
	settled := 0
	cs := consume(t, c, "work")
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
			for n := 0; n < len(msgs); {
				ds, err := cs.Claim(context.WithoutCancel(ctx), 50)
				if err != nil {
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
				n += len(ds)
				settled += len(ds)
			}
		}
	})
	limited, cancel := context.WithTimeout(ctx, 60*time.Second)
	defer cancel()
	took := testenv.Python(t, limited, nil, sweepPy, url)
	stop()
	wg.Wait()
	t.Logf("kombu restored 5 messages in %s s while Go settled %d", strings.TrimSpace(string(took)), settled)
	other := consume(t, c, "other")
	for n := 0; n < 5; {
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
