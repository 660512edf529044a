package worker

import (
	"sync"
	"time"
)

// window decides how many messages are claimed ahead of free slots: as many as
// can be started within aheadWork, by a moving average of the run times.
type window struct {
	most int
	each int // bounds it for each slot; 0: it does not

	mu    sync.Mutex // guards what follows
	slots int
	avg   float64 // seconds
	seen  bool
}

// resize tells the number of slots.
func (w *window) resize(slots int) {
	w.mu.Lock()
	w.slots = slots
	w.mu.Unlock()
}

// observe tells the length of a run.
func (w *window) observe(d time.Duration) {
	s := d.Seconds()
	w.mu.Lock()
	if w.seen {
		w.avg += (s - w.avg) / 8
	} else {
		w.avg, w.seen = s, true
	}
	w.mu.Unlock()
}

// blocked tells that all slots have been busy with longer runs for d.
func (w *window) blocked(d time.Duration) {
	w.mu.Lock()
	w.avg, w.seen = max(w.avg, d.Seconds()), true
	w.mu.Unlock()
}

// size is the look-ahead now: none when runs are long, one until a run was seen.
func (w *window) size() int {
	w.mu.Lock()
	avg, seen, slots := w.avg, w.seen, w.slots
	w.mu.Unlock()
	switch {
	case w.most <= 0 || avg >= aheadWait.Seconds():
		return 0
	case !seen:
		return 1
	}
	n := aheadWork.Seconds() / max(avg, 1e-6) * float64(slots)
	most := w.most
	if w.each > 0 {
		most = w.each * slots
	}
	return min(max(int(min(n, maxLookAhead)), 1), most)
}
