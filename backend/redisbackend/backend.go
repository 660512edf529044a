package redisbackend

import (
	"context"
	_ "embed"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/lovage-go/lovage/backend"
	"github.com/lovage-go/lovage/internal/redisconn"
	"github.com/lovage-go/lovage/internal/transport"
	"github.com/redis/rueidis"
)

func init() {
	backend.Register(func(ctx context.Context, cfg backend.Config) (backend.Backend, error) {
		b, err := Open(ctx, cfg)
		if err != nil {
			return nil, err
		}
		return b, nil
	}, "redis", "rediss", "redis+socket", "socket", "sentinel", "rediscluster", "redis+cluster", "rediss+cluster")
}

// storeBatch, storeBytes and fetchBatch bound one round trip.
const (
	storeBatch = 200
	storeBytes = 4 << 20
	fetchBatch = 500
)

// Backend is a result store. It is safe for concurrent use.
type Backend struct {
	rdb    *redisconn.Client
	log    *slog.Logger
	prefix string
	// ordered chords keep their parts by index, others by time.
	ordered bool
	closed  atomic.Bool
	ears    *redisconn.Subscriber

	mu       sync.Mutex
	watching map[string]map[*watch]struct{} // by channel
}

// Open connects to the server that cfg.URL names.
func Open(ctx context.Context, cfg backend.Config) (*Backend, error) {
	o := transport.ReadURL(cfg.Options, cfg.URL)
	prefix, ordered := o.Text("global_keyprefix", ""), o.Flag("result_chord_ordered", true)
	rdb, err := redisconn.Dial(ctx, cfg.URL, o)
	if err != nil {
		return nil, fmt.Errorf("open result backend: %w", fault(ctx, err))
	}
	b := &Backend{rdb: rdb, log: cfg.Log(), prefix: prefix, ordered: ordered, watching: map[string]map[*watch]struct{}{}}
	b.ears = redisconn.NewSubscriber(rdb, "", false, func(_, channel, _ string) { b.ring(channel) }, b.ringAll)
	return b, nil
}

// Features: records expire by themselves.
func (b *Backend) Features() backend.Features {
	return backend.Features{Expires: true, Durable: true, Chords: true}
}

// StoreID names the server and database, and the prefix if there is one.
func (b *Backend) StoreID() string {
	if b.prefix != "" {
		return b.rdb.ID + " results under " + b.prefix
	}
	return b.rdb.ID
}

//go:embed store.lua
var storeLua string

var storeScript = rueidis.NewLuaScript(strings.Replace(storeLua, "--STORE--", redisconn.StoreLua, 1))

// Store writes records in order, many in one script, and publishes each.
func (b *Backend) Store(ctx context.Context, recs ...*backend.Record) error {
	if err := b.alive(); err != nil {
		return err
	}
	for len(recs) > 0 {
		n, bytes := 0, 0
		for n < len(recs) && n < storeBatch && (n == 0 || bytes+len(recs[n].Meta) <= storeBytes) {
			bytes += len(recs[n].Meta)
			n++
		}
		limited, cancel := b.rdb.Deadline(ctx)
		err := b.store(limited, recs[:n])
		cancel()
		if err != nil {
			return fmt.Errorf("store the result of %s: %w", recs[0].TaskID, fault(ctx, err))
		}
		recs = recs[n:]
	}
	return nil
}

// store writes a batch by one script, or in a cluster, where each result has a
// slot of its own, by one for each.
func (b *Backend) store(ctx context.Context, recs []*backend.Record) error {
	if !b.rdb.Cluster {
		var args []string
		for _, r := range recs {
			args = b.rdb.AppendStore(args, b.prefix, r)
		}
		return storeScript.Exec(ctx, b.rdb, nil, args).Error()
	}
	of := map[string][]*backend.Record{} // each task's in order
	for _, r := range recs {
		of[r.TaskID] = append(of[r.TaskID], r)
	}
	var (
		wg   sync.WaitGroup
		mu   sync.Mutex
		errs []error
	)
	for _, recs := range of { // the client puts them into one pipeline for each node
		wg.Go(func() {
			for _, r := range recs {
				args := b.rdb.AppendStore(nil, b.prefix, r)
				if err := storeScript.Exec(ctx, b.rdb, args[:2], args).Error(); err != nil {
					mu.Lock()
					errs = append(errs, err)
					mu.Unlock()
					return
				}
			}
		})
	}
	wg.Wait()
	if len(errs) > 0 {
		return errs[0]
	}
	return nil
}

