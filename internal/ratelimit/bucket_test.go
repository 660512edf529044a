package ratelimit_test

import (
	"testing"
	"time"

	"github.com/lovage-go/lovage/internal/ratelimit"
)

func TestParse(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]time.Duration{
		"": 0, "0": 0, "0/m": 0, "10/s": 100 * time.Millisecond, "10": 100 * time.Millisecond,
		"100/m": 600 * time.Millisecond, "1000/h": 3600 * time.Millisecond, "0.5/s": 2 * time.Second,
		"1e-12/h": 365 * 24 * time.Hour, "1e30/s": 1, " 6 / m ": 10 * time.Second,
	} {
		if got, err := ratelimit.Parse(text); got != want || err != nil {
			t.Errorf("Parse(%q): got %s, %v, want %s", text, got, err, want)
		}
	}
	for _, text := range []string{"fast", "10/d", "-1/s", "NaN", "/s", "1/s/s"} {
		if got, err := ratelimit.Parse(text); err == nil {
			t.Errorf("Parse(%q): got %s, want an error", text, got)
		}
	}
}

func TestBucket(t *testing.T) {
	t.Parallel()
	now := time.Unix(1000, 0)
	t.Run("OneInEachInterval", func(t *testing.T) {
		t.Parallel()
		b := ratelimit.NewBucket(time.Second)
		if _, ok := b.Take(now); !ok {
			t.Error("the first: got no, want yes")
		}
		for n := 1; n <= 3; n++ {
			at, ok := b.Take(now)
			if want := now.Add(time.Duration(n) * time.Second); ok || !at.Equal(want) {
				t.Errorf("turn %d: got %s, %t, want %s", n, at, ok, want)
			}
		}
		if _, ok := b.Take(now.Add(time.Second)); !ok {
			t.Error("after a second: got no, want yes")
		}
		if _, ok := b.Take(now.Add(1500 * time.Millisecond)); ok {
			t.Error("half a second later: got yes, want no")
		}
		if _, ok := b.Take(now.Add(time.Hour)); !ok {
			t.Error("after an hour: got no, want yes")
		}
		if _, ok := b.Take(now.Add(time.Hour)); ok {
			t.Error("a burst after an hour: got yes, want the capacity of one")
		}
	})
	t.Run("NoTurnBeyondTheHorizon", func(t *testing.T) {
		t.Parallel()
		b := ratelimit.NewBucket(10 * time.Second)
		b.Take(now)
		seen := map[time.Time]bool{}
		for range 1000 {
			at, _ := b.Take(now)
			if at.After(now.Add(2*ratelimit.Horizon)) || seen[at] {
				t.Fatalf("turn: got %s from now, want at most %s and no two at once", at.Sub(now), 2*ratelimit.Horizon)
			}
			seen[at] = true
		}
	})
	t.Run("TurnsNearbyAreGivenFirst", func(t *testing.T) {
		t.Parallel()
		b := ratelimit.NewBucket(400 * time.Millisecond)
		b.Take(now)
		for n := 1; n <= 10; n++ { // those of the next second, and others after them
			if at, _ := b.Take(now); at.Sub(now) != time.Duration(n)*400*time.Millisecond {
				t.Errorf("turn %d: got %s from now, want %s", n, at.Sub(now), time.Duration(n)*400*time.Millisecond)
			}
		}
		later := now.Add(time.Second) // nobody came for the turns of 400 and 800 ms
		if _, ok := b.Take(later); !ok {
			t.Error("after a second: got no, want yes")
		}
		if at, _ := b.Take(later); at.Sub(later) != 400*time.Millisecond {
			t.Errorf("the next: got %s from then, want 400ms: a turn that nobody took is not waited for", at.Sub(later))
		}
	})
	t.Run("WhoComesLateMovesNobody", func(t *testing.T) {
		t.Parallel()
		const every = 100 * time.Millisecond
		b := ratelimit.NewBucket(every)
		b.Take(now)
		for n := 1; n <= 10; n++ {
			b.Take(now)
		}
		for n := 1; n <= 10; n++ { // each some milliseconds after its turn, the one later than the next
			late := time.Duration(11-n) * time.Millisecond
			if at, ok := b.Take(now.Add(time.Duration(n)*every + late)); !ok {
				t.Errorf("turn %d, %s late: got no, and another turn at %s, want yes", n, late, at)
			}
		}
		idle := now.Add(11*every + every/2)
		if _, ok := b.Take(idle); !ok {
			t.Error("when nobody waits: got no, want yes")
		}
		if _, ok := b.Take(idle.Add(every - time.Millisecond)); ok {
			t.Error("less than an interval after it: got yes, want no")
		}
	})
	t.Run("SetLiftsTheLimit", func(t *testing.T) {
		t.Parallel()
		b := ratelimit.NewBucket(time.Hour)
		b.Take(now)
		b.Set(0)
		for range 10 {
			if _, ok := b.Take(now); !ok {
				t.Fatal("without a limit: got no, want yes")
			}
		}
	})
}
