package worker_test

import (
	"context"
	"sync/atomic"
	"testing"
	"time"

	"github.com/lovage-go/lovage"
	"github.com/lovage-go/lovage/backend"
)

// countingStore counts the reads of a result store.
type countingStore struct {
	backend.Backend
	reads atomic.Int64
}

func (s *countingStore) Fetch(ctx context.Context, ids ...string) ([]backend.Record, error) {
	s.reads.Add(1)
	return s.Backend.Fetch(ctx, ids...)
}

// TestAbortedIsCheap: a loop that asks all the time reads the store once a second.
func TestAbortedIsCheap(t *testing.T) {
	t.Parallel()
	var poll *lovage.Handle[lovage.Args, string]
	store := &countingStore{}
	var calls atomic.Int64
	in(t, setup{backend: func(b backend.Backend) backend.Backend { store.Backend = b; return store }, tasks: func(app *lovage.App) {
		poll = lovage.Func(app, "poll", func(ctx context.Context, _ lovage.Args) (string, error) {
			for ; !lovage.RequestFrom(ctx).Aborted(); calls.Add(1) {
				<-time.After(time.Millisecond)
			}
			return "aborted", nil
		})
	}}, func(x *world) {
		pause(5 * time.Second) // the start reads revokes
		before := store.reads.Load()
		res, err := poll.Delay(context.Background(), lovage.Args{})
		if err != nil {
			x.t.Fatal(err)
		}
		pause(10*time.Second + 500*time.Millisecond)
		if reads, calls := store.reads.Load()-before, calls.Load(); reads < 10 || reads > 12 || calls < 10_000 {
			x.t.Errorf("%d reads for %d calls in 10.5 s, want one a second", reads, calls)
		}
		if err := res.Abort(context.Background()); err != nil {
			x.t.Fatal(err)
		}
		if is, err := res.IsAborted(context.Background()); err != nil || !is {
			x.t.Errorf("IsAborted: got %t, %v", is, err)
		}
		pause(time.Second)
		x.wantState(res.ID(), lovage.Success)
	})
}
