package redisbackend_test

import (
	"context"
	"strconv"
	"strings"
	"testing"

	"github.com/redis/rueidis"

	"github.com/lovage-go/lovage/backend"
	"github.com/lovage-go/lovage/backend/redisbackend"
	"github.com/lovage-go/lovage/internal/testenv"
)

// TestWatches holds that waits which follow one another share a connection.
func TestWatches(t *testing.T) {
	t.Parallel()
	server := testenv.PrivateRedis(t)
	b, err := redisbackend.Open(t.Context(), backend.Config{URL: server.URL(0)})
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	rdb, err := rueidis.NewClient(rueidis.ClientOption{InitAddress: []string{server.Addr}, ForceSingleClient: true, DisableCache: true})
	if err != nil {
		t.Fatal(err)
	}
	defer rdb.Close()
	watch := func(id string) {
		w, err := b.Watch(t.Context(), id)
		if err != nil {
			t.Fatal(err)
		}
		if err := b.Store(t.Context(), &backend.Record{TaskID: id, State: "SUCCESS", Meta: []byte(`{"status": "SUCCESS"}`)}); err != nil {
			t.Fatal(err)
		}
		select {
		case <-w.Ring():
		case <-t.Context().Done():
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
	}
	watch("first")
	before := connections(t, rdb)
	for i := range 50 {
		watch(strconv.Itoa(i))
	}
	if got := connections(t, rdb) - before; got != 0 {
		t.Errorf("50 waits made %d connections, want none", got)
	}
}

// connections is how many the server has accepted.
func connections(t *testing.T, rdb rueidis.Client) int {
	t.Helper()
	info, err := rdb.Do(context.Background(), rdb.B().Info().Section("stats").Build()).ToString()
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(info, "total_connections_received:")
	n, err := strconv.Atoi(strings.TrimSpace(strings.SplitN(rest, "\n", 2)[0]))
	if err != nil {
		t.Fatal(err)
	}
	return n
}
