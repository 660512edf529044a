// Package earshot keeps broadcasts for a listener until it takes them.
package earshot

import "sync"

// Most is how many broadcasts are kept before the oldest are lost.
const Most = 10_000

// Buffer holds what was heard, the oldest first. It never blocks who puts. It is
// safe for concurrent use.
type Buffer[T any] struct {
	bell chan struct{} // one token: something was put

	mu     sync.Mutex // guards what follows
	kept   []T        // begins at first
	first  int
	missed int64
}

// New returns an empty buffer.
func New[T any]() *Buffer[T] { return &Buffer[T]{bell: make(chan struct{}, 1)} }

// Bell rings after something was put.
func (b *Buffer[T]) Bell() <-chan struct{} { return b.bell }

// Put keeps v; a full buffer loses its oldest.
func (b *Buffer[T]) Put(v T) {
	b.mu.Lock()
	if len(b.kept)-b.first >= Most {
		b.drop()
		b.missed++
	}
	if b.first > Most {
		b.kept = append(b.kept[:0], b.kept[b.first:]...)
		b.first = 0
	}
	b.kept = append(b.kept, v)
	b.mu.Unlock()
	select {
	case b.bell <- struct{}{}:
	default:
	}
}

// Take gives the oldest; it reports false if there is none.
func (b *Buffer[T]) Take() (v T, ok bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.first == len(b.kept) {
		b.kept, b.first = b.kept[:0], 0
		return v, false
	}
	v = b.kept[b.first]
	b.drop()
	return v, true
}

// drop lets go of the oldest. The caller holds mu.
func (b *Buffer[T]) drop() {
	var none T
	b.kept[b.first] = none
	b.first++
}

// Missed counts what was lost.
func (b *Buffer[T]) Missed() int64 {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.missed
}
