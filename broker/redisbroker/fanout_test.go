package redisbroker_test

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/redis/rueidis"

	"github.com/lovage-go/lovage"
	"github.com/lovage-go/lovage/broker"
	"github.com/lovage-go/lovage/broker/redisbroker"
	"github.com/lovage-go/lovage/internal/testenv"
)

// fanPy is a project with a Broadcast queue and a named queue on a fanout
// exchange. Its task notes who ran it.
const fanPy = `
from celery import Celery
from kombu import Exchange, Queue
from kombu.common import Broadcast

app = Celery('proj', broker=%q, backend=%q)
app.conf.task_queues = (Queue('plain'), Broadcast('bcast'), Queue('fan', Exchange('fanx', type='fanout')))
app.conf.task_ignore_result = True

@app.task(name='tell', bind=True)
def tell(self, key):
    app.backend.client.rpush('heard.' + key, self.request.hostname)
`

// fanApp is the same project in Go.
func fanApp(url, name string, rdb rueidis.Client) *lovage.App {
	app := lovage.New("proj", lovage.Config{
		BrokerURL: url, ResultBackend: url, TaskIgnoreResult: new(true),
		TaskQueues: []broker.Queue{broker.Named("plain"), broker.Broadcast("bcast"),
			{Name: "fan", Exchange: broker.Exchange{Name: "fanx", Type: "fanout"}}},
	}, lovage.WithLogger(slog.New(slog.DiscardHandler)))
	type args struct {
		Key string `lovage:"key"`
	}
	lovage.Proc(app, "tell", func(ctx context.Context, in args) error {
		return rdb.Do(ctx, rdb.B().Rpush().Key("heard."+in.Key).Element(name).Build()).Error()
	})
	return app
}

