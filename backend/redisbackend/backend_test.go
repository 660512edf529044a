package redisbackend_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/lovage-go/lovage/backend"
	"github.com/lovage-go/lovage/backend/backendtest"
	"github.com/lovage-go/lovage/backend/redisbackend"
	"github.com/lovage-go/lovage/internal/redisconn"
	"github.com/lovage-go/lovage/internal/testenv"
	"github.com/lovage-go/lovage/protocol"
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

// TestClusterConformance judges the store on a cluster of three masters.
func TestClusterConformance(t *testing.T) {
	t.Parallel()
	cluster := testenv.Cluster(t)
	var prefixes sync.Map // of each backend
	join := func(t *testing.T, prefix string) backend.Backend {
		b := open(t, cluster.URL(), map[string]any{"global_keyprefix": prefix})
		prefixes.Store(b, prefix)
		return b
	}
	backendtest.Run(t, backendtest.Harness{
		Open: func(t *testing.T) backend.Backend { return join(t, cluster.Prefix()) },
		Reopen: func(t *testing.T, b backend.Backend) backend.Backend {
			prefix, _ := prefixes.Load(b)
			return join(t, prefix.(string))
		},
		Lacks: []backendtest.Ability{backendtest.Cleanup},
	})
}

// TestClusterSpreadsResults: results are in all slots, on all masters.
func TestClusterSpreadsResults(t *testing.T) {
	t.Parallel()
	cluster := testenv.Cluster(t)
	prefix := cluster.Prefix()
	b := open(t, cluster.URL(), map[string]any{"global_keyprefix": prefix})
	defer b.Close()
	recs := make([]*backend.Record, 300)
	for i := range recs {
		id := fmt.Sprint("task-", i)
		recs[i] = &backend.Record{TaskID: id, State: protocol.Success, Meta: []byte("a pickle of " + id), Expires: time.Hour}
	}
	if err := b.Store(t.Context(), recs...); err != nil {
		t.Fatal(err)
	}
	late := &backend.Record{TaskID: "task-7", State: protocol.Failure, Meta: []byte("late"), Expires: time.Hour}
	if err := b.Store(t.Context(), late); err != nil {
		t.Fatal(err)
	}
	ids := make([]string, len(recs))
	for i, r := range recs {
		ids[i] = r.TaskID
	}
	got, err := b.Fetch(t.Context(), ids...)
	if err != nil {
		t.Fatal(err)
	}
	for i, r := range got {
		if string(r.Meta) != string(recs[i].Meta) {
			t.Errorf("result %s is %q", r.TaskID, r.Meta)
		}
	}
	for _, m := range cluster.Masters {
		n := 0
		for _, k := range m.Keys(t, prefix+redisconn.TaskKey+"*") {
			if strings.HasPrefix(k, prefix) {
				n++
			}
		}
		t.Logf("%d results on %s", n, m.Addr)
		if n < 50 {
			t.Errorf("%d of 300 results are on master %s, want about a third", n, m.Addr)
		}
	}
}

// TestSentinelFailover: the master dies, and the same store goes on with what the
// replica has. Who waits for a result gets it from the new master.
func TestSentinelFailover(t *testing.T) {
	t.Parallel()
	url, master := testenv.Sentinel(t, "main")
	b := open(t, url, map[string]any{"master_name": "main", "socket_timeout": 3})
	defer b.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
	defer cancel()
	store := func(id string) error {
		return b.Store(ctx, &backend.Record{TaskID: id, State: protocol.Success, Meta: []byte(`{"status": "SUCCESS"}`), Expires: time.Hour})
	}
	if err := store("before"); err != nil {
		t.Fatal(err)
	}
	master.Replicated(t)
	w, err := b.Watch(ctx, "after")
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	master.Stop(t)
	start := time.Now()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for err := store("after"); err != nil; err = store("after") {
		if !errors.Is(err, backend.ErrUnavailable) {
			t.Fatal(err)
		}
		<-tick.C
	}
	stored := time.Now()
	for {
		recs, err := b.Fetch(ctx, "before", "after")
		if err == nil {
			if recs[0].State != protocol.Success || recs[1].State != protocol.Success {
				t.Errorf("fetched %+v", recs)
			}
			break
		}
		if !errors.Is(err, backend.ErrUnavailable) {
			t.Fatal(err)
		}
		<-tick.C
	}
	select {
	case <-w.Ring():
	case <-time.After(time.Minute):
		t.Error("the watch does not ring on the new master")
	}
	t.Logf("stored on the new master %v after the death of the old, the watch rang %v later",
		stored.Sub(start).Round(time.Millisecond), time.Since(stored).Round(time.Millisecond))
}
