package redisbroker_test

import (
	"errors"
	"testing"
	"time"

	"github.com/lovage-go/lovage/broker"
	"github.com/lovage-go/lovage/internal/testenv"
	"github.com/lovage-go/lovage/protocol"
)

// TestServerRefuses: a server that cannot serve now gives errors that may be
// retried, nothing is lost by them, and afterwards the same consumer goes on.
func TestServerRefuses(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name      string
		ill, well []string
		publishes bool // all the same
		drains    bool // claims and finishes go through
	}{
		{name: "OOM", ill: []string{"CONFIG", "SET", "maxmemory", "1"}, well: []string{"CONFIG", "SET", "maxmemory", "0"}, drains: true},
		{name: "READONLY", ill: []string{"REPLICAOF", "127.0.0.1", "1"}, well: []string{"REPLICAOF", "NO", "ONE"}},
		{name: "NOREPLICAS", ill: []string{"CONFIG", "SET", "min-replicas-to-write", "3"}, well: []string{"CONFIG", "SET", "min-replicas-to-write", "0"}},
		{name: "NOSCRIPT", ill: []string{"SCRIPT", "FLUSH"}, well: []string{"PING"}, publishes: true, drains: true},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			server := testenv.PrivateRedis(t)
			rdb := client(t, server.URL(0))
			do := func(words []string) {
				t.Helper()
				if err := rdb.Do(t.Context(), rdb.B().Arbitrary(words...).Build()).Error(); err != nil {
					t.Fatal(err)
				}
			}
			conn := open(t, server.URL(0), nil)
			defer conn.Close()
			cs := consume(t, conn, "q")
			if err := conn.Publish(t.Context(), task("q", "a"), task("q", "b")); err != nil {
				t.Fatal(err)
			}
			first, err := cs.Claim(limit(t), 1)
			if err != nil {
				t.Fatal(err)
			}
			do(c.ill)
			want := func(what string, passes bool, err error) {
				t.Helper()
				if passes && err != nil || !passes && !broker.Retryable(err) {
					t.Errorf("%s: got %v, want an error that may be retried: %t", what, err, !passes)
				}
			}
			want("publish", c.publishes, conn.Publish(t.Context(), task("q", "c")))
			later := task("q", "later")
			later.NotBefore = time.Now().Add(time.Hour)
			want("publish delayed", c.publishes, conn.Publish(t.Context(), later))
			fin := broker.Finish{
				Publish: []*broker.Message{task("q", "next")},
				Store:   []*protocol.Record{{TaskID: "a", State: protocol.Success, Meta: meta("a"), Expires: time.Hour}},
				Settle:  broker.Settlement{Delivery: &first[0]},
			}
			finish := func() error { return cs.(broker.AtomicFinisher).FinishAll(t.Context(), fin) }
			want("finish", c.drains, finish())
			if !c.drains {
				_, err := cs.Claim(limit(t), 1)
				want("claim", false, err)
			}
			do(c.well)
			if !c.drains { // nothing of it was done
				if err := finish(); err != nil {
					t.Errorf("finish again: %v", err)
				}
			}
			for _, id := range []string{"b", "c", "next"} {
				if id == "c" && !c.publishes {
					continue
				}
				ds, err := cs.Claim(limit(t), 1)
				if err != nil || len(ds) != 1 || ds[0].Properties.CorrelationID != id {
					t.Fatalf("claimed %d, %v, want %s", len(ds), err, id)
				}
				err = cs.Settle(t.Context(), broker.Settlement{Delivery: &ds[0]})
				if err != nil {
					t.Error(err)
				}
				if err := cs.Settle(t.Context(), broker.Settlement{Delivery: &ds[0]}); !errors.Is(err, broker.ErrLeaseLost) {
					t.Errorf("settled twice: %v", err)
				}
			}
		})
	}
}
