package backoff

import (
	"context"
	"fmt"
	"time"
)

// Policy says how often and how fast something is tried again, with the names
// and the sequence of kombu's retry_over_time: waits start at IntervalStart and
// grow by IntervalStep while they are at most IntervalStart + IntervalMax; the
// last one repeats. The zero Policy tries once.
type Policy struct {
	MaxRetries    int // tries after the first; negative: until the context ends
	IntervalStart time.Duration
	IntervalStep  time.Duration
	IntervalMax   time.Duration
}

// Default is the policy of Celery's task_publish_retry_policy: three retries
// after 0, 0.2 and 0.4 seconds, with waits of at most one second.
func Default() Policy {
	return Policy{MaxRetries: 3, IntervalStep: 200 * time.Millisecond, IntervalMax: time.Second}
}

// endlessFloor keeps a policy without limit and without waits from spinning.
const endlessFloor = 10 * time.Millisecond

// Interval is the wait before retry n, counted from zero.
func (p Policy) Interval(n int) time.Duration {
	start := max(p.IntervalStart, 0)
	if n > 0 && p.IntervalStep > 0 && p.IntervalMax > 0 {
		start += time.Duration(min(int64(n), int64(p.IntervalMax/p.IntervalStep))) * p.IntervalStep
	}
	if p.MaxRetries < 0 && n > 0 {
		return max(start, endlessFloor)
	}
	return start
}

// Do calls f until it succeeds, its error is not retryable, the retries are
// used up, or ctx ends. It returns f's last error; if ctx ended a wait, joined
// with ctx's cause. A nil retryable means that every error is.
func (p Policy) Do(ctx context.Context, retryable func(error) bool, f func(ctx context.Context) error) error {
	for n := 0; ; n++ {
		err := f(ctx)
		if err == nil || retryable != nil && !retryable(err) || p.MaxRetries >= 0 && n >= p.MaxRetries {
			return err
		}
		if cause := wait(ctx, p.Interval(n)); cause != nil {
			return fmt.Errorf("%w (no further try: %w)", err, cause)
		}
	}
}

func wait(ctx context.Context, d time.Duration) error {
	if d <= 0 {
		return context.Cause(ctx)
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
