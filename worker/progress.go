package worker

import (
	"sync/atomic"
	"time"
)

// progress is what is seen of a loop from outside: since when it is at one turn
// of its work. A loop that rests, waiting for work or for a call that has its
// own watch, is fine for any time. The zero progress rests.
type progress struct{ since atomic.Int64 }

// work begins a turn, or the next one.
func (p *progress) work() { p.since.Store(time.Now().UnixNano()) }

// owe tells that there is work for a loop that rests.
func (p *progress) owe() { p.since.CompareAndSwap(0, time.Now().UnixNano()) }

// rest ends the turn.
func (p *progress) rest() { p.since.Store(0) }

// lasts is how long the turn has lasted.
func (p *progress) lasts(now time.Time) time.Duration {
	if at := p.since.Load(); at > 0 {
		return now.Sub(time.Unix(0, at))
	}
	return 0
}
