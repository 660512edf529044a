package memory_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/lovage-go/lovage/backend"
	"github.com/lovage-go/lovage/broker"
	"github.com/lovage-go/lovage/memory"
	"github.com/lovage-go/lovage/protocol"
)

func TestFaults(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		own := errors.New("disk full")
		s := memory.New(memory.WithFaults(memory.Plan{Faults: []memory.Fault{
			{Op: memory.OpPublish, Nth: 1, Kind: memory.Fail},
			{Op: memory.OpPublish, Nth: 2, Kind: memory.DropReply},
			{Op: memory.OpPublish, Nth: 3, Kind: memory.Delay, Delay: time.Minute},
			{Op: memory.OpClaim, Nth: 1, Kind: memory.Duplicate},
			{Op: memory.OpStore, Nth: 1, Kind: memory.Fail, Err: own},
			{Op: memory.OpFetch, Nth: 1, Kind: memory.Fail},
		}}))
		c, b := s.Broker(), s.Backend()
		if err := c.Publish(t.Context(), message("refused", "q")); !errors.Is(err, broker.ErrUnavailable) {
			t.Errorf("first publish: %v, want ErrUnavailable", err)
		}
		if err := c.Publish(t.Context(), message("kept", "q")); !broker.Retryable(err) {
			t.Errorf("second publish: %v, want a lost reply", err)
		}
		start := time.Now()
		if err := c.Publish(t.Context(), message("slow", "q")); err != nil || time.Since(start) != time.Minute {
			t.Errorf("third publish: %v after %v, want nil after 1m", err, time.Since(start))
		}
		cs := consume(t, c, "q")
		var got []string
		for range 3 {
			d := claimOne(t, cs)
			got = append(got, fmt.Sprint(string(d.Body), " ", d.Redelivered))
			if err := cs.Settle(t.Context(), broker.Settlement{Delivery: d}); err != nil {
				t.Error(err)
			}
		}
		if want := []string{"kept false", "kept true", "slow false"}; !slices.Equal(got, want) {
			t.Errorf("claimed %v, want %v", got, want)
		}
		if err := b.Store(t.Context(), &backend.Record{TaskID: "a"}); !errors.Is(err, own) {
			t.Errorf("store: %v, want the plan's error", err)
		}
		if _, err := b.Fetch(t.Context(), "a"); !errors.Is(err, backend.ErrUnavailable) {
			t.Errorf("fetch: %v, want ErrUnavailable", err)
		}
		if n := len(s.Met()); n != 6 {
			t.Errorf("met %d faults, want 6", n)
		}
	})
}

func TestASeedReplays(t *testing.T) {
	t.Parallel()
	run := func(seed uint64) (met []memory.Fault) {
		synctest.Test(t, func(t *testing.T) {
			s := memory.New(memory.WithFaults(memory.Plan{Seed: seed, Rate: 0.3}))
			c := s.Broker()
			for i := range 200 {
				if err := c.Publish(t.Context(), message(fmt.Sprint(i), "q")); err != nil && !broker.Retryable(err) {
					t.Fatal(err)
				}
			}
			for _, f := range s.Met() {
				f.Err = nil
				met = append(met, f)
			}
		})
		return met
	}
	one, again, other := run(1), run(1), run(2)
	if !slices.Equal(one, again) {
		t.Errorf("one seed gave %v and then %v", one, again)
	}
	if slices.Equal(one, other) {
		t.Error("two seeds gave the same faults")
	}
	if len(one) < 30 || len(one) > 90 {
		t.Errorf("%d of 200 publishes met a fault at a rate of 0.3", len(one))
	}
}

func TestAwaitOutlastsAnOutage(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var faults []memory.Fault
		for n := 1; n <= 5; n++ {
			faults = append(faults, memory.Fault{Op: memory.OpFetch, Nth: n, Kind: memory.Fail}, memory.Fault{Op: memory.OpWatch, Nth: n, Kind: memory.Fail})
		}
		b := memory.New(memory.WithFaults(memory.Plan{Faults: faults})).Backend()
		if err := b.Store(t.Context(), &backend.Record{TaskID: "a", State: protocol.Success, Meta: []byte("1")}); err != nil {
			t.Fatal(err)
		}
		got, err := backend.Await(t.Context(), b, "a", func(backend.Record) bool { return true })
		if err != nil || string(got.Meta) != "1" {
			t.Errorf("got %q, %v", got.Meta, err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		if _, err := backend.Await(ctx, b, "unknown", func(backend.Record) bool { return true }); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got %v, want the deadline", err)
		}
	})
}
