package backendtest

import (
	"bytes"
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/lovage-go/lovage/backend"
	"github.com/lovage-go/lovage/protocol"
)

// Harness is how the suite gets at a driver.
type Harness struct {
	// Open opens a fresh, empty store. The suite closes it; the harness removes
	// the store by t.Cleanup.
	Open func(t *testing.T) backend.Backend
	// Reopen opens the same store once more, as another process would. The
	// backend given may have been closed. Where results go to their caller, which
	// is Open's backend, it is a worker that stores them.
	Reopen func(t *testing.T, b backend.Backend) backend.Backend
	// Granule is the finest time that the store can tell for expiry and
	// leases; 0 is 100 ms. Redis and memcached count in seconds.
	Granule time.Duration
	// RingWithin bounds how late a watch may ring after a write; 0 is 30 s.
	RingWithin time.Duration
	// MaxValue is the largest Meta the suite stores, in bytes; 0 is 5 MiB.
	MaxValue int
	// Lacks names the abilities that the driver does not have.
	Lacks []Ability
	// Around runs the body of a case, in a synctest bubble for example. Nil
	// runs it under the real clock, in parallel with the other cases.
	Around func(t *testing.T, body func(t *testing.T))
}

// Ability is what a case may need of a driver.
type Ability string

// The abilities.
const (
	Expires  Ability = "expiry"   // Features.Expires
	Watch    Ability = "watch"    // backend.Watcher
	Groups   Ability = "groups"   // backend.GroupStore
	Once     Ability = "once"     // backend.OnceClaimer
	Losses   Ability = "losses"   // backend.LossCounter
	Chords   Ability = "chords"   // backend.ChordCounter
	Cleanup  Ability = "cleanup"  // backend.Cleaner
	Identity Ability = "identity" // StoreID() string, as broker.StoreIdentity
	Shared   Ability = "shared"   // records are for everybody; not so of a backend.Expecter
)

var everyAbility = [...]Ability{Expires, Watch, Groups, Once, Losses, Chords, Cleanup, Identity, Shared}

// storeIdentity has the shape of broker.StoreIdentity.
type storeIdentity interface{ StoreID() string }

// testCase is one rule of the contract.
type testCase struct {
	name  string
	needs []Ability
	run   func(w *world)
}

const (
	// patience is how long the suite waits for what must come.
	patience = time.Minute
	// silence is how long it listens for what must not come.
	silence = 100 * time.Millisecond
	mebi    = 1 << 20
)

// Run judges a driver.
func Run(t *testing.T, h Harness) {
	if h.Granule <= 0 {
		h.Granule = 100 * time.Millisecond
	}
	if h.RingWithin <= 0 {
		h.RingWithin = 30 * time.Second
	}
	if h.MaxValue <= 0 {
		h.MaxValue = 5 * mebi
	}
	if h.Around == nil {
		h.Around = func(t *testing.T, body func(t *testing.T)) { body(t) }
	}
	var has []Ability
	h.Around(t, func(t *testing.T) { has = probe(t, &h) })
	for _, a := range everyAbility {
		switch there, lacks := slices.Contains(has, a), slices.Contains(h.Lacks, a); {
		case there && lacks:
			t.Errorf("the harness says that the driver lacks %q, but it is there: remove it from Lacks", a)
		case !there && !lacks:
			t.Errorf("the driver does not show %q and the harness does not name it in Lacks", a)
		}
	}
	for _, c := range slices.Concat(recordCases, expiryCases, watchCases, extraCases, chordCases) {
		var missing []string
		for _, n := range c.needs {
			if !slices.Contains(has, n) {
				missing = append(missing, string(n))
			}
		}
		if len(missing) > 0 {
			t.Logf("left out: %s needs %s", c.name, strings.Join(missing, ", "))
			continue
		}
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			h.Around(t, func(t *testing.T) {
				w := newWorld(t, &h)
				w.shared = slices.Contains(has, Shared)
				c.run(w)
				w.closeAll()
			})
		})
	}
}

func probe(t *testing.T, h *Harness) (has []Ability) {
	w := newWorld(t, h)
	for a, ok := range map[Ability]bool{
		Expires:  w.b.Features().Expires,
		Watch:    is[backend.Watcher](w.b),
		Groups:   is[backend.GroupStore](w.b),
		Once:     is[backend.OnceClaimer](w.b),
		Losses:   is[backend.LossCounter](w.b),
		Chords:   is[backend.ChordCounter](w.b),
		Cleanup:  is[backend.Cleaner](w.b),
		Identity: is[storeIdentity](w.b),
		Shared:   !is[backend.Expecter](w.b),
	} {
		if ok {
			has = append(has, a)
		}
	}
	w.closeAll()
	return has
}

func is[T any](x any) bool {
	_, ok := x.(T)
	return ok
}

// world is one case's store, with what it opened there.
type world struct {
	*testing.T
	h      *Harness
	shared bool            // other processes read what this one stores
	ctx    context.Context // ends with the case, or when patience does
	b      backend.Backend
	all    []backend.Backend
}

func newWorld(t *testing.T, h *Harness) *world {
	ctx, cancel := context.WithTimeoutCause(t.Context(), patience, errors.New("the suite lost patience"))
	t.Cleanup(cancel)
	b := h.Open(t)
	return &world{T: t, h: h, ctx: ctx, b: b, all: []backend.Backend{b}}
}

func (w *world) closeAll() {
	w.Helper()
	for _, b := range w.all {
		w.must(b.Close())
	}
}

// other opens the store once more, as another process would.
func (w *world) other() backend.Backend {
	w.Helper()
	b := w.h.Reopen(w.T, w.b)
	w.all = append(w.all, b)
	return b
}

// reader is another process, if it can read the records.
func (w *world) reader() backend.Backend {
	w.Helper()
	if w.shared {
		return w.other()
	}
	return w.b
}

func (w *world) must(err error) {
	w.Helper()
	if err != nil {
		w.Fatal(err)
	}
}

func record(id string, s protocol.State, meta string) *backend.Record {
	return &backend.Record{TaskID: id, State: s, Meta: []byte(meta), Expires: time.Hour}
}

func (w *world) store(recs ...*backend.Record) {
	w.Helper()
	w.must(w.b.Store(w.ctx, recs...))
}

func (w *world) fetch(b backend.Backend, ids ...string) []backend.Record {
	w.Helper()
	recs, err := b.Fetch(w.ctx, ids...)
	w.must(err)
	if len(recs) != len(ids) {
		w.Fatalf("fetch of %d ids gave %d records", len(ids), len(recs))
	}
	for i, r := range recs {
		if r.TaskID != ids[i] {
			w.Fatalf("record %d is of %q, want %q", i, r.TaskID, ids[i])
		}
	}
	return recs
}

// want checks the Meta of one record; "" is an unknown record.
func (w *world) want(id, meta string) {
	w.Helper()
	got := w.fetch(w.b, id)[0].Meta
	if meta == "" && got != nil || !bytes.Equal(got, []byte(meta)) {
		w.Errorf("record %s holds %q, want %q", id, got, meta)
	}
}

// until looks again and again until ok, or patience ends. It is for what only
// time brings and nothing announces.
func (w *world) until(what string, ok func() bool) {
	w.Helper()
	tick := time.NewTicker(max(w.h.Granule/10, time.Millisecond))
	defer tick.Stop()
	for !ok() {
		select {
		case <-tick.C:
		case <-w.ctx.Done():
			w.Fatalf("%s: %v", what, context.Cause(w.ctx))
		}
	}
}
