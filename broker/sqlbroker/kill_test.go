//go:build unix

package sqlbroker_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/lovage-go/lovage/backend"
	"github.com/lovage-go/lovage/backend/sqlbackend"
	"github.com/lovage-go/lovage/broker"
	"github.com/lovage-go/lovage/protocol"
)

// waiting lists the task ids of a queue.
func waiting(t *testing.T, c broker.Conn, queue string) map[string]int {
	t.Helper()
	ds, err := c.(broker.Peeker).Peek(t.Context(), queue, 0, 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	ids := map[string]int{}
	for i := range ds {
		h, err := protocol.ParseHeaders(ds[i].Headers)
		if err != nil {
			t.Fatal(err)
		}
		ids[h.ID]++
	}
	return ids
}

func results(t *testing.T, url string) *sqlbackend.Backend {
	t.Helper()
	b, err := sqlbackend.Open(t.Context(), backend.Config{URL: url})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := b.Close(); err != nil {
			t.Error(err)
		}
	})
	return b
}

func stored(t *testing.T, b *sqlbackend.Backend, id string) bool {
	t.Helper()
	recs, err := b.Fetch(t.Context(), id)
	if err != nil {
		t.Fatal(err)
	}
	return recs[0].Meta != nil
}

func TestKilledPublisherLosesNothingConfirmed(t *testing.T) {
	t.Parallel()
	url := tempURL(t)
	c := open(t, url)
	rng := rand.New(rand.NewPCG(1, 2))
	said := map[string][]string{}
	for round := range 6 {
		ch := start(t, "publish", url, nameEnv+"="+fmt.Sprintf("r%d", round), batchEnv+"="+fmt.Sprint(1+round%3*4))
		for range 1 + rng.IntN(200) {
			if words := ch.line(); words != nil {
				said[words[0]] = append(said[words[0]], words[1:]...)
			}
		}
		<-time.After(time.Duration(rng.Int64N(int64(2 * time.Millisecond)))) // somewhere inside a transaction
		ch.kill()
		ch.rest(said)
	}
	have := waiting(t, c, "celery")
	for _, id := range said["published"] {
		if have[id] != 1 {
			t.Errorf("confirmed message %s is there %d times", id, have[id])
		}
	}
	for id, n := range have {
		if n != 1 {
			t.Errorf("message %s is there %d times", id, n)
		}
	}
	if len(said["published"]) == 0 {
		t.Error("nothing was published: the test says nothing")
	}
}

func TestKilledWorkersFinishEachTaskOnce(t *testing.T) {
	t.Parallel()
	url := tempURL(t)
	c, b := open(t, url), results(t, url)
	const count = 3000
	var msgs []*broker.Message
	for i := range count {
		msgs = append(msgs, message("celery", fmt.Sprintf("t-%d", i)))
	}
	if err := c.Publish(t.Context(), msgs...); err != nil {
		t.Fatal(err)
	}
	rng := rand.New(rand.NewPCG(3, 4))
	finished := map[string][]string{}
	for round := range 8 {
		ch := start(t, "work", url, nameEnv+"="+fmt.Sprintf("w%d", round), batchEnv+"="+fmt.Sprint(1+round%4*9))
		for range 1 + rng.IntN(40) {
			if words := ch.line(); words != nil {
				finished[words[0]] = append(finished[words[0]], words[1:]...)
			}
		}
		<-time.After(time.Duration(rng.Int64N(int64(2 * time.Millisecond))))
		ch.kill()
		ch.rest(finished)
	}
	// A last one takes over what the dead held and does the rest.
	start(t, "work", url, nameEnv+"=last", batchEnv+"=100").done().rest(finished)
	next := waiting(t, c, "next")
	for i := range count {
		id := fmt.Sprintf("t-%d", i)
		if next[id] != 1 || !stored(t, b, id) {
			t.Errorf("task %s: %d follow-ups, result stored: %v", id, next[id], stored(t, b, id))
		}
	}
	times := map[string]int{}
	for _, id := range finished["finished"] {
		if times[id]++; times[id] > 1 {
			t.Errorf("task %s was confirmed as finished twice", id)
		}
	}
	ls, err := c.(broker.Lengther).Lengths(t.Context(), "celery")
	if err != nil || ls["celery"] != (broker.Length{}) {
		t.Errorf("left over: %+v, %v", ls, err)
	}
}

