// Package ratelimit is Celery's rate limit of a task type: a token bucket of
// capacity one, so that runs are spread evenly and never come in bursts.
package ratelimit

import (
	"fmt"
	"strconv"
	"strings"
	"sync"
	"time"
)

// Parse reads a rate as Celery writes it: "10/s", "100/m", "1000/h", or a bare
// number, which is per second. It returns the time between two runs; 0 is no
// limit, which "" and "0" mean too.
func Parse(text string) (time.Duration, error) {
	text = strings.TrimSpace(text)
	if text == "" {
		return 0, nil
	}
	number, unit, _ := strings.Cut(text, "/")
	n, err := strconv.ParseFloat(strings.TrimSpace(number), 64)
	if err != nil || n != n || n < 0 {
		return 0, fmt.Errorf("rate limit %q: want a number and a unit, such as 10/s, 100/m or 1000/h", text)
	}
	per := time.Second
	switch strings.TrimSpace(unit) {
	case "", "s":
	case "m":
		per = time.Minute
	case "h":
		per = time.Hour
	default:
		return 0, fmt.Errorf("rate limit %q: the unit is s, m or h", text)
	}
	if n == 0 {
		return 0, nil
	}
	every := float64(per) / n
	if every > float64(maxEvery) {
		return maxEvery, nil
	}
	return max(time.Duration(every), 1), nil
}

// maxEvery bounds the time between two runs: a rate of one in a century is a
// mistake, and must not overflow.
const maxEvery = 365 * 24 * time.Hour

// Horizon is the furthest turn that Bucket gives. What is further away comes
// back after it and asks again, spread over another one, so that a changed rate
// or a new worker is noticed, and not all of them come at once.
const Horizon = time.Minute

// Near is how far ahead turns are given one after the other to those that ask:
// they may wait where they are. Turns beyond are a guess, as others may come first.
const Near = time.Second

// apart is the time between two that come back after the horizon.
const apart = 5 * time.Millisecond

// Bucket lets one run pass in every interval. It is safe for concurrent use.
type Bucket struct {
	mu    sync.Mutex // guards what follows
	every time.Duration
	free  time.Time // when the next token is there
	near  time.Time // the last turn that was given up to Near
	turn  time.Time // the last turn that was given beyond it
	far   int       // how many were sent beyond the horizon
}

// NewBucket returns a bucket with its token in it.
func NewBucket(every time.Duration) *Bucket { return &Bucket{every: every} }

// Take takes the token. If there is none it returns a time at which it is worth
// asking again, a different one for each that asks.
func (b *Bucket) Take(now time.Time) (at time.Time, ok bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.every <= 0 {
		return now, true
	}
	if !now.Before(b.free) {
		if late := now.Sub(b.free); late >= b.every || b.near.Before(b.free) { // nobody was waiting for it
			b.free = now
		}
		b.free = b.free.Add(b.every) // who comes late for its turn moves none of those after it
		return now, true
	}
	near := b.near.Add(b.every)
	if near.Before(b.free) {
		near = b.free
	}
	if !near.After(now.Add(Near)) {
		b.near = near
		return near, false
	}
	next := b.turn.Add(b.every)
	if next.Before(near) {
		next = near
	}
	if limit := now.Add(Horizon); next.After(limit) && limit.After(b.free) {
		b.far++
		return limit.Add(time.Duration(b.far) * apart % Horizon), false
	}
	b.turn = next
	return next, false
}

// Set changes the interval; 0 lifts the limit. Turns that were given stay.
func (b *Bucket) Set(every time.Duration) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.every, b.free, b.near, b.turn = every, time.Time{}, time.Time{}, time.Time{}
}
