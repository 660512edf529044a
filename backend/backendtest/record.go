package backendtest

import (
	"bytes"
	"errors"
	"fmt"
	"sync"

	"github.com/lovage-go/lovage/backend"
	"github.com/lovage-go/lovage/protocol"
)

var recordCases = []testCase{
	{"Record/RoundTrip", nil, func(w *world) {
		meta := `{"status": "SUCCESS", "result": "<&> \u2028 ü 🌿", "n": 12345678901234567890}`
		w.store(record("id-ÿ 🌿/%", protocol.Success, meta))
		w.want("id-ÿ 🌿/%", meta)
		if got := w.fetch(w.reader(), "id-ÿ 🌿/%")[0]; string(got.Meta) != meta {
			w.Errorf("from another connection: %q", got.Meta)
		}
	}},
	{"Record/FetchKeepsTheOrder", nil, func(w *world) {
		w.store(record("a", protocol.Success, "1"), record("b", protocol.Failure, "2"), record("c", protocol.Started, "3"))
		got := w.fetch(w.b, "c", "unknown", "a", "b", "a")
		for i, want := range []string{"3", "", "1", "2", "1"} {
			if string(got[i].Meta) != want {
				w.Errorf("record %d holds %q, want %q", i, got[i].Meta, want)
			}
		}
		if got[1].Meta != nil {
			w.Errorf("the unknown record has Meta %q, want nil", got[1].Meta)
		}
	}},
	{"Record/NothingAtAll", nil, func(w *world) {
		w.store()
		w.fetch(w.b)
		w.must(w.b.Forget(w.ctx))
	}},
	{"Record/LastWriteWins", nil, func(w *world) {
		for _, s := range []protocol.State{protocol.Received, protocol.Started, protocol.Retry, "PROGRESS", protocol.Failure, protocol.Revoked} {
			w.store(record("a", s, string(s)))
			w.want("a", string(s))
		}
	}},
	{"Record/AnotherRunAfterAFailure", []Ability{Shared}, func(w *world) {
		for _, s := range []protocol.State{protocol.Failure, protocol.Started, protocol.Revoked, protocol.Retry} {
			w.store(record("a", s, string(s)))
			w.want("a", string(s))
		}
	}},
	{"Record/OneCallIsInOrder", nil, func(w *world) {
		w.store(record("a", protocol.Started, "1"), record("b", protocol.Started, "x"), record("a", "PROGRESS", "2"), record("a", protocol.Failure, "3"))
		w.want("a", "3")
		w.want("b", "x")
	}},
	{"Record/SuccessIsSticky", nil, func(w *world) {
		w.store(record("a", protocol.Success, "good"))
		for _, s := range []protocol.State{protocol.Failure, protocol.Retry, protocol.Started, protocol.Revoked, protocol.Pending, "PROGRESS"} {
			w.must(w.other().Store(w.ctx, record("a", s, "bad")))
			w.want("a", "good")
		}
		w.store(record("b", protocol.Started, "1"), record("b", protocol.Success, "2"), record("b", protocol.Failure, "3"))
		w.want("b", "2") // in one call as well
	}},
	{"Record/AbortedUntilTheEnd", []Ability{Shared}, func(w *world) {
		for _, end := range []protocol.State{protocol.Success, protocol.Failure, protocol.Revoked} {
			id := string(end)
			document := func(s protocol.State) *backend.Record {
				return record(id, s, fmt.Sprintf(`{"status": %q, "result": null}`, s))
			}
			w.store(document(protocol.Started), document(protocol.Aborted))
			wish := string(document(protocol.Aborted).Meta)
			w.want(id, wish)
			for _, s := range []protocol.State{protocol.Received, protocol.Started, protocol.Retry, "PROGRESS"} {
				w.must(w.other().Store(w.ctx, document(s)))
				w.want(id, wish)
			}
			w.store(document(end), document(protocol.Aborted)) // in one call as well
			w.want(id, string(document(end).Meta))
		}
	}},
	{"Record/SuccessAfterSuccess", nil, func(w *world) {
		w.store(record("a", protocol.Success, "1"))
		w.store(record("a", protocol.Success, "2"))
		w.want("a", "2")
	}},
	{"Record/SuccessAfterFailure", nil, func(w *world) {
		w.store(record("a", protocol.Failure, "1"))
		w.store(record("a", protocol.Success, "2"))
		w.want("a", "2")
	}},
	{"Record/Forget", nil, func(w *world) {
		w.store(record("a", protocol.Success, "1"), record("b", protocol.Success, "2"), record("c", protocol.Success, "3"))
		w.must(w.reader().Forget(w.ctx, "a", "unknown", "c"))
		w.want("a", "")
		w.want("b", "2")
		w.want("c", "")
		w.store(record("a", protocol.Failure, "4")) // the success is forgotten, so not sticky
		w.want("a", "4")
	}},
	{"Record/SenderMayReuseItsBuffer", nil, func(w *world) {
		r := record("a", protocol.Success, "kept")
		w.store(r)
		copy(r.Meta, "lost")
		w.want("a", "kept")
		copy(w.fetch(w.b, "a")[0].Meta, "lost")
		w.want("a", "kept")
	}},
	{"Record/BigBatch", nil, func(w *world) {
		const n = 1000
		recs, ids := make([]*backend.Record, n), make([]string, n)
		for i := range recs {
			ids[i] = fmt.Sprintf("id-%d", i)
			recs[i] = record(ids[i], protocol.Success, fmt.Sprint(i))
		}
		w.store(recs...)
		for i, r := range w.fetch(w.reader(), ids...) {
			if string(r.Meta) != fmt.Sprint(i) {
				w.Fatalf("record %d holds %q", i, r.Meta)
			}
		}
		w.must(w.b.Forget(w.ctx, ids[:n-1]...))
		w.want(ids[0], "")
		w.want(ids[n-1], fmt.Sprint(n-1))
	}},
	{"Record/BigValue", nil, func(w *world) {
		r := record("a", protocol.Success, "")
		r.Meta = bytes.Repeat([]byte(`"lovage",`), w.h.MaxValue/9)
		w.store(r)
		if got := w.fetch(w.reader(), "a")[0].Meta; !bytes.Equal(got, r.Meta) {
			w.Errorf("a value of %d bytes came back with %d", len(r.Meta), len(got))
		}
	}},
	{"Record/Concurrent", nil, func(w *world) {
		const writers, each = 16, 20
		errs := make([]error, writers)
		var wg sync.WaitGroup
		for i := range writers {
			b := w.b
			if i%4 == 0 {
				b = w.reader()
			}
			wg.Go(func() {
				for j := range each {
					id := fmt.Sprintf("%d-%d", i, j)
					errs[i] = errors.Join(errs[i],
						b.Store(w.ctx, record(id, protocol.Success, id), record("shared", protocol.Started, id)))
					recs, err := b.Fetch(w.ctx, id)
					if err == nil && string(recs[0].Meta) != id {
						err = fmt.Errorf("own write %s reads %q", id, recs[0].Meta)
					}
					errs[i] = errors.Join(errs[i], err)
				}
			})
		}
		wg.Wait()
		w.must(errors.Join(errs...))
		for i := range writers {
			w.want(fmt.Sprintf("%d-%d", i, each-1), fmt.Sprintf("%d-%d", i, each-1))
		}
	}},
	{"Record/StickyUnderConcurrency", nil, func(w *world) {
		// One success among many failures, in any order: it is there at the end.
		const writers = 12
		errs := make([]error, writers)
		var wg sync.WaitGroup
		for i := range writers {
			b := w.other()
			wg.Go(func() {
				s, meta := protocol.Failure, "bad"
				if i == writers/2 {
					s, meta = protocol.Success, "good"
				}
				errs[i] = b.Store(w.ctx, record("a", s, meta))
			})
		}
		wg.Wait()
		w.must(errors.Join(errs...))
		w.want("a", "good")
	}},
	{"Record/Closed", nil, func(w *world) {
		b := w.other()
		w.must(b.Close())
		w.must(b.Close())
		if err := b.Store(w.ctx, record("a", protocol.Success, "1")); !errors.Is(err, backend.ErrClosed) {
			w.Errorf("store: %v, want ErrClosed", err)
		}
		if _, err := b.Fetch(w.ctx, "a"); !errors.Is(err, backend.ErrClosed) {
			w.Errorf("fetch: %v, want ErrClosed", err)
		}
		w.want("a", "")
	}},
	{"Record/OutlivesItsWriter", nil, func(w *world) {
		b := w.other()
		w.must(b.Store(w.ctx, record("a", protocol.Success, "1")))
		w.must(b.Close())
		w.want("a", "1")
	}},
	{"Record/StoreIdentity", []Ability{Identity}, func(w *world) {
		id := w.b.(storeIdentity).StoreID()
		if id == "" {
			w.Error("empty store id")
		}
		if got := w.other().(storeIdentity).StoreID(); got != id {
			w.Errorf("another connection calls the store %q, want %q", got, id)
		}
		fresh := w.h.Open(w.T)
		w.all = append(w.all, fresh)
		if got := fresh.(storeIdentity).StoreID(); got == id {
			w.Errorf("two stores share the id %q", id)
		}
	}},
}
