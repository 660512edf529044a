package memory

import (
	"bytes"
	"context"
	"time"

	"github.com/lovage-go/lovage/backend"
	"github.com/lovage-go/lovage/broker"
)

// results is the backend half of a store, guarded by store.mu.
type results struct {
	records map[string]*result
	groups  map[string]document
	once    map[string]ticket
	watches map[string]map[*watch]struct{}
	sweepAt int // size at which expired records are swept
}

type result struct {
	rec   backend.Record
	until time.Time // zero: for ever
}

const firstSweep = 1024

func newResults() results {
	return results{
		records: map[string]*result{},
		groups:  map[string]document{},
		once:    map[string]ticket{},
		watches: map[string]map[*watch]struct{}{},
		sweepAt: firstSweep,
	}
}

func (r *result) live(now time.Time) bool { return r != nil && alive(r.until, now) }

func alive(until, now time.Time) bool { return until.IsZero() || now.Before(until) }

func deadline(now time.Time, d time.Duration) time.Time {
	if d <= 0 {
		return time.Time{}
	}
	return now.Add(d)
}

// store writes a record unless the one that is there does not yield to it.
func (rs *results) store(rec *backend.Record, now time.Time) {
	old := rs.records[rec.TaskID]
	if old.live(now) && !old.rec.State.Yields(rec.State) {
		return
	}
	if len(rs.records) >= rs.sweepAt {
		rs.cleanup(now)
		rs.sweepAt = max(firstSweep, 2*len(rs.records))
	}
	r := &result{rec: *rec, until: deadline(now, rec.Expires)}
	r.rec.Meta = bytes.Clone(rec.Meta)
	rs.records[rec.TaskID] = r
	for w := range rs.watches[rec.TaskID] {
		w.wake()
	}
}

// cleanup deletes what has expired and counts the records among it.
func (rs *results) cleanup(now time.Time) int {
	n := 0
	for id, r := range rs.records {
		if !alive(r.until, now) {
			delete(rs.records, id)
			n++
		}
	}
	for id, g := range rs.groups {
		if !alive(g.until, now) {
			delete(rs.groups, id)
			n++
		}
	}
	for id, t := range rs.once {
		if !alive(t.until, now) {
			delete(rs.once, id)
		}
	}
	return n
}

// Backend is a process's view of the results. It is safe for concurrent use.
type Backend struct {
	store *Store
	proc  *Process

	// Guarded by store.mu.
	closed  bool
	watches map[*watch]struct{}
}

// Reopen opens the store once more, in a process of its own. The backend may be
// closed or killed.
func (b *Backend) Reopen() *Backend { return b.store.Backend() }

// Process returns the process that the backend belongs to.
func (b *Backend) Process() *Process { return b.proc }

// StoreID is that of the store.
func (b *Backend) StoreID() string { return b.store.StoreID() }

// Features tells that everything but durability is there.
func (b *Backend) Features() backend.Features { return backend.Features{Expires: true, Chords: true} }

// Store writes records.
func (b *Backend) Store(ctx context.Context, recs ...*backend.Record) error {
	f, unlock, err := b.enter(ctx, OpStore)
	if err != nil {
		return err
	}
	defer unlock()
	now := time.Now()
	for _, r := range recs {
		b.store.results.store(r, now)
	}
	return f.reply()
}

// Fetch reads records. Expires of a record is what is left of it.
func (b *Backend) Fetch(ctx context.Context, ids ...string) ([]backend.Record, error) {
	f, unlock, err := b.enter(ctx, OpFetch)
	if err != nil {
		return nil, err
	}
	defer unlock()
	now := time.Now()
	out := make([]backend.Record, len(ids))
	for i, id := range ids {
		r := b.store.results.records[id]
		if !r.live(now) {
			out[i].TaskID = id
			continue
		}
		out[i] = r.rec
		out[i].Meta = bytes.Clone(r.rec.Meta)
		if !r.until.IsZero() {
			out[i].Expires = r.until.Sub(now)
		}
	}
	return out, f.reply()
}

// Forget deletes records.
func (b *Backend) Forget(ctx context.Context, ids ...string) error {
	f, unlock, err := b.enter(ctx, OpForget)
	if err != nil {
		return err
	}
	defer unlock()
	for _, id := range ids {
		delete(b.store.results.records, id)
	}
	return f.reply()
}

// Cleanup deletes expired records and groups. The store does so by itself as
// it grows.
func (b *Backend) Cleanup(ctx context.Context) (int, error) {
	_, unlock, err := b.enter(ctx, OpOperate)
	if err != nil {
		return 0, err
	}
	defer unlock()
	return b.store.results.cleanup(time.Now()), nil
}

// Close ends the watches. Closing twice is no error.
func (b *Backend) Close() error {
	b.store.mu.Lock()
	defer b.store.mu.Unlock()
	b.end()
	return nil
}

func (b *Backend) end() {
	if b.closed {
		return
	}
	b.closed = true
	delete(b.proc.backends, b)
	for w := range b.watches {
		w.wake() // whoever waits looks, and learns that the backend is closed
		w.end()
	}
}

func (b *Backend) enter(ctx context.Context, op Op) (Fault, func(), error) {
	return b.store.enter(ctx, b.proc, op, &b.closed, backend.ErrClosed, backend.ErrUnavailable)
}

var (
	_ backend.Backend      = (*Backend)(nil)
	_ backend.Cleaner      = (*Backend)(nil)
	_ broker.StoreIdentity = (*Backend)(nil)
)
