//go:build linux

package worker_test

import (
	"context"
	"math/rand/v2"
	"os"
	"syscall"
	"testing"
	"time"

	"github.com/lovage-go/lovage"
	"github.com/lovage-go/lovage/worker"
)

// TestPreforkStress runs tasks of mixed fates while their processes are killed
// at random: each ends in the one state that its fate decides, and nothing is
// left over. The battery runs the full number.
func TestPreforkStress(t *testing.T) {
	t.Parallel()
	n, every := 300, 40*time.Millisecond
	if *battery > 6 {
		n = 2000
	}
	rnd := rand.New(rand.NewPCG(*seed, 5))
	y := newYard(t, lovage.Config{TaskMaxWorkerLosses: lovage.NoLimit}, worker.Config{Concurrency: 4}).start()
	fates := []struct {
		do   string
		want lovage.State
	}{
		{"ok", lovage.Success}, {"ok", lovage.Success}, {"sleep", lovage.Success}, {"fail", lovage.Failure}, {"panic", lovage.Failure},
		{"retry", lovage.Success}, {"once exit", lovage.Success}, {"once kill", lovage.Success}, {"once goroutine", lovage.Success},
		{"deaf", lovage.Failure}, {"reject", lovage.Failure}, {"ignore", ""},
	}
	wants := map[string]lovage.State{}
	dos := map[string]string{}
	for range n {
		f := fates[rnd.IntN(len(fates))]
		in, opts := Errand{Do: f.do, For: time.Duration(rnd.IntN(20)) * time.Millisecond}, []lovage.CallOption{}
		if f.do == "deaf" {
			in.For, opts = time.Hour, append(opts, lovage.TimeLimit(50*time.Millisecond))
		}
		id := y.send(in, opts...).ID()
		wants[id], dos[id] = f.want, f.do
	}
	kills, began := 0, time.Now()
	killFor := time.Duration(n) * 8 * time.Millisecond // then the rest may end
	tick := time.NewTicker(every)
	defer tick.Stop()
	deadline := time.Now().Add(patience + time.Duration(n)*100*time.Millisecond)
	for {
		l := y.lengths()
		if l.Ready+l.Claimed+l.Delayed == 0 {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("not done: %+v %+v\n%s", l, y.w.Stats(), tail(y.log.String()))
		}
		<-tick.C
		if time.Since(began) > killFor && kills >= 5 { // a busy machine kills late
			continue
		}
		if kids := childrenOf(os.Getpid(), y.ledger); len(kids) > 0 && syscall.Kill(kids[rnd.IntN(len(kids))], syscall.SIGKILL) == nil {
			kills++
		}
	}
	b := y.store.Backend()
	defer b.Close()
	wrong := 0
	for id, want := range wants {
		recs, err := b.Fetch(context.Background(), id)
		if err != nil {
			t.Fatal(err)
		}
		if got := recs[0].State; got != want && wrong < 10 {
			wrong++
			t.Errorf("%s %s: got %q, want %q; runs %q", dos[id], id, got, want, y.noted(id))
		}
	}
	s := y.w.Stats()
	t.Logf("%d tasks, %d kills, %+v", n, kills, s)
	if kills < 5 || s.Losses < 5 {
		t.Errorf("got %d kills and %d losses, want some", kills, s.Losses)
	}
	if wrong > 0 {
		t.Log(tail(y.log.String()))
	}
}

func tail(text string) string { return text[max(0, len(text)-4000):] }
