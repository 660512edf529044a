package faults_test

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/lovage-go/lovage/internal/testenv"
	"github.com/lovage-go/lovage/worker"
)

// must sends a task.
func (r *rig) must(id string, d time.Duration) {
	r.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if err := r.send(ctx, id, d, true); err != nil {
		r.Fatal(err)
	}
}

// started and stored look at the ledger and at the result store.
func (r *rig) started(id string) func() bool {
	return func() bool { return r.ledger.starts[id] > 0 }
}

func (r *rig) stored(id string) bool {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	got, err := r.client.Result(id).Get(ctx)
	return err == nil && got == any(id)
}

// once wants a line to be in the log once, with the wait that it tells of.
func (r *rig) once(text string) {
	r.Helper()
	if n := r.log.count(text); n != 1 {
		r.Errorf("%d log lines say %q, want 1\n%s", n, text, r.tail())
	}
}

// TestRedisStoreAway: broker and results are on two servers, and one is away.
func TestRedisStoreAway(t *testing.T) {
	t.Parallel()
	lease := worker.Config{Lease: 4 * time.Second, Grace: time.Second}
	apart := func(t *testing.T, cfg worker.Config) *rig {
		r := newRig(t, redis(t, testenv.Redis(t), testenv.PrivateRedis(t)), cfg)
		r.start()
		return r
	}
	t.Run("ResultsAwayForLongerThanALease", func(t *testing.T) {
		t.Parallel()
		r := apart(t, lease)
		r.results.Down()
		for i := range 50 {
			r.must(name("a", i), 0)
		}
		r.until(patience, "50 ends wait, no slot is taken", func() bool {
			s := r.w.Stats()
			return s.Finishing == 50 && s.SlotsUsed == 0
		})
		<-time.After(2 * r.cfg.Lease)
		r.results.Up()
		took := r.consumes("after")
		r.settled(fault{})
		r.once("the store does not take the ends of tasks")
		r.once("the store takes the ends of tasks again")
		if !strings.Contains(r.log.String(), "again\" after=") {
			t.Errorf("the log does not tell how long the store was away\n%s", r.tail())
		}
		t.Logf("50 ends waited for %v and were kept %v after the store was back", 2*r.cfg.Lease, took)
	})
	t.Run("ShutdownWhileResultsAreAway", func(t *testing.T) {
		t.Parallel()
		r := apart(t, lease)
		r.results.Down()
		r.must("a", 0)
		r.until(patience, "the end waits", func() bool { return r.w.Stats().Finishing == 1 && r.w.Stats().SlotsUsed == 0 })
		r.stop()
		r.once("the store does not take the ends of tasks; their messages go back")
		r.results.Up()
		r.start()
		r.settled(fault{repeats: "its result could not be kept before the shutdown"})
		if s := r.w.Stats(); s.Losses != 0 || s.Succeeded != 2 {
			t.Errorf("the next worker counts %+v, want no loss and two successes, with the callback", s)
		}
		if n := r.ledger.starts["a"]; n != 2 {
			t.Errorf("the task ran %d times, want 2: once for each worker", n)
		}
	})
	t.Run("BrokerAway", func(t *testing.T) {
		t.Parallel()
		r := apart(t, worker.Config{Lease: 10 * time.Second})
		r.must("a", time.Second)
		r.ledger.wait(patience, r.started("a"))
		r.broker.Down()
		r.until(patience, "the result is stored while the broker is away", func() bool { return r.stored("a") })
		<-time.After(time.Second)
		r.broker.Up()
		took := r.consumes("after")
		r.settled(fault{})
		r.once("consumer: connection lost")
		r.once("consumer: connection is back")
		if !strings.Contains(r.log.String(), "connection is back\" after=") {
			t.Errorf("the log does not tell how long the broker was away\n%s", r.tail())
		}
		t.Logf("consuming %v after the broker was back", took)
	})
	t.Run("WhatSucceededIsNotRunAgainWhoeverHasItsMessage", func(t *testing.T) {
		t.Parallel()
		r := apart(t, lease)
		r.must("a", time.Second)
		r.ledger.wait(patience, r.started("a"))
		r.broker.Down()
		other := newRig(t, stores{through: r.direct, direct: r.direct, broker: r.broker, results: r.results}, lease)
		other.ledger = r.ledger
		other.start()
		r.until(patience, "another worker has its message and does not run it", func() bool { return other.w.Stats().Succeeded > 0 })
		other.stop()
		r.broker.Up()
		r.consumes("after")
		r.settled(fault{repeats: "none, but the other worker counts some of what ended"})
		if n := other.w.Stats().Losses; n != 0 {
			t.Errorf("losses: %d, want none: the task had succeeded", n)
		}
		if n := r.ledger.starts["a"]; n != 1 {
			t.Errorf("the task ran %d times, want once", n)
		}
	})
}
