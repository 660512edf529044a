package backendtest

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/lovage-go/lovage/backend"
	"github.com/lovage-go/lovage/protocol"
)

func (w *world) watch(b backend.Backend, ids ...string) backend.Watch {
	w.Helper()
	wt, err := b.(backend.Watcher).Watch(w.ctx, ids...)
	w.must(err)
	w.Cleanup(func() { wt.Close() })
	return wt
}

// rings waits for a ring; late is one after RingWithin.
func (w *world) rings(wt backend.Watch) {
	w.Helper()
	t := time.NewTimer(w.h.RingWithin)
	defer t.Stop()
	select {
	case _, ok := <-wt.Ring():
		if !ok {
			w.Fatal("the ring channel is closed, want it never closed")
		}
	case <-t.C:
		w.Fatalf("no ring within %v of the write", w.h.RingWithin)
	}
}

var watchCases = []testCase{
	{"Watch/RingsAfterAWriteElsewhere", []Ability{Watch}, func(w *world) {
		wt := w.watch(w.b, "a", "b")
		b := w.other()
		w.must(b.Store(w.ctx, record("b", protocol.Started, "1")))
		w.rings(wt)
		w.want("b", "1")
		w.must(b.Store(w.ctx, record("a", protocol.Success, "2")))
		w.until("the second write to be rung and seen", func() bool {
			w.rings(wt)
			return string(w.fetch(w.b, "a")[0].Meta) == "2"
		})
	}},
	{"Watch/RingsAfterAnOwnWrite", []Ability{Watch}, func(w *world) {
		wt := w.watch(w.b, "a")
		w.store(record("a", protocol.Success, "1"))
		w.rings(wt)
	}},
	{"Watch/RingsEveryWatch", []Ability{Watch}, func(w *world) {
		all := []backend.Watch{w.watch(w.b, "a"), w.watch(w.b, "a", "x"), w.watch(w.reader(), "a")}
		w.must(w.other().Store(w.ctx, record("a", protocol.Success, "1")))
		for _, wt := range all {
			w.rings(wt)
		}
	}},
	{"Watch/WatchThenFetchMissesNothing", []Ability{Watch}, func(w *world) {
		// The documented use: watch, fetch, and only then wait. Wherever the
		// write falls, it is seen by the fetch or rung.
		b := w.other()
		for i := range 50 {
			id := fmt.Sprint(i)
			stored := make(chan error, 1)
			go func() { stored <- b.Store(w.ctx, record(id, protocol.Success, "1")) }()
			wt := w.watch(w.b, id)
			for w.fetch(w.b, id)[0].Meta == nil {
				w.rings(wt)
			}
			w.must(<-stored)
			w.must(wt.Close())
		}
	}},
	{"Watch/RingsDoNotPileUp", []Ability{Watch}, func(w *world) {
		// Nobody listens while many writes are made: the writer is not held up.
		wt := w.watch(w.b, "a")
		for i := range 100 {
			w.store(record("a", "PROGRESS", fmt.Sprint(i)))
		}
		w.rings(wt)
		w.want("a", "99")
	}},
	{"Watch/ManyWaiters", []Ability{Watch}, func(w *world) {
		const n = 32
		errs := make([]error, n)
		var wg sync.WaitGroup
		for i := range n {
			id := fmt.Sprint(i)
			wg.Go(func() {
				_, errs[i] = backend.Await(w.ctx, w.b, id, func(r backend.Record) bool { return string(r.Meta) == id })
			})
		}
		b := w.other()
		for i := range n {
			w.must(b.Store(w.ctx, record(fmt.Sprint(i), protocol.Success, fmt.Sprint(i))))
		}
		wg.Wait()
		w.must(errors.Join(errs...))
	}},
	{"Watch/CloseAWatch", []Ability{Watch}, func(w *world) {
		wt, still := w.watch(w.b, "a"), w.watch(w.b, "a")
		w.must(wt.Close())
		w.must(wt.Close())
		w.must(w.other().Store(w.ctx, record("a", protocol.Success, "1")))
		w.rings(still)
		select {
		case _, ok := <-wt.Ring():
			if !ok {
				w.Error("Close closed the ring channel, want it left open")
			}
		default:
		}
	}},
	{"Watch/CloseTheBackendWhileWatching", []Ability{Watch}, func(w *world) {
		b := w.other()
		waited := make(chan error, 1)
		go func() {
			_, err := backend.Await(w.ctx, b, "never", func(backend.Record) bool { return false })
			waited <- err
		}()
		wt := w.watch(b, "a")
		w.must(b.Close())
		select {
		case err := <-waited:
			if !errors.Is(err, backend.ErrClosed) {
				w.Errorf("await on a closed backend: %v, want ErrClosed", err)
			}
		case <-w.ctx.Done():
			w.Fatalf("await on a closed backend: %v", context.Cause(w.ctx))
		}
		w.must(wt.Close())
		if _, err := b.(backend.Watcher).Watch(w.ctx, "a"); !errors.Is(err, backend.ErrClosed) {
			w.Errorf("watch on a closed backend: %v, want ErrClosed", err)
		}
	}},
}
