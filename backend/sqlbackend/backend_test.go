package sqlbackend_test

import (
	"log/slog"
	"path/filepath"
	"sync"
	"testing"

	"github.com/lovage-go/lovage/backend"
	"github.com/lovage-go/lovage/backend/backendtest"
	"github.com/lovage-go/lovage/backend/sqlbackend"
)

func TestConformance(t *testing.T) {
	t.Parallel()
	var urls sync.Map // of backends
	connect := func(t *testing.T, url string) backend.Backend {
		t.Helper()
		b, err := sqlbackend.OpenApart(t.Context(), backend.Config{URL: url, Logger: slog.New(slog.DiscardHandler)})
		if err != nil {
			t.Fatal(err)
		}
		urls.Store(backend.Backend(b), url)
		return b
	}
	backendtest.Run(t, backendtest.Harness{
		Open: func(t *testing.T) backend.Backend {
			return connect(t, "sqlite://"+filepath.Join(t.TempDir(), "store.db"))
		},
		Reopen: func(t *testing.T, b backend.Backend) backend.Backend {
			url, _ := urls.Load(b)
			return connect(t, url.(string))
		},
		Lacks: []backendtest.Ability{backendtest.Chords},
	})
}
