package sqlbackend

import (
	"context"
	"fmt"
	"time"

	"github.com/lovage-go/lovage/backend"
	"github.com/lovage-go/lovage/internal/sqlstore"
	"github.com/lovage-go/lovage/protocol"
)

func init() {
	backend.Register(func(ctx context.Context, cfg backend.Config) (backend.Backend, error) {
		b, err := Open(ctx, cfg)
		if err != nil {
			return nil, err
		}
		return b, nil
	}, "sqlite")
}

// Backend is the result store. It is safe for concurrent use.
type Backend struct {
	db    *sqlstore.DB
	watch *watchers
}

// Open opens or creates the store that cfg.URL names.
func Open(ctx context.Context, cfg backend.Config) (*Backend, error) {
	sc, err := sqlstore.ParseURL(cfg.URL, cfg.Options)
	if err != nil {
		return nil, err
	}
	return open(ctx, cfg, sc)
}

func open(ctx context.Context, cfg backend.Config, sc sqlstore.Config) (*Backend, error) {
	sc.Logger = cfg.Log()
	db, err := sqlstore.Open(ctx, sc)
	if err != nil {
		return nil, fault(err)
	}
	return &Backend{db: db, watch: newWatchers(db)}, nil
}

// Features: records expire, outlive the process and can be collected for chords.
func (b *Backend) Features() backend.Features {
	return backend.Features{Expires: true, Durable: true, Chords: true}
}

// StoreID is "sqlite:" and the file's resolved path.
func (b *Backend) StoreID() string { return b.db.StoreID() }

// Store writes records in one transaction, together with whatever others write.
func (b *Backend) Store(ctx context.Context, recs ...*backend.Record) error {
	if len(recs) == 0 {
		return nil
	}
	return fault(b.db.Update(ctx, func(tx *sqlstore.Tx) error {
		for _, r := range recs {
			row := sqlstore.Result{TaskID: r.TaskID, State: string(r.State), Meta: r.Meta, GroupID: r.GroupID, Expires: r.Expires}
			if err := tx.Store(&row); err != nil {
				return err
			}
		}
		return nil
	}))
}

// Fetch reads records; Expires is what is left of it.
func (b *Backend) Fetch(ctx context.Context, ids ...string) ([]backend.Record, error) {
	out := make([]backend.Record, len(ids))
	err := b.db.View(ctx, func(tx *sqlstore.Tx) error {
		for i, id := range ids {
			out[i] = backend.Record{TaskID: id}
			r, ok, err := tx.Fetch(id)
			if err != nil {
				return err
			}
			if ok {
				out[i].State, out[i].Meta, out[i].GroupID, out[i].Expires = protocol.State(r.State), r.Meta, r.GroupID, r.Expires
			}
		}
		return nil
	})
	if err != nil {
		return nil, fault(err)
	}
	return out, nil
}

// Forget deletes records.
func (b *Backend) Forget(ctx context.Context, ids ...string) error {
	if len(ids) == 0 {
		return nil
	}
	return fault(b.db.Update(ctx, func(tx *sqlstore.Tx) error {
		for _, id := range ids {
			if err := tx.Forget(id); err != nil {
				return err
			}
		}
		return nil
	}))
}

// SaveGroup keeps a group's document.
func (b *Backend) SaveGroup(ctx context.Context, id string, doc []byte, expires time.Duration) error {
	return fault(b.db.Update(ctx, func(tx *sqlstore.Tx) error { return tx.SaveGroup(id, doc, expires) }))
}

// RestoreGroup reads it; nil if it is unknown or has expired.
func (b *Backend) RestoreGroup(ctx context.Context, id string) (doc []byte, err error) {
	err = b.db.View(ctx, func(tx *sqlstore.Tx) (err error) {
		doc, err = tx.Group(id)
		return err
	})
	return doc, fault(err)
}

// DeleteGroup deletes it.
func (b *Backend) DeleteGroup(ctx context.Context, id string) error {
	return fault(b.db.Update(ctx, func(tx *sqlstore.Tx) error { return tx.DeleteGroup(id) }))
}

// ClaimOnce takes an id for an owner until the lease ends.
func (b *Backend) ClaimOnce(ctx context.Context, id, owner string, lease time.Duration) (ok bool, err error) {
	err = b.db.Update(ctx, func(tx *sqlstore.Tx) (err error) {
		ok, err = tx.ClaimOnce(id, owner, lease)
		return err
	})
	return ok && err == nil, fault(err)
}

// DoneOnce marks an id as done.
func (b *Backend) DoneOnce(ctx context.Context, id, owner string, keep time.Duration) error {
	return fault(b.db.Update(ctx, func(tx *sqlstore.Tx) error { return tx.DoneOnce(id, owner, keep) }))
}

// CountLoss counts a lost worker of a task; each count keeps them for keep.
func (b *Backend) CountLoss(ctx context.Context, taskID string, known int, keep time.Duration) (int, error) {
	n := int64(0)
	err := b.db.Update(ctx, func(tx *sqlstore.Tx) (err error) {
		n, err = tx.RaiseLosses(taskID, int64(known)+1, keep)
		return err
	})
	return int(n), fault(err)
}

// Losses is how many lost workers were counted for a task.
func (b *Backend) Losses(ctx context.Context, taskID string) (int, error) {
	n := int64(0)
	err := b.db.View(ctx, func(tx *sqlstore.Tx) (err error) {
		n, err = tx.Losses(taskID)
		return err
	})
	return int(n), fault(err)
}

// ForgetLosses drops the count of a task.
func (b *Backend) ForgetLosses(ctx context.Context, taskID string) error {
	return fault(b.db.Update(ctx, func(tx *sqlstore.Tx) error { return tx.ForgetLosses(taskID) }))
}

// Cleanup deletes all expired records and returns the number of results.
func (b *Backend) Cleanup(ctx context.Context) (int, error) {
	n, err := b.db.Cleanup(ctx)
	return n, fault(err)
}

// Close ends the watches and gives up the file. Closing twice is no error.
func (b *Backend) Close() error {
	b.watch.close()
	if err := b.db.Close(); err != nil {
		return fmt.Errorf("close the result store: %w", fault(err))
	}
	return nil
}

var sentinels = sqlstore.Sentinels{Closed: backend.ErrClosed, Unavailable: backend.ErrUnavailable}

func fault(err error) error { return sentinels.Map(err) }

var (
	_ backend.Backend     = (*Backend)(nil)
	_ backend.Watcher     = (*Backend)(nil)
	_ backend.GroupStore  = (*Backend)(nil)
	_ backend.OnceClaimer = (*Backend)(nil)
	_ backend.LossCounter = (*Backend)(nil)
	_ backend.Cleaner     = (*Backend)(nil)
)
