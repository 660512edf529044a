package redisbackend_test

import (
	"sync"
	"testing"

	"github.com/lovage-go/lovage/backend"
	"github.com/lovage-go/lovage/backend/backendtest"
	"github.com/lovage-go/lovage/backend/redisbackend"
	"github.com/lovage-go/lovage/internal/testenv"
)

func open(t testing.TB, url string, options map[string]any) *redisbackend.Backend {
	t.Helper()
	b, err := redisbackend.Open(t.Context(), backend.Config{URL: url, Options: options})
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestConformance(t *testing.T) {
	t.Parallel()
	for name, options := range map[string]map[string]any{
		"Plain":  nil,
		"Prefix": {"global_keyprefix": "team1_"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server := testenv.Redis(t)
			var urls sync.Map // of each backend
			backendtest.Run(t, backendtest.Harness{
				Open: func(t *testing.T) backend.Backend {
					url := server.URL(server.DB(t))
					b := open(t, url, options)
					urls.Store(b, url)
					return b
				},
				Reopen: func(t *testing.T, b backend.Backend) backend.Backend {
					url, _ := urls.Load(b)
					again := open(t, url.(string), options)
					urls.Store(again, url)
					return again
				},
				Lacks: []backendtest.Ability{backendtest.Cleanup},
			})
		})
	}
}