func TestFinishIsOneTransactionAtEachStep(t *testing.T) {
	t.Parallel()
	steps := map[string]bool{}
	for at := 1; ; at++ {
		if at > 20 {
			t.Fatal("the finish has no end")
		}
		url := tempURL(t)
		c, b := open(t, url), results(t, url)
		if err := c.Publish(t.Context(), message("celery", "a")); err != nil {
			t.Fatal(err)
		}
		said := map[string][]string{}
		start(t, "work", url, nameEnv+"=w", stepEnv+"="+fmt.Sprint(at)).done().rest(said)
		if len(said["step"]) == 0 {
			break // it got through
		}
		step := said["step"][0]
		steps[step] = true
		// Whoever waits for the queue gets the orphan, or nothing is left of it.
		result, follow := stored(t, b, "a"), waiting(t, c, "next")["a"] == 1
		done := step == "committed"
		if result != done || follow != done {
			t.Errorf("killed before %s: result stored: %v, follow-up sent: %v", step, result, follow)
		}
		cs := consume(t, c, "celery")
		if !done {
			ds, err := cs.Claim(limit(t, noticed), 1)
			if err != nil {
				t.Fatalf("killed before %s: the message does not come back: %v", step, err)
			}
			if !ds[0].Orphaned || !ds[0].Redelivered {
				t.Errorf("killed before %s: orphaned %v, redelivered %v", step, ds[0].Orphaned, ds[0].Redelivered)
			}
			if err := cs.Settle(t.Context(), broker.Settlement{Delivery: &ds[0]}); err != nil {
				t.Error(err)
			}
		}
		ls, err := c.(broker.Lengther).Lengths(t.Context(), "celery")
		if err != nil || ls["celery"].Ready != 0 {
			t.Errorf("killed before %s: left over %+v, %v", step, ls, err)
		}
		if err := cs.Close(); err != nil {
			t.Error(err)
		}
	}
	for _, want := range []string{"claim", "message", "publish", "result", "commit", "committed"} {
		if !steps[want] {
			t.Errorf("no process was killed before the step %s", want)
		}
	}
}

func TestStoppedWorkerIsFenced(t *testing.T) {
	t.Parallel()
	url := tempURL(t)
	c, b := open(t, url), results(t, url)
	if err := c.Publish(t.Context(), message("celery", "a")); err != nil {
		t.Fatal(err)
	}
	ch := start(t, "hold", url, nameEnv+"=stopped", leaseEnv+"=1500")
	if words := ch.line(); len(words) == 0 || words[0] != "claimed" {
		t.Fatalf("the child said %v", words)
	}
	ch.signal(syscall.SIGSTOP)
	cs := consume(t, c, "celery")
	ds, err := cs.Claim(limit(t, noticed), 1)
	if err != nil {
		t.Fatal(err)
	}
	if !ds[0].Orphaned {
		t.Error("the message taken from a stopped worker is not marked as an orphan")
	}
	if n, err := cs.(broker.LossCounter).CountLoss(t.Context(), &ds[0]); n != 1 || err != nil {
		t.Errorf("counted %d losses, %v, want 1", n, err)
	}
	ch.signal(syscall.SIGCONT)
	if _, err := io.WriteString(ch.in, "go\n"); err != nil {
		t.Fatal(err)
	}
	if words := ch.line(); fmt.Sprint(words) != "[settled 1 true]" {
		t.Errorf("the stopped worker said %v, want that its claim was lost and its finish refused", words)
	}
	if stored(t, b, "a") || len(waiting(t, c, "next")) != 0 {
		t.Error("the finish of the stopped worker left traces")
	}
	if err := cs.Settle(t.Context(), broker.Settlement{Delivery: &ds[0]}); err != nil {
		t.Error(err)
	}
	if err := cs.Close(); err != nil {
		t.Error(err)
	}
}

