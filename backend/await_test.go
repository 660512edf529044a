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
