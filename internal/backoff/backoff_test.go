package backoff_test

import (
	"context"
	"errors"
	"math"
	"testing"
	"testing/synctest"
	"time"

	"github.com/lovage-go/lovage/internal/backoff"
)

func TestExponential(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		factor  time.Duration
		retries int
		limit   time.Duration
		want    time.Duration
	}{
		{time.Second, 0, 600 * time.Second, time.Second},
		{time.Second, 3, 600 * time.Second, 8 * time.Second},
		{3 * time.Second, 5, 600 * time.Second, 96 * time.Second},
		{time.Second, 10, 600 * time.Second, 600 * time.Second},
		{time.Second, 1000, 600 * time.Second, 600 * time.Second},
		{time.Second, -1, 600 * time.Second, time.Second},
		{1, 62, math.MaxInt64, 1 << 62},
		{3, 62, math.MaxInt64, math.MaxInt64},
		{0, 3, time.Second, 0},
		{-time.Second, 3, time.Second, 0},
		{time.Second, 3, -time.Second, 0},
	} {
		if got := backoff.Exponential(c.factor, c.retries, c.limit, false, nil); got != c.want {
			t.Errorf("factor %v, retries %d, limit %v: got %v, want %v", c.factor, c.retries, c.limit, got, c.want)
		}
	}
	t.Run("FullJitterDrawsFromZeroToTheValue", func(t *testing.T) {
		t.Parallel()
		var asked int64
		rnd := func(n int64) int64 { asked = n; return n - 1 }
		got := backoff.Exponential(time.Second, 2, time.Minute, true, rnd)
		if asked != int64(4*time.Second)+1 || got != 4*time.Second {
			t.Errorf("drew below %d and got %v, want %d and 4s", asked, got, int64(4*time.Second)+1)
		}
		if got := backoff.Exponential(3, 63, math.MaxInt64, true, rnd); asked != math.MaxInt64 || got < 0 {
			t.Errorf("at the limit of the type: drew below %d and got %v", asked, got)
		}
	})
}

var errAway = errors.New("away")

// waits runs the policy against a function that always fails and returns the
// time between its calls.
func waits(t *testing.T, p backoff.Policy, limit int) (gaps []time.Duration, err error) {
	t.Helper()
	ctx, cancel := context.WithCancelCause(t.Context())
	defer cancel(nil)
	var last time.Time
	err = p.Do(ctx, nil, func(context.Context) error {
		if !last.IsZero() {
			gaps = append(gaps, time.Since(last))
		}
		last = time.Now()
		if len(gaps) == limit {
			cancel(errors.New("enough"))
		}
		return errAway
	})
	return gaps, err
}

func equal(got, want []time.Duration) bool {
	if len(got) != len(want) {
		return false
	}
	for i := range got {
		if got[i] != want[i] {
			return false
		}
	}
	return true
}

func TestPolicy(t *testing.T) {
	t.Parallel()
	const ms = time.Millisecond
	for name, c := range map[string]struct {
		p    backoff.Policy
		stop int
		want []time.Duration
	}{
		"CelerysDefault":       {backoff.Default(), -1, []time.Duration{0, 200 * ms, 400 * ms}},
		"ZeroTriesOnce":        {backoff.Policy{}, -1, nil},
		"LastWaitRepeats":      {backoff.Policy{8, 0, 200 * ms, 1000 * ms}, -1, []time.Duration{0, 200 * ms, 400 * ms, 600 * ms, 800 * ms, 1000 * ms, 1000 * ms, 1000 * ms}},
		"StepsThatDoNotDivide": {backoff.Policy{4, 100 * ms, 400 * ms, 1000 * ms}, -1, []time.Duration{100 * ms, 500 * ms, 900 * ms, 900 * ms}},
		"ForeverUntilCancel":   {backoff.Policy{-1, 2000 * ms, 2000 * ms, 3000 * ms}, 4, []time.Duration{2000 * ms, 4000 * ms, 4000 * ms, 4000 * ms}},
		"ForeverDoesNotSpin":   {backoff.Policy{-1, 0, 0, 0}, 3, []time.Duration{0, 10 * ms, 10 * ms}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				got, err := waits(t, c.p, c.stop)
				if !equal(got, c.want) {
					t.Errorf("waits are %v, want %v", got, c.want)
				}
				if !errors.Is(err, errAway) {
					t.Errorf("error is %v, want the last one of the function", err)
				}
			})
		})
	}
	t.Run("OtherErrorsEndIt", func(t *testing.T) {
		t.Parallel()
		calls := 0
		err := backoff.Default().Do(t.Context(), func(err error) bool { return errors.Is(err, errAway) }, func(context.Context) error {
			if calls++; calls == 2 {
				return errors.ErrUnsupported
			}
			return errAway
		})
		if calls != 2 || !errors.Is(err, errors.ErrUnsupported) {
			t.Errorf("%d calls and error %v, want 2 and the second error", calls, err)
		}
	})
	t.Run("SuccessEndsIt", func(t *testing.T) {
		t.Parallel()
		calls := 0
		err := backoff.Default().Do(t.Context(), nil, func(context.Context) error {
			if calls++; calls < 2 {
				return errAway
			}
			return nil
		})
		if calls != 2 || err != nil {
			t.Errorf("%d calls and error %v, want 2 and none", calls, err)
		}
	})
	t.Run("ContextEndsAWait", func(t *testing.T) {
		t.Parallel()
		synctest.Test(t, func(t *testing.T) {
			stop := errors.New("stop")
			ctx, cancel := context.WithTimeoutCause(t.Context(), 3*time.Second, stop)
			defer cancel()
			begin := time.Now()
			err := backoff.Policy{5, time.Minute, 0, 0}.Do(ctx, nil, func(context.Context) error { return errAway })
			if !errors.Is(err, stop) || !errors.Is(err, errAway) || time.Since(begin) != 3*time.Second {
				t.Errorf("error %v after %v, want both causes after 3s", err, time.Since(begin))
			}
		})
	})
}
