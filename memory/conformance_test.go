package memory_test

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/lovage-go/lovage/backend"
	"github.com/lovage-go/lovage/backend/backendtest"
	"github.com/lovage-go/lovage/broker"
	"github.com/lovage-go/lovage/broker/brokertest"
	"github.com/lovage-go/lovage/memory"
)

func brokerHarness(around func(*testing.T, func(*testing.T)), opts ...memory.Option) brokertest.Harness {
	opts = append(opts, memory.WithMaxBody(6<<20))
	h := brokertest.Harness{
		Open:   func(*testing.T) broker.Conn { return memory.New(opts...).Broker() },
		Reopen: func(_ *testing.T, c broker.Conn) broker.Conn { return c.(*memory.Conn).Reopen() },
		Kill:   func(_ *testing.T, c broker.Conn) { c.(*memory.Conn).Kill() },
		Lease:  time.Second,
		Around: around,
	}
	if around != nil { // time is exact
		h.TakeOver = 2 * h.Lease
	}
	return h
}

func TestBroker(t *testing.T) {
	t.Parallel()
	t.Run("Bubble", func(t *testing.T) { brokertest.Run(t, brokerHarness(synctest.Test)) })
	t.Run("BubbleOrphansAfterLease", func(t *testing.T) {
		brokertest.Run(t, brokerHarness(synctest.Test, memory.WithOrphansAfterLease()))
	})
	t.Run("RealClock", func(t *testing.T) { brokertest.Run(t, brokerHarness(nil)) })
}

func TestBackend(t *testing.T) {
	t.Parallel()
	harness := backendtest.Harness{
		Open:   func(*testing.T) backend.Backend { return memory.New().Backend() },
		Reopen: func(_ *testing.T, b backend.Backend) backend.Backend { return b.(*memory.Backend).Reopen() },
		Lacks:  []backendtest.Ability{backendtest.Chords},
	}
	bubble := harness
	bubble.Around = synctest.Test
	t.Run("Bubble", func(t *testing.T) { backendtest.Run(t, bubble) })
	t.Run("RealClock", func(t *testing.T) { backendtest.Run(t, harness) })
}
