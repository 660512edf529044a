package redisbackend

import (
	"context"
	"fmt"
	"sync"

	"github.com/lovage-go/lovage/backend"
	"github.com/lovage-go/lovage/internal/redisconn"
)

// watch is one subscription.
type watch struct {
	b        *Backend
	channels []string
	bell     chan struct{} // one token
	once     sync.Once
	err      error
}

// Watch subscribes to the channels of results, and returns when the server has
// confirmed it.
func (b *Backend) Watch(ctx context.Context, ids ...string) (backend.Watch, error) {
	if err := b.alive(); err != nil {
		return nil, err
	}
	w := &watch{b: b, channels: make([]string, len(ids)), bell: make(chan struct{}, 1)}
	b.mu.Lock()
	for i, id := range ids {
		ch := b.prefix + redisconn.TaskKey + id
		w.channels[i] = ch
		if b.watching[ch] == nil {
			b.watching[ch] = map[*watch]struct{}{}
		}
		b.watching[ch][w] = struct{}{}
	}
	b.mu.Unlock()
	if err := b.ears.Add(ctx, w.channels...); err != nil {
		w.forget()
		return nil, fmt.Errorf("watch results: %w", fault(ctx, err))
	}
	return w, nil
}

// Ring gives the bell.
func (w *watch) Ring() <-chan struct{} { return w.bell }

// Close ends the subscription. Closing twice is no error.
func (w *watch) Close() error {
	w.once.Do(func() {
		w.forget()
		ctx, cancel := context.WithTimeout(context.Background(), w.b.rdb.Timeout)
		defer cancel()
		if err := w.b.ears.Remove(ctx, w.channels...); err != nil && w.b.alive() == nil {
			w.err = fmt.Errorf("end a watch: %w", fault(ctx, err))
		}
	})
	return w.err
}

func (w *watch) forget() {
	w.b.mu.Lock()
	defer w.b.mu.Unlock()
	for _, ch := range w.channels {
		delete(w.b.watching[ch], w)
		if len(w.b.watching[ch]) == 0 {
			delete(w.b.watching, ch)
		}
	}
}

func (w *watch) wake() {
	select {
	case w.bell <- struct{}{}:
	default:
	}
}

func (b *Backend) ring(channel string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for w := range b.watching[channel] {
		w.wake()
	}
}

// ringAll wakes everybody: something may have been missed.
func (b *Backend) ringAll() {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, ws := range b.watching {
		for w := range ws {
			w.wake()
		}
	}
}
