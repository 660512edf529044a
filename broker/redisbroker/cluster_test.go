package redisbroker_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/lovage-go/lovage"
	_ "github.com/lovage-go/lovage/backend/redisbackend"
	"github.com/lovage-go/lovage/broker"
	"github.com/lovage-go/lovage/internal/testenv"
)

// TestClusterSpreadsQueues: all keys of a queue are in one slot, and the queues
// on all masters.
func TestClusterSpreadsQueues(t *testing.T) {
	t.Parallel()
	cluster := testenv.Cluster(t)
	prefix := cluster.Prefix()
	c := open(t, cluster.URL(), map[string]any{"global_keyprefix": prefix})
	defer c.Close()
	const n = 30
	six := 6
	var queues []string
	for i := range n {
		q := fmt.Sprint("queue", i)
		queues = append(queues, q)
		urgent, later := task(q, "b"), task(q, "c")
		urgent.Properties.Priority = &six
		later.NotBefore = time.Now().Add(time.Hour)
		if err := c.Publish(t.Context(), task(q, "dead"), task(q, "a"), urgent, later); err != nil {
			t.Fatal(err)
		}
		if err := c.Pause(t.Context(), q); err != nil {
			t.Fatal(err)
		}
		if err := c.Resume(t.Context(), q); err != nil {
			t.Fatal(err)
		}
	}
	cs := consume(t, c, queues...)
	for range n {
		ds, err := cs.Claim(limit(t), 1) // the queues take turns
		if err != nil || len(ds) != 1 || ds[0].Properties.CorrelationID != "dead" {
			t.Fatalf("claimed %d, %v, want the first message of another queue", len(ds), err)
		}
		if err := cs.Settle(t.Context(), broker.Settlement{Delivery: &ds[0], Action: broker.DeadLetter, Reason: "test"}); err != nil {
			t.Fatal(err)
		}
	}
	var held []broker.Delivery
	for len(held) < n {
		ds, err := cs.Claim(limit(t), n-len(held))
		if err != nil {
			t.Fatal(err)
		}
		held = append(held, ds...)
	}
	slots := map[string]string{} // of queues
	for i, m := range cluster.Masters {
		keys := map[string]bool{}
		for _, k := range m.Keys(t, prefix+"*{queue*") {
			q := k[strings.Index(k, "{")+1 : strings.Index(k, "}")]
			keys[q] = true
			slot := m.Do(t, "CLUSTER", "KEYSLOT", k)
			if slots[q] == "" {
				slots[q] = slot
			}
			if slots[q] != slot {
				t.Errorf("key %q of queue %s is in slot %s, others in %s", k, q, slot, slots[q])
			}
		}
		t.Logf("master %d has %d queues", i, len(keys))
		if len(keys) < 3 {
			t.Errorf("master %d has %d of %d queues, want about a third", i, len(keys), n)
		}
	}
	if len(slots) != n {
		t.Errorf("found %d queues, want %d", len(slots), n)
	}
	dead, err := c.DeadLetters(t.Context(), "", "", n)
	if err != nil || len(dead) != n {
		t.Fatalf("%d dead letters, %v", len(dead), err)
	}
	for i := 0; i < n; i += 7 { // page by page
		page, err := c.DeadLetters(t.Context(), "", dead[i].ID, 3)
		if err != nil || len(page) != min(3, n-1-i) || len(page) > 0 && page[0].ID != dead[i+1].ID {
			t.Errorf("after letter %d: %d letters, %v", i, len(page), err)
		}
	}
	for i := range held {
		if err := cs.Settle(t.Context(), broker.Settlement{Delivery: &held[i]}); err != nil {
			t.Error(err)
		}
	}
}

// flow publishes and consumes until it is told to stop.
type flow struct {
	t    *testing.T
	c    broker.Conn
	cs   broker.Consumer
	stop chan struct{}
	wg   sync.WaitGroup

	mu   sync.Mutex
	sent map[string]bool
	done map[string]int
	last time.Time // when something was settled
}

