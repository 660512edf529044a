package backend_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/lovage-go/lovage/backend"
	"github.com/lovage-go/lovage/memory"
	"github.com/lovage-go/lovage/protocol"
)

// deaf hides every optional interface, the watcher above all.
type deaf struct{ backend.Backend }

func put(t *testing.T, b backend.Backend, id string, s protocol.State) {
	t.Helper()
	if err := b.Store(t.Context(), &backend.Record{TaskID: id, State: s, Meta: []byte(id)}); err != nil {
		t.Error(err)
	}
}

func ready(r backend.Record) bool { return r.State.Ready() }

func TestAwait(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name string
		late time.Duration // how late the client may see the result
		hide bool
	}{{"Watched", 0, false}, {"Polled", 500 * time.Millisecond, true}} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				var b backend.Backend = memory.New().Backend()
				if c.hide {
					b = deaf{b}
				}
				start := time.Now()
				time.AfterFunc(time.Minute, func() { put(t, b, "a", protocol.Started) })
				time.AfterFunc(time.Hour, func() { put(t, b, "a", protocol.Success) })
				r, err := backend.Await(t.Context(), b, "a", ready)
				if err != nil || r.State != protocol.Success {
					t.Fatalf("got %+v, %v", r, err)
				}
				if late := time.Since(start) - time.Hour; late < 0 || late > c.late {
					t.Errorf("seen %v after the write, want at most %v", late, c.late)
				}
			})
		})
	}
}

func TestAwaitEndsWithTheContextsCause(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		cause := errors.New("the client went home")
		ctx, cancel := context.WithCancelCause(t.Context())
		time.AfterFunc(time.Minute, func() { cancel(cause) })
		if _, err := backend.Await(ctx, memory.New().Backend(), "a", ready); !errors.Is(err, cause) {
			t.Errorf("got %v, want the cause", err)
		}
	})
}

func TestAwaitManyStreamsInOrderOfCompletion(t *testing.T) {
	t.Parallel()
	for _, hide := range []bool{false, true} {
		t.Run(fmt.Sprintf("Polled=%v", hide), func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				var b backend.Backend = memory.New().Backend()
				if hide {
					b = deaf{b}
				}
				for i, id := range []string{"c", "a", "b"} {
					time.AfterFunc(time.Duration(i+1)*time.Minute, func() { put(t, b, id, protocol.Success) })
				}
				var got []string
				err := backend.AwaitMany(t.Context(), b, []string{"a", "b", "a", "c"}, func(r backend.Record) (bool, error) {
					got = append(got, r.TaskID)
					return true, nil
				})
				if want := []string{"c", "a", "b"}; err != nil || !slices.Equal(got, want) {
					t.Errorf("got %v, %v, want %v", got, err, want)
				}
			})
		})
	}
}

func TestAwaitManyShowsARecordUntilItIsDone(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := memory.New().Backend()
		put(t, b, "a", protocol.Started)
		time.AfterFunc(time.Minute, func() { put(t, b, "a", protocol.Success) })
		var last protocol.State
		err := backend.AwaitMany(t.Context(), b, []string{"a"}, func(r backend.Record) (bool, error) {
			last = r.State
			return r.State.Ready(), nil
		})
		if err != nil || last != protocol.Success {
			t.Errorf("ended at %s, %v, want SUCCESS", last, err)
		}
	})
}

func TestAwaitManyEndsWithTheCallersError(t *testing.T) {
	t.Parallel()
	b := memory.New().Backend()
	put(t, b, "a", protocol.Failure)
	calls := 0
	// Even one that looks like an outage is the caller's, not the store's.
	err := backend.AwaitMany(t.Context(), b, []string{"a", "b"}, func(backend.Record) (bool, error) {
		calls++
		return false, backend.ErrUnavailable
	})
	if !errors.Is(err, backend.ErrUnavailable) || calls != 1 {
		t.Errorf("got %v after %d calls, want the caller's error after 1", err, calls)
	}
	if err := backend.AwaitMany(t.Context(), b, nil, nil); err != nil {
		t.Errorf("await nothing: %v", err)
	}
}

func TestAwaitManyEndsWhenTheStoreIsClosed(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := memory.New().Backend()
		time.AfterFunc(time.Minute, func() { b.Close() })
		err := backend.AwaitMany(t.Context(), b, []string{"never"}, func(backend.Record) (bool, error) { return false, nil })
		if !errors.Is(err, backend.ErrClosed) {
			t.Errorf("got %v, want ErrClosed", err)
		}
	})
}

// counted is a watched store that counts the ids that are fetched.
type counted struct {
	backend.Backend
	backend.Watcher
	fetched int
}

func (c *counted) Fetch(ctx context.Context, ids ...string) ([]backend.Record, error) {
	c.fetched += len(ids)
	return c.Backend.Fetch(ctx, ids...)
}

func TestAwaitManyDoesNotLookAtAllForEachRing(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name  string
		order func(i, n int) int // which ends as the i-th
		late  time.Duration
	}{
		{"InOrder", func(i, _ int) int { return i }, 0},
		{"InReverse", func(i, n int) int { return n - 1 - i }, 250 * time.Millisecond},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				m := memory.New().Backend()
				b := &counted{Backend: m, Watcher: m}
				const n = 10_000
				ids := make([]string, n)
				for i := range ids {
					ids[i] = fmt.Sprint(i)
				}
				start := time.Now()
				ended := make(map[string]time.Duration, n)
				for i := 0; i < n; i += 10 { // 10 every millisecond
					at := time.Duration(i/10+1) * time.Millisecond
					recs := make([]*backend.Record, 10)
					for k := range recs {
						id := ids[c.order(i+k, n)]
						ended[id] = at
						recs[k] = &backend.Record{TaskID: id, State: protocol.Success, Meta: []byte("1")}
					}
					time.AfterFunc(at, func() {
						if err := m.Store(t.Context(), recs...); err != nil {
							t.Error(err)
						}
					})
				}
				worst := time.Duration(0)
				err := backend.AwaitMany(t.Context(), b, ids, func(r backend.Record) (bool, error) {
					worst = max(worst, time.Since(start)-ended[r.TaskID])
					return true, nil
				})
				if err != nil {
					t.Fatal(err)
				}
				if worst > c.late {
					t.Errorf("a result was seen %v after its write, want at most %v", worst, c.late)
				}
				t.Logf("fetched %.1f times each, the latest seen %v after its write", float64(b.fetched)/n, worst)
				if most := 50 * n; b.fetched > most {
					t.Errorf("fetched %d ids for %d results, want at most %d", b.fetched, n, most)
				}
			})
		})
	}
}
