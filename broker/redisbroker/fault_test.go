package redisbroker_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/lovage-go/lovage/broker"
	"github.com/lovage-go/lovage/internal/testenv"
)

// TestDropsLoseNothing drops the connections three times, 200 times over, while
// messages are published, claimed and settled. Each that was confirmed is settled
// in the end, and none is stuck.
func TestDropsLoseNothing(t *testing.T) {
	t.Parallel()
	server := testenv.Redis(t)
	db := server.DB(t)
	proxy := testenv.NewProxy(t, server.Addr)
	url := fmt.Sprintf("redis://%s/%d", proxy.Addr, db)
	c := open(t, url, map[string]any{"socket_timeout": 2})
	defer c.Close()
	cfg := broker.ConsumeConfig{Worker: "celery@test", Queues: []broker.Queue{broker.Named("q")}, Lease: time.Second}
	cs, err := c.Consume(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeoutCause(t.Context(), 60*time.Second, errors.New("the test waited a minute"))
	defer cancel()
	var (
		wg   sync.WaitGroup
		mu   sync.Mutex
		sent = map[string]bool{}
		done = map[string]bool{}
		stop = make(chan struct{})
	)
	wg.Go(func() { // publishes until the drops are over
		for i := 0; ; i++ {
			select {
			case <-stop:
				return
			default:
			}
			id := fmt.Sprint(i)
			if err := c.Publish(ctx, task("q", id)); err == nil {
				mu.Lock()
				sent[id] = true
				mu.Unlock()
			} else if !broker.Retryable(err) {
				t.Errorf("publish: %v", err)
				return
			}
		}
	})
	all := func() bool {
		select {
		case <-stop:
		default:
			return false
		}
		mu.Lock()
		defer mu.Unlock()
		for id := range sent {
			if !done[id] {
				return false
			}
		}
		return true
	}
	wg.Go(func() {
		for !all() {
			idle, end := context.WithTimeout(ctx, 200*time.Millisecond)
			ds, err := cs.Claim(idle, 20)
			end()
			if err != nil && !broker.Retryable(err) && !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("claim: %v", err)
				return
			}
			if ctx.Err() != nil {
				t.Error(context.Cause(ctx))
				return
			}
			for len(ds) > 0 {
				sts := make([]broker.Settlement, len(ds))
				for i := range ds {
					sts[i].Delivery = &ds[i]
				}
				err := cs.Settle(ctx, sts...)
				again := ds[:0]
				mu.Lock()
				for i, e := range broker.EachError(err, len(ds)) {
					if e != nil && broker.Retryable(e) {
						again = append(again, ds[i])
					} else { // settled, perhaps by the call whose answer was lost
						done[ds[i].Properties.CorrelationID] = true
					}
				}
				mu.Unlock()
				ds = again
			}
		}
	})
	rnd := rand.New(rand.NewPCG(1, 2))
	tick := time.NewTicker(time.Millisecond)
	for range 200 {
		for range 3 {
			for range 1 + rnd.IntN(4) {
				<-tick.C
			}
			proxy.Drop()
		}
	}
	tick.Stop()
	close(stop)
	well := time.Now()
	wg.Wait()
	t.Logf("%d confirmed, all settled %v after the last drop", len(sent), time.Since(well).Round(time.Millisecond))
	if ls, err := c.Lengths(ctx, "q"); err != nil || ls["q"].Ready > 0 {
		t.Errorf("left: %+v, %v", ls, err)
	}
	if len(sent) < 100 {
		t.Errorf("only %d messages were published: nothing was tested", len(sent))
	}
}

