package worker

import (
	"container/heap"
	"context"
	"sync"
	"time"
)

// alarms calls functions at their times: time limits, messages held for later.
// One goroutine serves all of them; the functions must not block.
type alarms struct {
	wake chan struct{}
	turn progress

	mu   sync.Mutex // guards the heap
	heap alarmHeap
}

type alarm struct {
	at    time.Time
	f     func()
	index int // in the heap, -1 outside
}

func newAlarms() *alarms { return &alarms{wake: make(chan struct{}, 1)} }

// add sets an alarm.
func (a *alarms) add(at time.Time, f func()) *alarm {
	al := &alarm{at: at, f: f}
	a.mu.Lock()
	heap.Push(&a.heap, al)
	first := al.index == 0
	a.mu.Unlock()
	if first {
		select {
		case a.wake <- struct{}{}:
		default:
		}
	}
	return al
}

// cancel takes an alarm back; a nil alarm is none. It reports whether the alarm
// had not yet gone off.
func (a *alarms) cancel(al *alarm) bool {
	if al == nil {
		return false
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if al.index < 0 {
		return false
	}
	heap.Remove(&a.heap, al.index)
	return true
}

// run serves the alarms until ctx ends.
func (a *alarms) run(ctx context.Context) {
	t := time.NewTimer(time.Hour)
	defer t.Stop()
	for {
		next := a.fire(time.Now())
		if next > 0 {
			t.Reset(next)
		} else {
			t.Stop()
		}
		select {
		case <-t.C:
		case <-a.wake:
		case <-ctx.Done():
			return
		}
	}
}

// fire calls what is due and returns the time until the next, 0 if there is none.
func (a *alarms) fire(now time.Time) time.Duration {
	for {
		a.mu.Lock()
		if len(a.heap) == 0 {
			a.mu.Unlock()
			return 0
		}
		first := a.heap[0]
		if wait := first.at.Sub(now); wait > 0 {
			a.mu.Unlock()
			return wait
		}
		heap.Pop(&a.heap)
		a.mu.Unlock()
		a.turn.work()
		first.f()
		a.turn.rest()
	}
}

type alarmHeap []*alarm

func (h alarmHeap) Len() int           { return len(h) }
func (h alarmHeap) Less(i, j int) bool { return h[i].at.Before(h[j].at) }
func (h alarmHeap) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].index, h[j].index = i, j
}

func (h *alarmHeap) Push(x any) {
	al := x.(*alarm)
	al.index = len(*h)
	*h = append(*h, al)
}

func (h *alarmHeap) Pop() any {
	old := *h
	al := old[len(old)-1]
	old[len(old)-1] = nil
	*h = old[:len(old)-1]
	al.index = -1
	return al
}
