package sqlbackend_test

import (
	"context"
	"fmt"
	"log/slog"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/lovage-go/lovage/backend"
	"github.com/lovage-go/lovage/backend/sqlbackend"
	"github.com/lovage-go/lovage/protocol"
)

func openApart(t testing.TB, url string) *sqlbackend.Backend {
	t.Helper()
	b, err := sqlbackend.OpenApart(t.Context(), backend.Config{URL: url, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := b.Close(); err != nil {
			t.Error(err)
		}
	})
	return b
}

func tempURL(t testing.TB) string {
	return "sqlite://" + filepath.Join(t.TempDir(), "store.db") + "?synchronous=normal"
}

// TestARingIsForWhoWatchedBeforeTheWrite: while others' results pour in, and
// watches come and go, a result written after Watch has returned is rung.
func TestARingIsForWhoWatchedBeforeTheWrite(t *testing.T) {
	t.Parallel()
	url := tempURL(t)
	mine, theirs := openApart(t, url), openApart(t, url)
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
	defer cancel()
	var pouring sync.WaitGroup
	pouring.Go(func() {
		recs := make([]*backend.Record, 64)
		for n := 0; ctx.Err() == nil; n++ {
			for i := range recs {
				recs[i] = &backend.Record{TaskID: fmt.Sprint("other ", n%16, i), State: protocol.Success, Meta: []byte("1")}
			}
			if err := theirs.Store(context.Background(), recs...); err != nil {
				t.Error(err)
				return
			}
		}
	})
	many := make([]string, 2000)
	for range 6 { // the readers of the store are hard to come by
		pouring.Go(func() {
			for ctx.Err() == nil {
				if _, err := mine.Fetch(context.Background(), many...); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	var watching sync.WaitGroup
	for c := range 4 {
		watching.Go(func() {
			for i := 0; ctx.Err() == nil; i++ {
				id := fmt.Sprint(c, "-", i)
				wt, err := mine.Watch(context.Background(), id)
				if err == nil {
					err = mine.Store(context.Background(), &backend.Record{TaskID: id, State: protocol.Success, Meta: []byte("1")})
				}
				if err != nil {
					t.Error(err)
					return
				}
				select {
				case <-wt.Ring():
				case <-time.After(time.Minute):
					t.Errorf("the write of %s was never rung", id)
					cancel()
				}
				wt.Close()
			}
		})
	}
	watching.Wait()
	cancel()
	pouring.Wait()
}

// counting counts the ids that are fetched.
type counting struct {
	*sqlbackend.Backend
	fetched atomic.Int64
}

func (c *counting) Fetch(ctx context.Context, ids ...string) ([]backend.Record, error) {
	c.fetched.Add(int64(len(ids)))
	return c.Backend.Fetch(ctx, ids...)
}

// BenchmarkAwaitMany waits for 10,000 results that are stored 20 at a time, as
// fast as it goes or every 5 ms.
func BenchmarkAwaitMany(b *testing.B) {
	b.Run("AtOnce", func(b *testing.B) { awaitMany(b, 0) })
	b.Run("Every5ms", func(b *testing.B) { awaitMany(b, 5*time.Millisecond) })
}

func awaitMany(b *testing.B, every time.Duration) {
	url := tempURL(b)
	mine, theirs := &counting{Backend: openApart(b, url)}, openApart(b, url)
	const n = 10_000
	for round := 0; b.Loop(); round++ {
		ids := make([]string, n)
		for i := range ids {
			ids[i] = fmt.Sprint(round, "-", i)
		}
		stored := make(chan error, 1)
		began := time.Now()
		var took time.Duration
		go func() {
			for i := 0; i < n; i += 20 {
				if every > 0 {
					<-time.After(every)
				}
				recs := make([]*backend.Record, 20)
				for k := range recs {
					recs[k] = &backend.Record{TaskID: ids[i+k], State: protocol.Success, Meta: []byte("1")}
				}
				if err := theirs.Store(context.Background(), recs...); err != nil {
					stored <- err
					return
				}
			}
			took = time.Since(began)
			stored <- nil
		}()
		err := backend.AwaitMany(b.Context(), mine, ids, func(r backend.Record) (bool, error) { return r.State.Ready(), nil })
		if err != nil {
			b.Fatal(err)
		}
		if err := <-stored; err != nil {
			b.Fatal(err)
		}
		b.ReportMetric(float64(mine.fetched.Swap(0))/n, "fetches/id")
		b.ReportMetric(float64(took.Milliseconds()), "store-ms")
		b.ReportMetric(float64(time.Since(began).Milliseconds()), "all-ms")
	}
}
