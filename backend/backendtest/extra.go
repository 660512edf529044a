package backendtest

import (
	"bytes"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/lovage-go/lovage/backend"
)

var extraCases = []testCase{
	{"Group/SaveRestoreDelete", []Ability{Groups}, func(w *world) {
		g := w.b.(backend.GroupStore)
		doc := []byte(`{"result": [["a", null], ["ü", null]]}` + "\x00\xff")
		w.must(g.SaveGroup(w.ctx, "g", doc, time.Hour))
		w.must(g.SaveGroup(w.ctx, "h", []byte("other"), 0))
		got, err := w.other().(backend.GroupStore).RestoreGroup(w.ctx, "g")
		if err != nil || !bytes.Equal(got, doc) {
			w.Errorf("restored %q, %v, want %q", got, err, doc)
		}
		w.must(g.SaveGroup(w.ctx, "g", []byte("again"), time.Hour))
		if got, err := g.RestoreGroup(w.ctx, "g"); err != nil || string(got) != "again" {
			w.Errorf("saved twice: %q, %v", got, err)
		}
		w.must(g.DeleteGroup(w.ctx, "g"))
		w.must(g.DeleteGroup(w.ctx, "g"))
		if got, err := g.RestoreGroup(w.ctx, "g"); err != nil || got != nil {
			w.Errorf("deleted: %q, %v, want nil", got, err)
		}
		if got, err := g.RestoreGroup(w.ctx, "h"); err != nil || string(got) != "other" {
			w.Errorf("the other group: %q, %v", got, err)
		}
	}},
	{"Group/Expires", []Ability{Groups, Expires}, func(w *world) {
		g := w.b.(backend.GroupStore)
		w.must(g.SaveGroup(w.ctx, "g", []byte("x"), w.h.Granule))
		w.until("the group to expire", func() bool {
			got, err := g.RestoreGroup(w.ctx, "g")
			w.must(err)
			return got == nil
		})
	}},
	{"Once/OneOwner", []Ability{Once}, func(w *world) {
		a, b := w.b.(backend.OnceClaimer), w.other().(backend.OnceClaimer)
		w.claims(a, "id", "one", time.Hour, true)
		w.claims(b, "id", "two", time.Hour, false)
		w.claims(a, "id", "one", time.Hour, true) // its owner may take it again
		w.claims(b, "else", "two", time.Hour, true)
	}},
	{"Once/LeaseLapses", []Ability{Once}, func(w *world) {
		a, b := w.b.(backend.OnceClaimer), w.other().(backend.OnceClaimer)
		lease := 3 * w.h.Granule
		start := time.Now()
		w.claims(a, "id", "one", lease, true)
		w.until("the lease to lapse", func() bool {
			ok, err := b.ClaimOnce(w.ctx, "id", "two", time.Hour)
			w.must(err)
			return ok
		})
		if took := time.Since(start); took < lease-w.h.Granule {
			w.Errorf("taken over after %v, want %v", took, lease)
		}
		w.claims(a, "id", "one", time.Hour, false)
	}},
	{"Once/DoneIsDone", []Ability{Once}, func(w *world) {
		a, b := w.b.(backend.OnceClaimer), w.other().(backend.OnceClaimer)
		w.claims(a, "id", "one", time.Hour, true)
		w.must(a.DoneOnce(w.ctx, "id", "one", time.Hour))
		w.claims(b, "id", "two", time.Hour, false)
		w.claims(a, "id", "one", time.Hour, false) // not even for its owner
	}},
	{"Once/DoneIsKeptForAWhile", []Ability{Once}, func(w *world) {
		a := w.b.(backend.OnceClaimer)
		w.claims(a, "id", "one", time.Hour, true)
		w.must(a.DoneOnce(w.ctx, "id", "one", w.h.Granule))
		w.until("the mark to lapse", func() bool {
			ok, err := a.ClaimOnce(w.ctx, "id", "two", time.Hour)
			w.must(err)
			return ok
		})
	}},
	{"Once/OneWinnerOfMany", []Ability{Once}, func(w *world) {
		const n = 16
		errs := make([]error, n)
		var won atomic.Int64
		var wg sync.WaitGroup
		for i := range n {
			b := w.other().(backend.OnceClaimer)
			wg.Go(func() {
				ok, err := b.ClaimOnce(w.ctx, "id", fmt.Sprint(i), time.Hour)
				if errs[i] = err; ok {
					won.Add(1)
				}
			})
		}
		wg.Wait()
		w.must(errors.Join(errs...))
		if won.Load() != 1 {
			w.Errorf("%d owners won, want 1", won.Load())
		}
	}},
	{"Losses/CountedByTaskID", []Ability{Losses}, func(w *world) {
		for want := 1; want <= 3; want++ {
			if n, err := w.other().(backend.LossCounter).Losses(w.ctx, "a"); err != nil || n != want-1 {
				w.Errorf("read %d, %v, want %d", n, err, want-1)
			}
			for range 2 { // the first answer was lost
				n, err := w.other().(backend.LossCounter).CountLoss(w.ctx, "a", want-1, time.Hour)
				if err != nil || n != want {
					w.Errorf("counted %d, %v, want %d", n, err, want)
				}
			}
		}
		counter := w.b.(backend.LossCounter)
		if n, err := counter.CountLoss(w.ctx, "b", 0, time.Hour); err != nil || n != 1 {
			w.Errorf("another task: %d, %v, want 1", n, err)
		}
		if n, err := counter.CountLoss(w.ctx, "c", 4, time.Hour); err != nil || n != 5 {
			w.Errorf("a task whose count has gone: %d, %v, want one more than was known, 5", n, err)
		}
	}},
	{"Losses/Forgotten", []Ability{Losses}, func(w *world) {
		counter := w.b.(backend.LossCounter)
		for _, id := range []string{"a", "b"} {
			_, err := counter.CountLoss(w.ctx, id, 2, time.Hour)
			w.must(err)
		}
		w.must(counter.ForgetLosses(w.ctx, "a"))
		w.must(counter.ForgetLosses(w.ctx, "a")) // again, after a lost answer
		for id, want := range map[string]int{"a": 0, "b": 3} {
			if n, err := w.other().(backend.LossCounter).Losses(w.ctx, id); err != nil || n != want {
				w.Errorf("%s: read %d, %v, want %d", id, n, err, want)
			}
		}
		if n, err := counter.CountLoss(w.ctx, "a", 0, time.Hour); err != nil || n != 1 {
			w.Errorf("counted anew: %d, %v, want 1", n, err)
		}
	}},
}

func (w *world) claims(b backend.OnceClaimer, id, owner string, lease time.Duration, want bool) {
	w.Helper()
	got, err := b.ClaimOnce(w.ctx, id, owner, lease)
	if err != nil || got != want {
		w.Errorf("claim of %s by %s: %v, %v, want %v", id, owner, got, err, want)
	}
}