// TestLostAnswerOfAClaim: the server claims, the answer is lost, the connection
// too. The message comes back with the next renewal, however long another claim of
// that time lasts, and it is known that nobody has died with it.
func TestLostAnswerOfAClaim(t *testing.T) {
	t.Parallel()
	server := testenv.Redis(t)
	db := server.DB(t)
	proxy := testenv.NewProxy(t, server.Addr)
	c := open(t, fmt.Sprintf("redis://%s/%d", proxy.Addr, db), map[string]any{"socket_timeout": 0.3})
	defer c.Close()
	direct := open(t, server.URL(db), nil)
	defer direct.Close()
	cs, err := c.Consume(t.Context(), broker.ConsumeConfig{Queues: []broker.Queue{broker.Named("q")}, Lease: time.Minute})
	if err != nil {
		t.Fatal(err)
	}
	ctx := limit(t)
	if err := direct.Publish(ctx, task("q", "held"), task("q", "a")); err != nil {
		t.Fatal(err)
	}
	held, err := cs.Claim(ctx, 1)
	if err != nil {
		t.Fatal(err)
	}
	for range 100 { // so that each of the client's connections is open already
		if _, err := c.Paused(ctx); err != nil {
			t.Fatal(err)
		}
	}
	proxy.Hold()
	if ds, err := cs.Claim(ctx, 1); !broker.Retryable(err) {
		t.Fatalf("claim without an answer gave %d, %v", len(ds), err)
	}
	if ls, err := direct.Lengths(ctx, "q"); err != nil || ls["q"] != (broker.Length{Claimed: 2}) {
		t.Fatalf("lengths are %+v, %v; want both claimed", ls, err)
	}
	proxy.Drop()
	proxy.Release()
	renew := func() ([]*broker.Delivery, error) {
		return cs.(broker.LeaseRenewer).Renew(ctx, []*broker.Delivery{&held[0]})
	}
	lost, err := renew()
	for broker.Retryable(err) {
		lost, err = renew()
	}
	if err != nil || len(lost) > 0 {
		t.Fatalf("renew: %d lost, %v", len(lost), err)
	}
	if ls, err := direct.Lengths(ctx, "q"); err != nil || ls["q"] != (broker.Length{Ready: 1, Claimed: 1}) {
		t.Fatalf("lengths are %+v, %v; want the one given back that nobody knows of", ls, err)
	}
	settle := func() error { return cs.Settle(ctx, broker.Settlement{Delivery: &held[0]}) }
	for err = settle(); broker.Retryable(err); err = settle() {
	}
	if err != nil {
		t.Fatalf("the claim from before: %v", err)
	}
	for {
		ds, err := cs.Claim(ctx, 1)
		if broker.Retryable(err) {
			continue
		}
		if err != nil || len(ds) != 1 || ds[0].Properties.CorrelationID != "a" {
			t.Fatalf("claimed %d, %v", len(ds), err)
		}
		if !ds[0].Redelivered || ds[0].Orphaned {
			t.Errorf("redelivered %v, orphaned %v, want true, false", ds[0].Redelivered, ds[0].Orphaned)
		}
		if err := cs.Settle(ctx, broker.Settlement{Delivery: &ds[0]}); err != nil {
			t.Error(err)
		}
		return
	}
}

// TestLapseOfOnesOwn: a process is without its connection for longer than a lease,
// and takes back what it had itself. It lives, and so nobody has died; another
// process cannot tell.
func TestLapseOfOnesOwn(t *testing.T) {
	t.Parallel()
	var notes, others broker.Notes
	for name, c := range map[string]struct {
		notes    *broker.Notes
		orphaned bool
	}{"TheSameProcess": {&notes, false}, "Another": {&others, true}, "Nobody": {nil, true}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server := testenv.Redis(t)
			db := server.DB(t)
			proxy := testenv.NewProxy(t, server.Addr)
			cut := open(t, fmt.Sprintf("redis://%s/%d", proxy.Addr, db), map[string]any{"socket_timeout": 0.3})
			defer cut.Close()
			direct := open(t, server.URL(db), nil)
			defer direct.Close()
			ctx := limit(t)
			if err := direct.Publish(ctx, task("q", "a")); err != nil {
				t.Fatal(err)
			}
			claim := func(conn broker.Conn, notes *broker.Notes) *broker.Delivery {
				t.Helper()
				cs, err := conn.Consume(ctx, broker.ConsumeConfig{Queues: []broker.Queue{broker.Named("q")}, Lease: 500 * time.Millisecond, Notes: notes})
				if err != nil {
					t.Fatal(err)
				}
				ds, err := cs.Claim(ctx, 1)
				if err != nil {
					t.Fatal(err)
				}
				return &ds[0]
			}
			claim(cut, &notes)
			proxy.Down()
			if d := claim(direct, c.notes); !d.Redelivered || d.Orphaned != c.orphaned {
				t.Errorf("redelivered %v, orphaned %v, want true, %v", d.Redelivered, d.Orphaned, c.orphaned)
			}
		})
	}
}

