package pool_test

import (
	"context"
	"errors"
	"runtime"
	"slices"
	"sync"
	"testing"
	"testing/synctest"

	"github.com/lovage-go/lovage/worker/internal/pool"
)

// bench is a pool whose items run until they are told to end.
type bench struct {
	p *pool.Pool[int]

	mu      sync.Mutex
	started []int
	ends    map[int]chan struct{}
}

func newBench(size int) *bench {
	b := &bench{ends: map[int]chan struct{}{}}
	b.p = pool.New(size, func(n int) (keeps bool) { // every other one leaves the release to the pool
		end := make(chan struct{})
		b.mu.Lock()
		b.started = append(b.started, n)
		b.ends[n] = end
		b.mu.Unlock()
		<-end
		if n%2 == 1 {
			return true
		}
		b.p.Release()
		return false
	})
	return b
}

func (b *bench) end(n int) {
	b.mu.Lock()
	ch := b.ends[n]
	b.mu.Unlock()
	close(ch)
	synctest.Wait()
}

func (b *bench) want(t *testing.T, used, waiting int, started ...int) {
	t.Helper()
	synctest.Wait()
	b.mu.Lock()
	got := slices.Clone(b.started)
	b.mu.Unlock()
	slices.Sort(got)
	if !slices.Equal(got, started) {
		t.Errorf("started: got %v, want %v", got, started)
	}
	if _, u, w := b.p.Counts(); u != used || w != waiting {
		t.Errorf("counts: got %d used and %d waiting, want %d and %d", u, w, used, waiting)
	}
}

func TestPool(t *testing.T) {
	t.Parallel()
	run := func(name string, test func(t *testing.T)) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, test)
		})
	}
	run("ItemsWaitForSlotsInOrder", func(t *testing.T) {
		b := newBench(2)
		for n := range 40 { // more than the queue's first ring holds
			b.p.Put(n)
		}
		b.want(t, 2, 38, 0, 1)
		b.end(1)
		b.want(t, 2, 37, 0, 1, 2)
		if n, ok := b.p.Oldest(); n != 3 || !ok {
			t.Errorf("Oldest: got %d, %t, want 3", n, ok)
		}
		if got := b.p.Withdraw(func(n int) bool { return n%2 == 0 }); len(got) != 18 || got[0] != 4 {
			t.Errorf("Withdraw: got %v, want the 18 even ones from 4", got)
		}
		b.end(0)
		b.want(t, 2, 18, 0, 1, 2, 3)
		if got := b.p.Close(); len(got) != 18 || got[0] != 5 {
			t.Errorf("Close: got %v, want the rest from 5", got)
		}
		if b.p.Put(99) {
			t.Error("Put after Close: got true, want false")
		}
		b.end(2)
		b.end(3)
		b.want(t, 0, 0, 0, 1, 2, 3)
		if _, ok := b.p.Oldest(); ok {
			t.Error("Oldest of none: got true")
		}
	})
	run("ALentSlotComesBackFirst", func(t *testing.T) {
		b := newBench(1)
		b.p.Put(0)
		b.p.Put(1)
		b.p.Put(2)
		b.p.Release() // 0 lends its slot
		b.want(t, 1, 1, 0, 1)
		back := make(chan error)
		go func() { back <- b.p.Acquire(context.Background()) }()
		synctest.Wait()
		b.end(1)
		if err := <-back; err != nil {
			t.Errorf("Acquire: got %v, want nil", err)
		}
		b.want(t, 1, 1, 0, 1)
		b.end(0)
		b.want(t, 1, 0, 0, 1, 2)
		b.end(2)
		b.p.Close()
	})
	run("AcquireEndsWithItsContext", func(t *testing.T) {
		b := newBench(1)
		b.p.Put(0)
		synctest.Wait()
		ctx, cancel := context.WithCancelCause(t.Context())
		why := errors.New("enough")
		back := make(chan error)
		go func() { back <- b.p.Acquire(ctx) }()
		synctest.Wait()
		cancel(why)
		if err := <-back; !errors.Is(err, why) {
			t.Errorf("Acquire: got %v, want the cause", err)
		}
		b.end(0)
		b.want(t, 0, 0, 0)
		b.p.Close()
	})
	run("ResizeStartsMore", func(t *testing.T) {
		b := newBench(1)
		for n := range 4 {
			b.p.Put(n)
		}
		b.p.Resize(3)
		b.want(t, 3, 1, 0, 1, 2)
		b.p.Resize(1)
		b.end(0)
		b.want(t, 2, 1, 0, 1, 2)
		b.end(1)
		b.end(2)
		b.want(t, 1, 0, 0, 1, 2, 3)
		b.end(3)
		b.p.Close()
	})
	run("ChangedRings", func(t *testing.T) {
		b := newBench(1)
		b.p.Put(0)
		synctest.Wait()
		select {
		case <-b.p.Changed():
			t.Error("Changed rang before anything was free")
		default:
		}
		b.end(0)
		select {
		case <-b.p.Changed():
		default:
			t.Error("Changed did not ring")
		}
		b.p.Close()
	})
}

// TestBurst: runs that gave their slots away end late and all at once, as when a
// store has been away. The goroutines that nobody needs after that are ended.
func TestBurst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var p *pool.Pool[int]
		back := make(chan struct{})
		p = pool.New(1, func(n int) (keeps bool) {
			p.Release()
			if n < 0 {
				<-back
			}
			return false
		})
		before := runtime.NumGoroutine()
		for n := range 100 {
			p.Put(-1 - n)
			synctest.Wait()
		}
		if n := runtime.NumGoroutine() - before; n != 100 {
			t.Errorf("%d goroutines for 100 runs", n)
		}
		close(back)
		for n := range 3000 {
			p.Put(n)
			synctest.Wait()
		}
		if n := runtime.NumGoroutine() - before; n > 2 {
			t.Errorf("%d goroutines are left, and runs come one after the other", n)
		}
		p.Close()
	})
}