// noticed is how long a death may stay unnoticed: less than the lease of the dead.
const noticed = 20 * time.Second

func TestKilledHolderIsNoticedBeforeItsLeaseEnds(t *testing.T) {
	t.Parallel()
	url := tempURL(t)
	c := open(t, url)
	cs := consume(t, c, "celery")
	defer cs.Close()
	if err := c.Publish(t.Context(), message("celery", "a")); err != nil {
		t.Fatal(err)
	}
	ch := start(t, "hold", url, nameEnv+"=killed")
	if words := ch.line(); len(words) == 0 || words[0] != "claimed" {
		t.Fatalf("the child said %v", words)
	}
	ch.kill()
	<-ch.ended
	ds, err := cs.Claim(limit(t, noticed), 1)
	if err != nil {
		t.Fatal(err)
	}
	if !ds[0].Orphaned {
		t.Error("the message of a dead holder is not marked as an orphan")
	}
}

func TestLockFileDeletedByHand(t *testing.T) {
	t.Parallel()
	url := tempURL(t)
	c, other := apart(t, url, nil), apart(t, url, nil)
	cs, rival := consume(t, c, "celery"), consume(t, other, "celery")
	if err := c.Publish(t.Context(), message("celery", "a")); err != nil {
		t.Fatal(err)
	}
	ds, err := cs.Claim(limit(t, noticed), 1)
	if err != nil {
		t.Fatal(err)
	}
	locks, err := filepath.Glob(strings.TrimPrefix(url, "sqlite://") + "-lovage/*.lock")
	if err != nil || len(locks) != 2 {
		t.Fatalf("lock files %v, %v", locks, err)
	}
	for _, l := range locks {
		if err := os.Remove(l); err != nil {
			t.Fatal(err)
		}
	}
	taken, err := rival.Claim(limit(t, noticed), 1) // it takes the holder for dead
	if err != nil {
		t.Fatal(err)
	}
	if err := cs.Settle(t.Context(), broker.Settlement{Delivery: &ds[0]}); !errors.Is(err, broker.ErrLeaseLost) {
		t.Errorf("the settlement of the one taken for dead: %v, want ErrLeaseLost", err)
	}
	// The rival registered with a lock file made anew, so it is not taken for dead.
	short, cancel := context.WithTimeout(t.Context(), 1500*time.Millisecond)
	defer cancel()
	if again, err := cs.Claim(short, 1); len(again) != 0 {
		t.Errorf("the message was taken from its living holder (%v)", err)
	}
	if err := rival.Settle(t.Context(), broker.Settlement{Delivery: &taken[0]}); err != nil {
		t.Error(err)
	}
}

func TestManyProcessesCountExactly(t *testing.T) {
	t.Parallel()
	url := tempURL(t)
	c, b := open(t, url), results(t, url)
	const producers, workers, each = 3, 3, 400
	var all []*child
	for i := range producers {
		all = append(all, start(t, "publish", url, nameEnv+"="+fmt.Sprintf("p%d", i), countEnv+"="+fmt.Sprint(each), batchEnv+"="+fmt.Sprint(1+i*3)))
	}
	for i := range workers {
		all = append(all, start(t, "work", url, nameEnv+"="+fmt.Sprintf("w%d", i), batchEnv+"="+fmt.Sprint(1+i*20)))
	}
	said := map[string][]string{}
	for _, ch := range all { // the producers first
		ch.done().rest(said)
	}
	if got := len(said["published"]); got != producers*each {
		t.Errorf("published %d messages, want %d", got, producers*each)
	}
	finished := map[string]int{}
	for _, id := range said["finished"] {
		finished[id]++
	}
	next := waiting(t, c, "next")
	for _, id := range said["published"] {
		if finished[id] != 1 || next[id] != 1 || !stored(t, b, id) {
			t.Errorf("message %s: finished %d times, %d follow-ups, result stored: %v", id, finished[id], next[id], stored(t, b, id))
		}
	}
	if len(waiting(t, c, "celery")) != 0 {
		t.Error("some messages are left")
	}
}
