package worker

import "sync"

// maxAlive bounds what is remembered of runs whose messages may come again.
const maxAlive = 10_000

// alive remembers the last messages that this worker held when their connection
// was lost, and those that it settled by one where nobody hears whether the server
// took that. Where no lease tells a lost connection from a dead holder, such a
// message comes back as an orphan at once, and its worker is alive: that is no loss.
type alive struct {
	mu   sync.Mutex // guards what follows
	ids  map[string]struct{}
	last []string // the ids in the order they came, a ring
	next int
}

func (a *alive) add(id string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if _, ok := a.ids[id]; ok || id == "" {
		return
	}
	if a.ids == nil {
		a.ids = map[string]struct{}{}
	}
	a.ids[id] = struct{}{}
	if len(a.last) < maxAlive {
		a.last = append(a.last, id)
		return
	}
	delete(a.ids, a.last[a.next])
	a.last[a.next] = id
	a.next = (a.next + 1) % maxAlive
}

// take reports whether an orphan was this worker's, and forgets it.
func (a *alive) take(id string) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	_, ok := a.ids[id]
	delete(a.ids, id)
	return ok
}

// survived remembers what came by a lost link.
func (w *Worker) survived(l *link) {
	if l.renewer != nil {
		return
	}
	for _, j := range w.snapshot() {
		if j.link == l && !j.settled.Load() {
			w.alive.add(j.d.Properties.CorrelationID) // the message may still be read by another goroutine
		}
	}
}