func newFlow(ctx context.Context, t *testing.T, c broker.Conn, queue string) *flow {
	cs, err := c.Consume(ctx, broker.ConsumeConfig{Worker: "celery@test", Queues: []broker.Queue{broker.Named(queue)}, Lease: time.Second})
	if err != nil {
		t.Fatal(err)
	}
	f := &flow{t: t, c: c, cs: cs, stop: make(chan struct{}), sent: map[string]bool{}, done: map[string]int{}}
	f.wg.Go(func() { f.publish(ctx, queue) })
	f.wg.Go(func() { f.consume(ctx) })
	return f
}

func (f *flow) publish(ctx context.Context, queue string) {
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for i := 0; ; i++ {
		select {
		case <-f.stop:
			return
		case <-tick.C:
		}
		m := task(queue, fmt.Sprint(i))
		if i%5 == 0 { // through the script
			m.NotBefore = time.Now().Add(20 * time.Millisecond)
		}
		if err := f.c.Publish(ctx, m); err == nil {
			f.mu.Lock()
			f.sent[m.Headers.ID] = true
			f.mu.Unlock()
		} else if !broker.Retryable(err) {
			f.t.Errorf("publish: %v", err)
			return
		}
	}
}

func (f *flow) consume(ctx context.Context) {
	for !f.over() {
		idle, end := context.WithTimeout(ctx, 200*time.Millisecond)
		ds, err := f.cs.Claim(idle, 20)
		end()
		if err != nil && !broker.Retryable(err) && !errors.Is(err, context.DeadlineExceeded) {
			f.t.Errorf("claim: %v", err)
			return
		}
		if ctx.Err() != nil {
			f.t.Error(context.Cause(ctx))
			return
		}
		for len(ds) > 0 && ctx.Err() == nil {
			sts := make([]broker.Settlement, len(ds))
			for i := range ds {
				sts[i].Delivery = &ds[i]
			}
			err := f.cs.Settle(ctx, sts...)
			again := ds[:0]
			f.mu.Lock()
			for i, e := range broker.EachError(err, len(ds)) {
				if e != nil && broker.Retryable(e) {
					again = append(again, ds[i])
				} else {
					f.done[ds[i].Properties.CorrelationID]++
					f.last = time.Now()
				}
			}
			f.mu.Unlock()
			ds = again
		}
	}
}

// over reports whether all that was confirmed is settled.
func (f *flow) over() bool {
	select {
	case <-f.stop:
	default:
		return false
	}
	return f.missing() == 0
}

func (f *flow) missing() (n int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for id := range f.sent {
		if f.done[id] == 0 {
			n++
		}
	}
	return n
}

func (f *flow) settled() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.done)
}

// more waits until more messages were settled.
func (f *flow) more(ctx context.Context, n int) {
	f.t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for want := f.settled() + n; f.settled() < want; {
		select {
		case <-tick.C:
		case <-ctx.Done():
			f.t.Fatalf("settled %d, want %d: %v", f.settled(), want, context.Cause(ctx))
		}
	}
}

// TestClusterSlotMigration moves the slot of a queue from master to master, a
// few keys at a time, while messages flow. None is lost.
func TestClusterSlotMigration(t *testing.T) {
	t.Parallel()
	cluster := testenv.PrivateCluster(t)
	c := open(t, cluster.URL(), map[string]any{"socket_timeout": 2})
	defer c.Close()
	ctx, cancel := context.WithTimeoutCause(t.Context(), 60*time.Second, errors.New("the test waited a minute"))
	defer cancel()
	at, slot := cluster.Owner(t, "{q}")
	f := newFlow(ctx, t, c, "q")
	f.more(ctx, 20)
	var longest time.Duration
	for range 6 {
		to := (at + 1) % len(cluster.Masters)
		steps := time.NewTicker(10 * time.Millisecond)
		cluster.Migrate(t, slot, cluster.Masters[at], cluster.Masters[to], func() { <-steps.C })
		steps.Stop()
		start := time.Now()
		f.more(ctx, 20)
		longest = max(longest, time.Since(start))
		at = to
	}
	close(f.stop)
	f.wg.Wait()
	if n := f.missing(); n > 0 {
		t.Errorf("%d of %d confirmed messages are lost", n, len(f.sent))
	}
	twice := 0
	for _, n := range f.done {
		if n > 1 {
			twice++
		}
	}
	t.Logf("%d confirmed, %d of them twice; 20 more were settled at most %v after a migration", len(f.sent), twice, longest.Round(time.Millisecond))
	if longest > 5*time.Second {
		t.Errorf("consuming again only after %v, want at most 5 s", longest)
	}
}

