// Package backoff holds the two ways in which Celery spaces tries: the
// exponential delay of autoretry and the linear one of publishing and
// reconnecting. It draws no random numbers of its own.
package backoff

import (
	"math"
	"time"
)

// Exponential returns the delay before the try that follows retries earlier
// ones: factor doubled retries times, at most limit, never negative. With
// fullJitter it is drawn evenly from zero to that value by rnd, which must
// return a number in [0, n); a nil rnd turns jitter off.
//
// Celery's get_exponential_backoff_interval does the same in whole seconds.
func Exponential(factor time.Duration, retries int, limit time.Duration, fullJitter bool, rnd func(n int64) int64) time.Duration {
	if factor <= 0 || limit <= 0 {
		return 0
	}
	retries = max(retries, 0)
	d := limit
	if retries < 63 && factor <= limit>>retries {
		d = factor << retries
	}
	if !fullJitter || rnd == nil {
		return d
	}
	if d == math.MaxInt64 {
		d--
	}
	return min(max(time.Duration(rnd(int64(d)+1)), 0), d)
}
