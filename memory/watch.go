package memory

import (
	"context"
	"slices"

	"github.com/lovage-go/lovage/backend"
)

// watch rings when a record of its ids is written.
type watch struct {
	backend *Backend
	ids     []string
	ring    chan struct{}
	closed  bool // guarded by store.mu
}

// Watch starts a subscription.
func (b *Backend) Watch(ctx context.Context, ids ...string) (backend.Watch, error) {
	f, unlock, err := b.enter(ctx, OpWatch)
	if err != nil {
		return nil, err
	}
	defer unlock()
	if err := f.reply(); err != nil {
		return nil, err
	}
	w := &watch{backend: b, ids: slices.Clone(ids), ring: make(chan struct{}, 1)}
	b.watches[w] = struct{}{}
	all := b.store.results.watches
	for _, id := range w.ids {
		if all[id] == nil {
			all[id] = map[*watch]struct{}{}
		}
		all[id][w] = struct{}{}
	}
	return w, nil
}

func (w *watch) Ring() <-chan struct{} { return w.ring }

func (w *watch) wake() {
	select {
	case w.ring <- struct{}{}:
	default:
	}
}

func (w *watch) Close() error {
	w.backend.store.mu.Lock()
	defer w.backend.store.mu.Unlock()
	w.end()
	return nil
}

func (w *watch) end() {
	if w.closed {
		return
	}
	w.closed = true
	delete(w.backend.watches, w)
	all := w.backend.store.results.watches
	for _, id := range w.ids {
		delete(all[id], w)
		if len(all[id]) == 0 {
			delete(all, id)
		}
	}
}

var _ backend.Watcher = (*Backend)(nil)