// TestClusterFailover kills the master that has a queue; its replica takes over.
// What had reached the replica is not lost: Redis confirms before it replicates,
// so the rest may be.
func TestClusterFailover(t *testing.T) {
	t.Parallel()
	cluster := testenv.PrivateCluster(t)
	c := open(t, cluster.URL(), map[string]any{"socket_timeout": 1})
	defer c.Close()
	ctx, cancel := context.WithTimeoutCause(t.Context(), 60*time.Second, errors.New("the test waited a minute"))
	defer cancel()
	at, _ := cluster.Owner(t, "{q}")
	master, replica := cluster.Masters[at], cluster.Replicas[at]
	l, err := c.Listen(ctx, "ev", "#")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	const n = 200
	for i := range n { // these are safe
		m := task("q", fmt.Sprint("safe", i))
		if i%4 == 0 {
			m.NotBefore = time.Now().Add(time.Duration(i) * 10 * time.Millisecond)
		}
		if err := c.Publish(ctx, m); err != nil {
			t.Fatal(err)
		}
	}
	held := consume(t, c, "q")
	running, err := held.Claim(ctx, 50) // and run while it happens
	if err != nil {
		t.Fatal(err)
	}
	master.Replicated(t)
	master.Stop(t)
	killed := time.Now()
	replica.Wait(t, "INFO replication", "role:master")
	well := time.Now()
	for i := range running {
		settle := func() error { return held.Settle(ctx, broker.Settlement{Delivery: &running[i]}) }
		err := settle()
		for ; broker.Retryable(err); err = settle() {
		}
		if err != nil {
			t.Fatalf("settle what ran: %v", err)
		}
	}
	f := newFlow(ctx, t, c, "q")
	for i := range n {
		f.mu.Lock()
		f.sent[fmt.Sprint("safe", i)] = true
		f.mu.Unlock()
	}
	for i := range running {
		f.mu.Lock()
		f.done[running[i].Properties.CorrelationID]++
		f.mu.Unlock()
	}
	f.more(ctx, 20)
	again := time.Since(well)
	heard := make(chan error, 1)
	go func() {
		_, err := l.Next(ctx)
		heard <- err
	}()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for waiting := true; waiting; {
		if err := c.Broadcast(ctx, "ev", task("", "ping")); err != nil && !broker.Retryable(err) {
			t.Fatal(err)
		}
		select {
		case err := <-heard:
			if err != nil {
				t.Fatal(err)
			}
			waiting = false
		case <-tick.C:
		}
	}
	close(f.stop)
	f.wg.Wait()
	if n := f.missing(); n > 0 {
		t.Errorf("%d of %d messages that were replicated or confirmed by the new master are lost", n, len(f.sent))
	}
	t.Logf("the replica was master %v after the death, consuming again %v later; %d messages, none lost",
		well.Sub(killed).Round(time.Millisecond), again.Round(time.Millisecond), len(f.sent))
}

