package worker

import "sync"

// maxAlive bounds what is remembered of lost connections.
const maxAlive = 10_000

// alive remembers the tasks that this worker held by a connection when that was
// lost. Where no lease tells a lost connection from a dead holder, such a message
// comes back as an orphan at once, and its worker is alive: that is no loss.
type alive struct {
	mu  sync.Mutex // guards ids
	ids map[string]struct{}
}

// survived remembers what came by a lost link.
func (w *Worker) survived(l *link) {
	if l.renewer != nil {
		return
	}
	w.alive.mu.Lock()
	defer w.alive.mu.Unlock()
	for _, j := range w.snapshot() {
		id := j.d.Properties.CorrelationID // the message may still be read by another goroutine
		if j.link != l || id == "" || j.settled.Load() {
			continue
		}
		if w.alive.ids == nil || len(w.alive.ids) >= maxAlive { // others have most of them
			w.alive.ids = map[string]struct{}{}
		}
		w.alive.ids[id] = struct{}{}
	}
}

// take reports whether an orphan was this worker's, and forgets it.
func (a *alive) take(id string) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	_, ok := a.ids[id]
	delete(a.ids, id)
	return ok
}