// TestLostAnswerOfAFinish: the server commits a finish and the answer is lost.
// Finishing again does nothing twice and is no error; what somebody else has
// taken is still lost.
func TestLostAnswerOfAFinish(t *testing.T) {
	t.Parallel()
	server := testenv.Redis(t)
	db := server.DB(t)
	proxy := testenv.NewProxy(t, server.Addr)
	c := open(t, fmt.Sprintf("redis://%s/%d", proxy.Addr, db), map[string]any{"socket_timeout": 0.3})
	defer c.Close()
	direct := open(t, server.URL(db), nil)
	defer direct.Close()
	cs, err := c.Consume(t.Context(), broker.ConsumeConfig{Queues: []broker.Queue{broker.Named("q")}})
	if err != nil {
		t.Fatal(err)
	}
	ctx := limit(t)
	if err := c.Declare(ctx, broker.Named("next")); err != nil {
		t.Fatal(err)
	}
	if err := direct.Publish(ctx, task("q", "a"), task("q", "b"), task("q", "c"), task("q", "d")); err != nil {
		t.Fatal(err)
	}
	ds, err := cs.Claim(ctx, 4)
	if err != nil || len(ds) != 4 {
		t.Fatalf("claimed %d, %v", len(ds), err)
	}
	if err := cs.Settle(ctx, broker.Settlement{Delivery: &ds[3]}); err != nil { // the server knows the script from now on
		t.Fatal(err)
	}
	ds = ds[:3]
	for range 100 { // so that each of the client's connections is open already
		if _, err := c.Paused(ctx); err != nil {
			t.Fatal(err)
		}
	}
	finish := func(ds ...broker.Delivery) error {
		var fs []broker.Finish
		for i := range ds {
			fs = append(fs, broker.Finish{Publish: []*broker.Message{task("next", "after")}, Settle: broker.Settlement{Delivery: &ds[i]}})
		}
		return cs.(broker.AtomicFinisher).FinishAll(ctx, fs...)
	}
	proxy.Hold()
	if err := finish(ds[0], ds[1]); !broker.Retryable(err) {
		t.Fatalf("a finish without an answer gave %v", err)
	}
	// The third goes to somebody else meanwhile.
	rdb := client(t, server.URL(db))
	if err := rdb.Do(ctx, rdb.B().Del().Key("unacked").Build()).Error(); err != nil {
		t.Fatal(err)
	}
	proxy.Drop()
	proxy.Release()
	for err = finish(ds...); broker.Retryable(err); err = finish(ds...) {
	}
	errs := broker.EachError(err, 3)
	if errs[0] != nil || errs[1] != nil || !errors.Is(errs[2], broker.ErrLeaseLost) {
		t.Errorf("finishing again gave %v, want no error for what is done, and the third lost", errs)
	}
	if ls, err := direct.Lengths(ctx, "next"); err != nil || ls["next"].Ready != 2 {
		t.Errorf("follow-ups: %+v, %v, want 2", ls, err)
	}
	if err := finish(ds[0]); !errors.Is(err, broker.ErrLeaseLost) {
		t.Errorf("a third finish of what is settled gave %v, want ErrLeaseLost", err)
	}
}

// TestASlowServerIsWaitedFor: a server that is busy for longer than a half-open
// connection is given answers nobody, and its connections are kept.
func TestASlowServerIsWaitedFor(t *testing.T) {
	t.Parallel()
	server := testenv.PrivateRedis(t, "--lua-time-limit", "60000") // or it says that it is busy
	c := open(t, server.URL(0), nil)
	defer c.Close()
	ctx := limit(t)
	for range 100 { // each takes one of four connections, by chance: a new one does not wait so long
		if err := c.Publish(ctx, task("q", "a")); err != nil {
			t.Fatal(err)
		}
	}
	var wg sync.WaitGroup
	over := make(chan struct{})
	wg.Go(func() {
		defer close(over)
		server.Must(t, "EVAL", `local t = redis.call('TIME') local s = t[1] + t[2] / 1e6 + 6
repeat t = redis.call('TIME') until t[1] + t[2] / 1e6 >= s return 1`, "0")
	})
	var longest time.Duration // of those that meet the busy server
	for busy := true; busy; {
		began := time.Now()
		if err := c.Publish(ctx, task("q", "b")); err != nil {
			t.Fatalf("after %v: %v", time.Since(began), err)
		}
		longest = max(longest, time.Since(began))
		select {
		case <-over:
			busy = false
		default:
		}
	}
	wg.Wait()
	if longest < 3*time.Second {
		t.Errorf("the longest call took %v: nothing was tested", longest)
	}
}