// TestClusterApp runs tasks with results, links and delays by a worker whose
// broker and result store are one cluster.
func TestClusterApp(t *testing.T) {
	t.Parallel()
	cluster := testenv.Cluster(t)
	options := map[string]any{"global_keyprefix": cluster.Prefix()}
	app := lovage.New("proj", lovage.Config{
		BrokerURL: cluster.URL(), ResultBackend: cluster.URL(), BrokerTransportOptions: options, ResultBackendTransportOptions: options,
	}, lovage.WithLogger(slog.New(slog.DiscardHandler)))
	add := lovage.Func(app, "add", func(_ context.Context, in addArgs) (int, error) { return in.X + in.Y, nil })
	goWorker(t, app)
	var results []*lovage.Result[int]
	var ends []*lovage.Result[int]
	for i := range 50 {
		end := fmt.Sprint("end", i)
		r, err := add.Delay(t.Context(), addArgs{X: i, Y: 1}, lovage.Countdown(time.Duration(i%3)*50*time.Millisecond),
			lovage.Link(add.After(addArgs{Y: 100}).With(lovage.TaskID(end))))
		if err != nil {
			t.Fatal(err)
		}
		results, ends = append(results, r), append(ends, lovage.ResultOf[int](app, end))
	}
	for i := range results {
		if got, err := results[i].Get(limit(t)); got != i+1 || err != nil {
			t.Errorf("add %d: %d, %v", i, got, err)
		}
		if got, err := ends[i].Get(limit(t)); got != i+101 || err != nil {
			t.Errorf("linked to add %d: %d, %v", i, got, err)
		}
	}
}

// TestClusterAppFailover: a worker and a client go on when the master dies that
// has their queue.
func TestClusterAppFailover(t *testing.T) {
	t.Parallel()
	cluster := testenv.PrivateCluster(t)
	options := map[string]any{"socket_timeout": 1}
	app := lovage.New("proj", lovage.Config{
		BrokerURL: cluster.URL(), ResultBackend: cluster.URL(), BrokerTransportOptions: options, ResultBackendTransportOptions: options,
		// A failover takes longer than Celery's three retries.
		BrokerPublishTimeout: 20 * time.Second, TaskPublishRetryPolicy: &lovage.RetryPolicy{MaxRetries: lovage.NoLimit, IntervalMax: 100 * time.Millisecond, IntervalStep: 50 * time.Millisecond},
	}, lovage.WithLogger(slog.New(slog.DiscardHandler)))
	add := lovage.Func(app, "add", func(_ context.Context, in addArgs) (int, error) { return in.X + in.Y, nil })
	goWorker(t, app)
	runs := func(n int) {
		t.Helper()
		for i := range n {
			r, err := add.Delay(t.Context(), addArgs{X: i, Y: 1})
			if err != nil {
				t.Fatal(err)
			}
			if got, err := r.Get(limit(t)); got != i+1 || err != nil {
				t.Fatalf("add %d: %d, %v", i, got, err)
			}
		}
	}
	runs(20)
	at, _ := cluster.Owner(t, "{celery}")
	cluster.Masters[at].Stop(t)
	killed := time.Now()
	cluster.Replicas[at].Wait(t, "INFO replication", "role:master")
	well := time.Now()
	runs(1)
	again := time.Since(well)
	runs(50)
	t.Logf("the replica was master %v after the death, a task was done %v later", well.Sub(killed).Round(time.Millisecond), again.Round(time.Millisecond))
	if again > 5*time.Second {
		t.Errorf("working again only after %v, want at most 5 s", again)
	}
}

// TestClusterIsNamed: a scheme that does not fit the server says which does.
func TestClusterIsNamed(t *testing.T) {
	t.Parallel()
	node := testenv.Cluster(t).Masters[0]
	for url, says := range map[string]string{
		"rediscluster://" + testenv.Redis(t).Addr: "redis://",
		"rediscluster://" + node.Addr + "/2":      "only database 0",
	} {
		if _, err := broker.Open(limit(t), broker.Config{URL: url}); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%s: %v, want an error that says %q", url, err, says)
		}
	}
	c := open(t, "redis://"+node.Addr, nil)
	defer c.Close()
	for i := range 20 { // some queue is elsewhere
		err := c.Publish(limit(t), task(fmt.Sprint("q", i), "a"))
		if err != nil {
			if !strings.Contains(err.Error(), "rediscluster://") {
				t.Errorf("a cluster by redis:// says %v", err)
			}
			return
		}
	}
	t.Error("a node of a cluster took all")
}
