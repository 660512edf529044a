package broker_test

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/lovage-go/lovage/broker"
)

func TestNotes(t *testing.T) {
	t.Parallel()
	want := func(t *testing.T, n *broker.Notes, queue, key string, noted, told bool) {
		t.Helper()
		if gotNoted, gotTold := n.Take(queue, key); gotNoted != noted || gotTold != told {
			t.Errorf("take %s: got %v, %v, want %v, %v", key, gotNoted, gotTold, noted, told)
		}
	}
	t.Run("AreTakenOnce", func(t *testing.T) {
		t.Parallel()
		var n broker.Notes
		want(t, &n, "q", "a", false, false)
		n.Put("a", true)
		n.Put("b", false)
		if !n.Has("a") || n.Has("c") {
			t.Error("has: want a and not c")
		}
		want(t, &n, "q", "a", true, true)
		want(t, &n, "q", "a", false, false)
		want(t, &n, "q", "b", true, false)
	})
	t.Run("TheOldestAreForgotten", func(t *testing.T) {
		t.Parallel()
		var n broker.Notes
		for i := range 10_001 {
			n.Put(fmt.Sprint(i), false)
		}
		want(t, &n, "q", "0", false, false)
		want(t, &n, "q", "1", true, false)
	})
	t.Run("UnseenOnesAreExcusedForAMinute", func(t *testing.T) {
		t.Parallel()
		synctest.Test(t, func(t *testing.T) {
			var n broker.Notes
			n.Unseen("q", 2)
			want(t, &n, "other", "a", false, false)
			want(t, &n, "q", "a", true, false)
			want(t, &n, "q", "b", true, false)
			want(t, &n, "q", "c", false, false)
			n.Unseen("q", 2)
			<-time.After(time.Minute + time.Second)
			want(t, &n, "q", "d", false, false)
			n.Unseen("q", 0)
			want(t, &n, "q", "e", false, false)
		})
	})
}
