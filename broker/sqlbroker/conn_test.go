package sqlbroker_test

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"testing"
	"time"

	"github.com/lovage-go/lovage/backend"
	"github.com/lovage-go/lovage/backend/sqlbackend"
	"github.com/lovage-go/lovage/broker"
	"github.com/lovage-go/lovage/broker/sqlbroker"
	"github.com/lovage-go/lovage/internal/sqlstore"
	"github.com/lovage-go/lovage/protocol"
)

func message(queue, id string) *broker.Message {
	return &broker.Message{
		Headers:    protocol.Headers{Lang: "go", Task: "proj.add", ID: id, RootID: id},
		Properties: protocol.Properties{ContentType: protocol.ContentJSON, ContentEncoding: protocol.EncodingUTF8, CorrelationID: id, DeliveryMode: 2},
		Body:       []byte(`[[2, 3], {}, {"callbacks": null, "errbacks": null, "chain": null, "chord": null}]`),
		RoutingKey: queue, Queue: queue,
	}
}

func tempURL(t testing.TB) string {
	return "sqlite://" + filepath.Join(t.TempDir(), "store.db")
}

func open(t testing.TB, url string) broker.Conn {
	t.Helper()
	c, err := broker.Open(t.Context(), broker.Config{URL: url})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	})
	return c
}

func apart(t testing.TB, url string, set func(*sqlstore.Config)) *sqlbroker.Conn {
	t.Helper()
	c, err := sqlbroker.OpenApart(t.Context(), broker.Config{URL: url}, set)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	})
	return c
}

func consume(t testing.TB, c broker.Conn, queues ...string) broker.Consumer {
	t.Helper()
	cfg := broker.ConsumeConfig{Worker: "celery@test"}
	for _, q := range queues {
		cfg.Queues = append(cfg.Queues, broker.Named(q))
	}
	cs, err := c.Consume(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	return cs
}

func limit(t testing.TB, d time.Duration) context.Context {
	ctx, cancel := context.WithTimeoutCause(t.Context(), d, fmt.Errorf("test waited %v", d))
	t.Cleanup(cancel)
	return ctx
}

func TestOneTransactionForARun(t *testing.T) {
	t.Parallel()
	url := tempURL(t)
	c := open(t, url)
	b, err := backend.Open(t.Context(), backend.Config{URL: url})
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	if got, want := c.(broker.StoreIdentity).StoreID(), b.(*sqlbackend.Backend).StoreID(); got != want {
		t.Errorf("broker has store id %q, backend %q", got, want)
	}
	cs := consume(t, c, "celery")
	if err := c.Publish(t.Context(), message("celery", "a")); err != nil {
		t.Fatal(err)
	}
	ds, err := cs.Claim(limit(t, time.Minute), 10)
	if err != nil || len(ds) != 1 {
		t.Fatalf("claimed %d, %v", len(ds), err)
	}
	fin := broker.Finish{
		Publish: []*broker.Message{message("celery", "b")},
		Store:   []*protocol.Record{{TaskID: "a", State: protocol.Success, Meta: []byte(`{"result": 5}`), Expires: time.Hour}},
		Settle:  broker.Settlement{Delivery: &ds[0], Action: broker.Ack},
	}
	fa := cs.(broker.AtomicFinisher)
	if err := fa.FinishAll(t.Context(), fin); err != nil {
		t.Fatal(err)
	}
	if err := fa.FinishAll(t.Context(), fin); !errors.Is(err, broker.ErrLeaseLost) {
		t.Errorf("a second finish of the claim gave %v, want ErrLeaseLost", err)
	}
	recs, err := b.Fetch(t.Context(), "a", "unknown")
	if err != nil {
		t.Fatal(err)
	}
	if string(recs[0].Meta) != `{"result": 5}` || recs[0].State != protocol.Success || recs[1].Meta != nil {
		t.Errorf("fetched %+v", recs)
	}
	ls, err := c.(broker.Lengther).Lengths(t.Context())
	if err != nil || ls["celery"] != (broker.Length{Ready: 1}) {
		t.Errorf("lengths are %+v, %v; want 1 ready", ls, err)
	}
}
