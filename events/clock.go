package events

import "sync/atomic"

// Clock is a Lamport clock: a counter that moves with every event sent and
// jumps past every event seen, so that causes order before effects across
// nodes. The zero Clock is ready. It is safe for concurrent use.
type Clock struct{ v atomic.Int64 }

// Value returns the time of the last event.
func (c *Clock) Value() int64 { return c.v.Load() }

// Forward moves the clock on by one and returns its value.
func (c *Clock) Forward() int64 { return c.v.Add(1) }

// Adjust moves the clock past other, which came with a message, and returns its
// value. A value that would overflow the clock is ignored.
func (c *Clock) Adjust(other int64) int64 {
	if other >= maxClock {
		return c.Forward()
	}
	for {
		old := c.v.Load()
		next := max(old, other) + 1
		if c.v.CompareAndSwap(old, next) {
			return next
		}
	}
}

// maxClock is the largest clock value that is believed. A node that sends one
// event a nanosecond gets there after a century; a hostile one does at once.
const maxClock = 1 << 62
