package sqlbroker_test

import (
	"log/slog"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/lovage-go/lovage/broker"
	"github.com/lovage-go/lovage/broker/brokertest"
	"github.com/lovage-go/lovage/broker/sqlbroker"
)

func TestConformance(t *testing.T) {
	t.Parallel()
	var urls sync.Map // of connections
	connect := func(t *testing.T, url string) broker.Conn {
		t.Helper()
		c, err := sqlbroker.OpenApart(t.Context(), broker.Config{URL: url, MaxBody: 16 << 20, Logger: slog.New(slog.DiscardHandler)}, nil)
		if err != nil {
			t.Fatal(err)
		}
		urls.Store(broker.Conn(c), url)
		return c
	}
	brokertest.Run(t, brokertest.Harness{
		Open: func(t *testing.T) broker.Conn {
			return connect(t, "sqlite://"+filepath.Join(t.TempDir(), "store.db"))
		},
		Reopen: func(t *testing.T, c broker.Conn) broker.Conn {
			url, _ := urls.Load(c)
			return connect(t, url.(string))
		},
		Kill: func(t *testing.T, c broker.Conn) {
			if err := c.(*sqlbroker.Conn).Abandon(); err != nil {
				t.Error(err)
			}
		},
		Lease: 2 * time.Second,
	})
}
