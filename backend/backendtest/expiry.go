package backendtest

import (
	"time"

	"github.com/lovage-go/lovage/backend"
	"github.com/lovage-go/lovage/protocol"
)

func (w *world) gone(id string) func() bool {
	return func() bool { return w.fetch(w.b, id)[0].Meta == nil }
}

var expiryCases = []testCase{
	{"Expiry/RecordVanishes", []Ability{Expires}, func(w *world) {
		r := record("a", protocol.Success, "1")
		r.Expires = 3 * w.h.Granule
		keep := record("b", protocol.Success, "2")
		keep.Expires = 0 // for ever
		start := time.Now()
		w.store(r, keep)
		if got := w.fetch(w.b, "a")[0].Meta; got == nil && time.Since(start) < r.Expires {
			w.Error("the record is gone before its time")
		}
		w.until("the record to expire", w.gone("a"))
		if took := time.Since(start); took < r.Expires-w.h.Granule {
			w.Errorf("expired after %v, want %v", took, r.Expires)
		}
		w.want("b", "2")
	}},
	{"Expiry/ExpiredSuccessIsNotSticky", []Ability{Expires}, func(w *world) {
		r := record("a", protocol.Success, "1")
		r.Expires = w.h.Granule
		w.store(r)
		w.until("the record to expire", w.gone("a"))
		w.store(record("a", protocol.Started, "2"))
		w.want("a", "2")
	}},
	{"Expiry/AWriteRenewsIt", []Ability{Expires}, func(w *world) {
		r := record("a", protocol.Started, "1")
		r.Expires = w.h.Granule
		clock := record("clock", protocol.Started, "1")
		clock.Expires = 2 * w.h.Granule
		w.store(r, clock)
		w.store(record("a", protocol.Started, "2"))
		w.until("the clock to expire", w.gone("clock"))
		w.want("a", "2")
	}},
	{"Expiry/Cleanup", []Ability{Cleanup, Expires}, func(w *world) {
		for _, id := range []string{"a", "b"} {
			r := record(id, protocol.Success, "1")
			r.Expires = w.h.Granule
			w.store(r)
		}
		w.store(record("keep", protocol.Success, "2"))
		w.until("the record to expire", func() bool { return w.gone("a")() && w.gone("b")() })
		c := w.other().(backend.Cleaner)
		n, err := c.Cleanup(w.ctx)
		if err != nil || n != 2 {
			w.Errorf("cleanup: %d, %v, want 2", n, err)
		}
		if n, err := c.Cleanup(w.ctx); err != nil || n != 0 {
			w.Errorf("a second cleanup: %d, %v, want 0", n, err)
		}
		w.want("keep", "2")
	}},
}
