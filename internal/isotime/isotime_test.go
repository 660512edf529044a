package isotime_test

import (
	"math/rand/v2"
	"testing"
	"time"

	"github.com/lovage-go/lovage/internal/isotime"
)

// TestFormat compares with the layouts of package time.
func TestFormat(t *testing.T) {
	t.Parallel()
	r := rand.New(rand.NewPCG(1, 2))
	zones := []*time.Location{time.UTC, time.FixedZone("", 0), time.FixedZone("", 3600), time.FixedZone("", -19800)}
	for range 20_000 {
		at := time.Unix(r.Int64N(300_000_000_000)-60_000_000_000, r.Int64N(2)*r.Int64N(1_000_000_000)).In(zones[r.IntN(len(zones))])
		layout := "2006-01-02T15:04:05-07:00"
		if at.Nanosecond() >= 1000 {
			layout = "2006-01-02T15:04:05.000000-07:00"
		}
		if got, want := isotime.Format(at), at.Format(layout); got != want {
			t.Fatalf("got %s, want %s", got, want)
		}
	}
}
