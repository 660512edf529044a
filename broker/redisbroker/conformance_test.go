package redisbroker_test

import (
	"testing"
	"time"

	"github.com/lovage-go/lovage/broker"
	"github.com/lovage-go/lovage/broker/brokertest"
	"github.com/lovage-go/lovage/broker/redisbroker"
	"github.com/lovage-go/lovage/internal/testenv"
)

func open(t testing.TB, url string, options map[string]any) *redisbroker.Conn {
	t.Helper()
	c, err := redisbroker.Open(t.Context(), broker.Config{URL: url, Options: options, MaxBody: 6 << 20})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestConformance(t *testing.T) {
	t.Parallel()
	for name, options := range map[string]map[string]any{
		"Plain":  nil,
		"Prefix": {"global_keyprefix": "team1:"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server := testenv.Redis(t)
			var urls = newRegistry()
			brokertest.Run(t, brokertest.Harness{
				Open: func(t *testing.T) broker.Conn {
					url := server.URL(server.DB(t))
					c := open(t, url, options)
					urls.put(c, url)
					return c
				},
				Reopen: func(t *testing.T, c broker.Conn) broker.Conn {
					url := urls.get(c)
					again := open(t, url, options)
					urls.put(again, url)
					return again
				},
				Kill: func(t *testing.T, c broker.Conn) {
					if err := c.(*redisbroker.Conn).Cut(); err != nil {
						t.Error(err)
					}
				},
				Lease: time.Second,
			})
		})
	}
}

// TestClusterConformance judges the driver on a cluster of three masters. Queues
// and results are in different slots there, so finishes are no one step.
func TestClusterConformance(t *testing.T) {
	t.Parallel()
	cluster := testenv.Cluster(t)
	prefixes := newRegistry()
	join := func(t *testing.T, prefix string) broker.Conn {
		c := open(t, cluster.URL(), map[string]any{"global_keyprefix": prefix})
		prefixes.put(c, prefix)
		return c
	}
	brokertest.Run(t, brokertest.Harness{
		Open:   func(t *testing.T) broker.Conn { return join(t, cluster.Prefix()) },
		Reopen: func(t *testing.T, c broker.Conn) broker.Conn { return join(t, prefixes.get(c)) },
		Kill: func(t *testing.T, c broker.Conn) {
			if err := c.(*redisbroker.Conn).Cut(); err != nil {
				t.Error(err)
			}
		},
		Lease: time.Second,
		Lacks: []brokertest.Ability{brokertest.Atomic},
	})
}
