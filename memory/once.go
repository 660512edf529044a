package memory

import (
	"bytes"
	"context"
	"time"

	"github.com/lovage-go/lovage/backend"
)

type document struct {
	doc   []byte
	until time.Time
}

type ticket struct {
	owner string
	done  bool
	until time.Time
}

// SaveGroup keeps a group's document.
func (b *Backend) SaveGroup(ctx context.Context, id string, doc []byte, expires time.Duration) error {
	f, unlock, err := b.enter(ctx, OpGroup)
	if err != nil {
		return err
	}
	defer unlock()
	b.store.results.groups[id] = document{doc: bytes.Clone(doc), until: deadline(time.Now(), expires)}
	return f.reply()
}

// RestoreGroup returns it; nil if the id is unknown or expired.
func (b *Backend) RestoreGroup(ctx context.Context, id string) ([]byte, error) {
	f, unlock, err := b.enter(ctx, OpGroup)
	if err != nil {
		return nil, err
	}
	defer unlock()
	g, ok := b.store.results.groups[id]
	if !ok || !alive(g.until, time.Now()) {
		return nil, f.reply()
	}
	return bytes.Clone(g.doc), f.reply()
}

// DeleteGroup deletes it.
func (b *Backend) DeleteGroup(ctx context.Context, id string) error {
	f, unlock, err := b.enter(ctx, OpGroup)
	if err != nil {
		return err
	}
	defer unlock()
	delete(b.store.results.groups, id)
	return f.reply()
}

// ClaimOnce takes an id for an owner, who may take it again to renew.
func (b *Backend) ClaimOnce(ctx context.Context, id, owner string, lease time.Duration) (bool, error) {
	f, unlock, err := b.enter(ctx, OpOnce)
	if err != nil {
		return false, err
	}
	defer unlock()
	now := time.Now()
	t, held := b.store.results.once[id]
	if held && alive(t.until, now) && (t.done || t.owner != owner) {
		return false, f.reply()
	}
	b.store.results.once[id] = ticket{owner: owner, until: now.Add(lease)}
	return true, f.reply()
}

// DoneOnce marks an id as done; keep 0 is for ever.
func (b *Backend) DoneOnce(ctx context.Context, id, owner string, keep time.Duration) error {
	f, unlock, err := b.enter(ctx, OpOnce)
	if err != nil {
		return err
	}
	defer unlock()
	b.store.results.once[id] = ticket{owner: owner, done: true, until: deadline(time.Now(), keep)}
	return f.reply()
}

// CountLoss counts a lost worker; the count is the broker's too.
func (b *Backend) CountLoss(ctx context.Context, taskID string, known int, keep time.Duration) (int, error) {
	f, unlock, err := b.enter(ctx, OpLoss)
	if err != nil {
		return 0, err
	}
	defer unlock()
	if keep <= 0 {
		keep = lossKeep
	}
	return b.store.raiseLosses(taskID, known+1, time.Now(), keep), f.reply()
}

// Losses is how many lost workers were counted for a task.
func (b *Backend) Losses(ctx context.Context, taskID string) (int, error) {
	f, unlock, err := b.enter(ctx, OpLoss)
	if err != nil {
		return 0, err
	}
	defer unlock()
	return b.store.lossesOf(taskID, time.Now()), f.reply()
}

// ForgetLosses drops the count of a task.
func (b *Backend) ForgetLosses(ctx context.Context, taskID string) error {
	f, unlock, err := b.enter(ctx, OpLoss)
	if err != nil {
		return err
	}
	defer unlock()
	delete(b.store.losses, taskID)
	return f.reply()
}

var (
	_ backend.GroupStore  = (*Backend)(nil)
	_ backend.OnceClaimer = (*Backend)(nil)
	_ backend.LossCounter = (*Backend)(nil)
)