// Fetch reads records, many at a time. State is set where the document is
// Celery's JSON.
func (b *Backend) Fetch(ctx context.Context, ids ...string) ([]backend.Record, error) {
	if err := b.alive(); err != nil {
		return nil, err
	}
	out := make([]backend.Record, 0, len(ids))
	for len(ids) > 0 {
		n := min(len(ids), fetchBatch)
		keys := make([]string, n)
		for i, id := range ids[:n] {
			keys[i] = b.prefix + redisconn.TaskKey + id
		}
		limited, cancel := b.rdb.Deadline(ctx)
		values, err := b.rdb.Values(limited, keys)
		cancel()
		if err != nil {
			return nil, fmt.Errorf("fetch results: %w", fault(ctx, err))
		}
		for i, v := range values {
			r := backend.Record{TaskID: ids[i]}
			if meta, err := v.AsBytes(); err == nil {
				r.Meta, r.State = meta, redisconn.StateOf(meta)
			} else if !rueidis.IsRedisNil(err) {
				return nil, fmt.Errorf("fetch the result of %s: %w", ids[i], fault(ctx, err))
			}
			out = append(out, r)
		}
		ids = ids[n:]
	}
	return out, nil
}

// Forget deletes records.
func (b *Backend) Forget(ctx context.Context, ids ...string) error {
	if err := b.alive(); err != nil {
		return err
	}
	for len(ids) > 0 {
		n := min(len(ids), fetchBatch)
		keys := make([]string, 0, 2*n)
		for _, id := range ids[:n] {
			keys = append(keys, b.prefix+redisconn.TaskKey+id, b.rdb.MarkKey(b.prefix, id))
		}
		if err := b.del(ctx, keys...); err != nil {
			return fmt.Errorf("forget results: %w", err)
		}
		ids = ids[n:]
	}
	return nil
}

func (b *Backend) del(ctx context.Context, keys ...string) error {
	limited, cancel := b.rdb.Deadline(ctx)
	defer cancel()
	return fault(ctx, b.rdb.Delete(limited, keys))
}

// SaveGroup keeps a group's document.
func (b *Backend) SaveGroup(ctx context.Context, id string, doc []byte, expires time.Duration) error {
	limited, cancel := b.rdb.Deadline(ctx)
	defer cancel()
	set := b.rdb.B().Set().Key(b.prefix + redisconn.GroupKey + id).Value(string(doc))
	var cmd rueidis.Completed
	if expires > 0 {
		cmd = set.PxMilliseconds(max(expires.Milliseconds(), 1)).Build()
	} else {
		cmd = set.Build()
	}
	if err := b.rdb.Do(limited, cmd).Error(); err != nil {
		return fmt.Errorf("save group %s: %w", id, fault(ctx, err))
	}
	return nil
}

// RestoreGroup gives the document, nil if there is none.
func (b *Backend) RestoreGroup(ctx context.Context, id string) ([]byte, error) {
	limited, cancel := b.rdb.Deadline(ctx)
	defer cancel()
	doc, err := b.rdb.Do(limited, b.rdb.B().Get().Key(b.prefix+redisconn.GroupKey+id).Build()).AsBytes()
	if rueidis.IsRedisNil(err) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("restore group %s: %w", id, fault(ctx, err))
	}
	return doc, nil
}

// DeleteGroup deletes the document.
func (b *Backend) DeleteGroup(ctx context.Context, id string) error {
	return b.del(ctx, b.prefix+redisconn.GroupKey+id)
}

// Close ends all watches and the connections. Closing twice is no error.
func (b *Backend) Close() error {
	if b.closed.Swap(true) {
		return nil
	}
	b.ears.Close()
	b.rdb.Close()
	b.ringAll() // who waits finds it closed
	return nil
}

func (b *Backend) alive() error {
	if b.closed.Load() {
		return fmt.Errorf("redis backend %s: %w", b.rdb.ID, backend.ErrClosed)
	}
	return nil
}

var sentinels = redisconn.Sentinels{Closed: backend.ErrClosed, Unavailable: backend.ErrUnavailable}

func fault(ctx context.Context, err error) error { return sentinels.Fault(ctx, err) }

var (
	_ backend.Backend      = (*Backend)(nil)
	_ backend.Watcher      = (*Backend)(nil)
	_ backend.GroupStore   = (*Backend)(nil)
	_ backend.OnceClaimer  = (*Backend)(nil)
	_ backend.LossCounter  = (*Backend)(nil)
	_ backend.ChordCounter = (*Backend)(nil)
)
