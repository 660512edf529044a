package rpcbackend

import (
	"container/list"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/lovage-go/lovage/backend"
	"github.com/lovage-go/lovage/broker"
	"github.com/lovage-go/lovage/protocol"
)

const (
	// maxKept is how many states are kept that nobody waits for.
	maxKept = 10_000
	// maxExpected bounds the ids of calls whose results have not come.
	maxExpected = 1_000_000
)

// inbox keeps the last states of this process's calls.
type inbox struct {
	keep time.Duration

	mu       sync.Mutex // guards what follows
	entries  map[string]*entry
	waiting  list.List // ids without a state, oldest first
	kept     list.List // ids with a state that nobody waits for, oldest first
	gone     map[string]struct{}
	goneRing []string // dropped ids, so that their Get says so
	goneNext int
	dropped  int64
	losses   int64 // how often the queue was lost
	watches  map[string]map[*watch]struct{}
}

// entry is one call.
type entry struct {
	id     string
	meta   []byte // nil: no state has come
	state  protocol.State
	at     time.Time
	losses int64         // those of the inbox when the call was made
	place  *list.Element // in waiting or kept; nil: somebody waits for it
	in     *list.List
}

func newInbox(keep time.Duration) *inbox {
	return &inbox{keep: keep, entries: map[string]*entry{}, gone: map[string]struct{}{}, watches: map[string]map[*watch]struct{}{}}
}

// expect begins to keep what comes for the ids; it gives how many others that cost.
func (b *inbox) expect(now time.Time, ids []string) (dropped int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, id := range ids {
		if e := b.entries[id]; e != nil {
			continue
		}
		delete(b.gone, id)
		e := &entry{id: id, at: now, losses: b.losses}
		b.entries[id] = e
		b.file(e)
	}
	return b.trim(now)
}

// file files an entry by whether it has a state and is waited for.
func (b *inbox) file(e *entry) {
	if e.in != nil {
		e.in.Remove(e.place)
		e.in, e.place = nil, nil
	}
	if len(b.watches[e.id]) > 0 {
		return
	}
	e.in = &b.waiting
	if e.meta != nil {
		e.in = &b.kept
	}
	e.place = e.in.PushBack(e.id)
}

// trim drops what is too old or too much. Of results, the number dropped is told
// when it reaches 1, 2, 4, 8 and so on.
func (b *inbox) trim(now time.Time) (tell int) {
	for _, l := range []*list.List{&b.kept, &b.waiting} {
		limit := maxKept
		if l == &b.waiting {
			limit = maxExpected
		}
		for front := l.Front(); front != nil; front = l.Front() {
			e := b.entries[front.Value.(string)]
			if old := now.Sub(e.at) > b.keep; !old && l.Len() <= limit {
				break
			} else if !old && l == &b.kept {
				if b.dropped++; b.dropped&(b.dropped-1) == 0 {
					tell = int(b.dropped)
				}
			}
			b.drop(e)
		}
	}
	return tell
}

func (b *inbox) drop(e *entry) {
	b.remove(e)
	if b.goneRing == nil {
		b.goneRing = make([]string, maxKept)
	}
	delete(b.gone, b.goneRing[b.goneNext])
	b.goneRing[b.goneNext] = e.id
	b.gone[e.id] = struct{}{}
	b.goneNext = (b.goneNext + 1) % maxKept
}

func (b *inbox) remove(e *entry) {
	delete(b.entries, e.id)
	if e.in != nil {
		e.in.Remove(e.place)
	}
}

// put keeps a state; false: the call is not ours, or not any more.
func (b *inbox) put(now time.Time, d *broker.Delivery) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	id := d.Properties.CorrelationID
	e := b.entries[id]
	if e == nil {
		return false
	}
	var state protocol.State
	if m, err := protocol.ParseResultMeta(d.Body); err == nil {
		state = m.Status // what cannot be read is told to who asks
	}
	if e.state.Ready() && !state.Ready() || e.state == protocol.Success && state != protocol.Success {
		return true // a late state, or one of a second run: who waited has got the end
	}
	e.meta, e.state, e.at = slices.Clone(d.Body), state, now
	b.file(e)
	b.trim(now)
	for w := range b.watches[id] {
		w.wake()
	}
	return true
}

func (b *inbox) fetch(now time.Time, ids []string) ([]backend.Record, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.trim(now)
	out := make([]backend.Record, len(ids))
	for i, id := range ids {
		e := b.entries[id]
		if e == nil {
			if _, dropped := b.gone[id]; dropped {
				return nil, fmt.Errorf("task %s: %w", id, ErrDropped)
			}
			return nil, fmt.Errorf("task %s was not called by this process, or its result was forgotten: %w", id, ErrNotOurs)
		}
		out[i] = backend.Record{TaskID: id, State: e.state, Meta: slices.Clone(e.meta), CorrelationID: id}
	}
	return out, nil
}

func (b *inbox) forget(ids []string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, id := range ids {
		if e := b.entries[id]; e != nil {
			b.remove(e)
		}
	}
}

// noteLost tells how often the queue was lost by now.
func (b *inbox) noteLost(n int64) {
	b.mu.Lock()
	b.losses = max(b.losses, n)
	b.mu.Unlock()
}

// mayBeLost: the queue was lost since the call, and no final state has come.
func (b *inbox) mayBeLost(id string) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	e := b.entries[id]
	return e != nil && !e.state.Ready() && e.losses < b.losses
}

// drops counts results that were lost on their way here.
func (b *inbox) drops(n int64) {
	b.mu.Lock()
	b.dropped += n
	b.mu.Unlock()
}

func (b *inbox) droppedCount() int64 {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.dropped
}

// watch is somebody who waits.
type watch struct {
	b    *inbox
	ids  []string
	bell chan struct{}
	once sync.Once
}

func (b *inbox) watch(ids []string) *watch {
	w := &watch{b: b, ids: slices.Clone(ids), bell: make(chan struct{}, 1)}
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, id := range w.ids {
		if b.watches[id] == nil {
			b.watches[id] = map[*watch]struct{}{}
		}
		b.watches[id][w] = struct{}{}
		if e := b.entries[id]; e != nil {
			b.file(e)
		}
	}
	return w
}

func (w *watch) wake() {
	select {
	case w.bell <- struct{}{}:
	default:
	}
}

// Ring rings when something has come.
func (w *watch) Ring() <-chan struct{} { return w.bell }

// Close ends the wait.
func (w *watch) Close() error {
	w.once.Do(func() {
		w.b.mu.Lock()
		defer w.b.mu.Unlock()
		for _, id := range w.ids {
			delete(w.b.watches[id], w)
			if len(w.b.watches[id]) == 0 {
				delete(w.b.watches, id)
			}
			if e := w.b.entries[id]; e != nil {
				w.b.file(e)
			}
		}
		w.b.trim(time.Now())
	})
	return nil
}
