package memory_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/lovage-go/lovage/backend"
	"github.com/lovage-go/lovage/broker"
	"github.com/lovage-go/lovage/memory"
	"github.com/lovage-go/lovage/protocol"
)

func message(id, queue string) *broker.Message {
	return &broker.Message{
		Headers:    protocol.Headers{ID: id, Task: "test.task"},
		Properties: protocol.Properties{CorrelationID: id},
		Body:       []byte(id),
		RoutingKey: queue,
		Queue:      queue,
	}
}

func consume(t *testing.T, c broker.Conn, queues ...string) broker.Consumer {
	t.Helper()
	cfg := broker.ConsumeConfig{}
	for _, q := range queues {
		cfg.Queues = append(cfg.Queues, broker.Named(q))
	}
	cs, err := c.Consume(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	return cs
}

func claimOne(t *testing.T, cs broker.Consumer) *broker.Delivery {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	ds, err := cs.Claim(ctx, 1)
	if err != nil {
		t.Fatal(err)
	}
	return &ds[0]
}

func TestDelayRunsOnTheBubblesClock(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := memory.New()
		c := s.Broker()
		m := message("a", "q")
		start := time.Now()
		m.NotBefore = start.Add(time.Hour)
		if err := c.Publish(t.Context(), m); err != nil {
			t.Fatal(err)
		}
		cs := consume(t, c, "q")
		ds, err := cs.Claim(t.Context(), 1)
		if err != nil || string(ds[0].Body) != "a" {
			t.Fatalf("got %v, %v", ds, err)
		}
		if got := time.Since(start); got != time.Hour {
			t.Errorf("delivered after %v, want 1h", got)
		}
		if err := cs.Settle(t.Context(), broker.Settlement{Delivery: &ds[0]}); err != nil {
			t.Error(err)
		}
	})
}

func TestKilledProcessIsFenced(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := memory.New()
		p := s.Process("one")
		c, b := p.Broker(), p.Backend()
		if err := c.Publish(t.Context(), message("a", "q")); err != nil {
			t.Fatal(err)
		}
		cs := consume(t, c, "q")
		d := claimOne(t, cs)
		p.Kill()
		err := cs.(broker.AtomicFinisher).FinishAll(t.Context(), broker.Finish{
			Publish: []*broker.Message{message("next", "q")},
			Store:   []*protocol.Record{{TaskID: "a", State: protocol.Success, Meta: []byte("{}")}},
			Settle:  broker.Settlement{Delivery: d},
		})
		if !errors.Is(err, broker.ErrLeaseLost) {
			t.Errorf("FinishAll of a killed process: %v, want ErrLeaseLost", err)
		}
		if err := b.Store(t.Context(), &backend.Record{TaskID: "a", State: protocol.Success}); !errors.Is(err, backend.ErrClosed) {
			t.Errorf("Store of a killed process: %v, want ErrClosed", err)
		}
		recs, err := s.Backend().Fetch(t.Context(), "a")
		if err != nil || recs[0].Meta != nil || recs[0].State != "" {
			t.Errorf("the killed process left %+v, %v", recs, err)
		}
		d2 := claimOne(t, consume(t, s.Broker(), "q"))
		if string(d2.Body) != "a" || !d2.Orphaned || !d2.Redelivered {
			t.Errorf("got %+v, want the orphan", d2)
		}
	})
}

func TestStoppedProcessWakesFenced(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := memory.New(memory.WithLease(time.Second))
		p := s.Process("one")
		c := p.Broker()
		if err := c.Publish(t.Context(), message("a", "q")); err != nil {
			t.Fatal(err)
		}
		cs := consume(t, c, "q")
		d := claimOne(t, cs)
		p.Stop()
		settled := make(chan error, 1)
		go func() { settled <- cs.Settle(t.Context(), broker.Settlement{Delivery: d}) }()
		other := consume(t, s.Broker(), "q")
		start := time.Now()
		d2 := claimOne(t, other)
		if got := time.Since(start); got != time.Second {
			t.Errorf("taken over after %v, want the lease, 1s", got)
		}
		p.Resume()
		if err := <-settled; !errors.Is(err, broker.ErrLeaseLost) {
			t.Errorf("settlement after the stop: %v, want ErrLeaseLost", err)
		}
		if err := other.Settle(t.Context(), broker.Settlement{Delivery: d2}); err != nil {
			t.Error(err)
		}
	})
}

func TestURLsNameStores(t *testing.T) {
	t.Parallel()
	c1, err1 := broker.Open(t.Context(), broker.Config{URL: "memory://urls"})
	c2, err2 := broker.Open(t.Context(), broker.Config{URL: "memory://urls/"})
	b, err3 := backend.Open(t.Context(), backend.Config{URL: "cache+memory://urls"})
	other, err4 := broker.Open(t.Context(), broker.Config{URL: "memory://urls-other"})
	if err := errors.Join(err1, err2, err3, err4); err != nil {
		t.Fatal(err)
	}
	id := func(x any) string { return x.(broker.StoreIdentity).StoreID() }
	if id(c1) != id(c2) || id(c1) != id(b) {
		t.Errorf("one name gives stores %s, %s, %s", id(c1), id(c2), id(b))
	}
	if id(c1) == id(other) {
		t.Errorf("two names share store %s", id(c1))
	}
}