// TestInteropFanout: two Celery workers and two Go workers consume from a
// Broadcast queue and from a named queue on a fanout exchange. Whoever publishes,
// each has its copy: one for each worker, but Go workers share that of the named
// queue, as on RabbitMQ.
func TestInteropFanout(t *testing.T) {
	t.Parallel()
	server := testenv.Redis(t)
	url := server.URL(server.DB(t))
	rdb := client(t, url)
	source := fmt.Sprintf(fanPy, url, url)
	for _, name := range []string{"py1", "py2"} {
		testenv.CeleryWorker(t, "tasks", source, "-P", "solo", "-n", name+"@test")
	}
	apps := []*lovage.App{fanApp(url, "go1", rdb), fanApp(url, "go2", rdb)}
	for _, app := range apps {
		goWorker(t, app)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
	defer cancel()
	who := func(key string) []string {
		names, err := rdb.Do(t.Context(), rdb.B().Lrange().Key("heard."+key).Start(0).Stop(-1).Build()).AsStrSlice()
		if err != nil {
			t.Fatal(err)
		}
		slices.Sort(names)
		return names
	}
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	wait := func(key string, n int) {
		t.Helper()
		for len(who(key)) < n {
			select {
			case <-tick.C:
			case <-ctx.Done():
				t.Fatalf("%s was heard by %q, want %d", key, who(key), n)
			}
		}
	}
	send := func(app *lovage.App, key string, opts ...lovage.CallOption) {
		t.Helper()
		if _, err := app.Send(ctx, "tell", lovage.Args{Positional: []any{key}}, opts...); err != nil {
			t.Fatal(err)
		}
	}
	testenv.Python(t, ctx, map[string]string{"tasks": source}, `
import tasks as t
from kombu import Exchange
bcast = Exchange('bcast', type='fanout')
for i in range(20):
    t.tell.apply_async(('py-bcast-%d' % i,), queue='bcast', declare=[bcast])
    t.tell.apply_async(('py-fan-%d' % i,), queue='fan')
t.tell.apply_async(('py-late',), queue='bcast', declare=[bcast], countdown=0.3)
`)
	// A Python client that has not declared the exchange pushes to lists that no
	// Python worker reads; Go's do.
	testenv.Python(t, ctx, map[string]string{"tasks": source}, `import tasks as t; t.tell.apply_async(('undeclared',), queue='bcast')`)
	for i := range 20 {
		send(apps[0], fmt.Sprint("go-bcast-", i), lovage.Queue("bcast"))
		send(apps[1], fmt.Sprint("go-fan-", i), lovage.Queue("fan"))
	}
	stranger := lovage.New("stranger", lovage.Config{BrokerURL: url}) // has declared nothing
	defer stranger.Close(ctx)
	send(stranger, "stranger", lovage.Exchange("bcast"), lovage.RoutingKey("celery"))
	send(apps[0], "end-bcast", lovage.Queue("bcast")) // after all others
	send(apps[0], "end-fan", lovage.Queue("fan"))
	wait("end-bcast", 4)
	wait("end-fan", 3)
	wait("py-late", 4)
	each := []string{"go1", "go2", "py1@test", "py2@test"}
	check := func(key string) {
		t.Helper()
		got := who(key)
		if strings.Contains(key, "fan") {
			if len(got) != 3 || !slices.Equal(got[1:], each[2:]) || !strings.HasPrefix(got[0], "go") {
				t.Errorf("%s was heard by %q, want each Python worker and one of Go's", key, got)
			}
		} else if !slices.Equal(got, each) {
			t.Errorf("%s was heard by %q, want each worker once", key, got)
		}
	}
	for i := range 20 {
		for _, key := range []string{"py-bcast-", "go-bcast-", "py-fan-", "go-fan-"} {
			check(fmt.Sprint(key, i))
		}
	}
	check("py-late")
	check("stranger")
	wait("undeclared", 2)
	if got := who("undeclared"); !slices.Equal(got, each[:2]) {
		t.Errorf("what a client pushed that had not declared the exchange was heard by %q", got)
	}
}

// TestBroadcastQueueGoesWithItsConsumer: nothing of it is left, and a message for
// it has nowhere to pile up.
func TestBroadcastQueueGoesWithItsConsumer(t *testing.T) {
	t.Parallel()
	server := testenv.Redis(t)
	url := server.URL(server.DB(t))
	c := open(t, url, nil)
	defer c.Close()
	q := broker.Broadcast("bcast")
	q.Name = "bcast.1"
	cs, err := c.Consume(t.Context(), broker.ConsumeConfig{Queues: []broker.Queue{q}})
	if err != nil {
		t.Fatal(err)
	}
	to := task("bcast.1", "a")
	to.Exchange, to.RoutingKey = "bcast", "celery"
	if err := c.Publish(t.Context(), to); err != nil {
		t.Fatal(err)
	}
	ds, err := cs.Claim(limit(t), 10)
	if err != nil || len(ds) != 1 || ds[0].Exchange != "bcast" {
		t.Fatalf("claimed %d, %v", len(ds), err)
	}
	if err := cs.Settle(t.Context(), broker.Settlement{Delivery: &ds[0]}); err != nil {
		t.Error(err)
	}
	if err := cs.Close(); err != nil {
		t.Error(err)
	}
	if err := c.Publish(t.Context(), to); err != nil {
		t.Fatal(err)
	}
	for _, k := range keysOf(t, client(t, url)) {
		if k != "lovage.exchanges" && !strings.HasPrefix(k, "lovage.heard.") {
			t.Errorf("key %q is left", k)
		}
	}
}

// TestFanoutThatOverflows: while the server takes no messages, what is heard is
// kept up to a bound; what is lost beyond it is told.
func TestFanoutThatOverflows(t *testing.T) {
	t.Parallel()
	server := testenv.PrivateRedis(t)
	var log syncBuffer
	c, err := redisbroker.Open(t.Context(), broker.Config{URL: server.URL(0), Logger: slog.New(slog.NewTextHandler(&log, nil))})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	cs, err := c.Consume(t.Context(), broker.ConsumeConfig{Queues: []broker.Queue{{Name: "q", Exchange: broker.Exchange{Name: "x", Type: "fanout"}}}})
	if err != nil {
		t.Fatal(err)
	}
	ctx := limit(t)
	server.Do(t, "CONFIG", "SET", "maxmemory", "1")
	const sent = 12_000
	for at := 0; at < sent; at += 500 {
		msgs := make([]*broker.Message, 500)
		for i := range msgs {
			msgs[i] = task("", fmt.Sprint(at+i))
		}
		if err := c.Broadcast(ctx, "x", msgs...); err != nil {
			t.Fatal(err)
		}
	}
	server.Do(t, "CONFIG", "SET", "maxmemory", "0")
	got := map[string]bool{}
	last := fmt.Sprint(sent - 1)
	for !got[last] {
		ds, err := cs.Claim(ctx, 500)
		if err != nil {
			t.Fatal(err)
		}
		sts := make([]broker.Settlement, len(ds))
		for i := range ds {
			got[ds[i].Properties.CorrelationID] = true
			sts[i].Delivery = &ds[i]
		}
		if err := cs.Settle(ctx, sts...); err != nil {
			t.Fatal(err)
		}
	}
	if err := cs.Close(); err != nil { // all is told by then
		t.Fatal(err)
	}
	want := fmt.Sprintf("lost=%d", sent-len(got))
	if len(got) < 10_000 || len(got) == sent || !strings.Contains(log.String(), want) {
		t.Errorf("claimed %d of %d, want 10,000 or some more, and %q in the log:\n%s", len(got), sent, want, log.String())
	}
}

// syncBuffer is a log that may be read while it is written.
type syncBuffer struct {
	mu  sync.Mutex
	buf strings.Builder
}

func (b *syncBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *syncBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}
