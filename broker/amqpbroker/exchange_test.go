package amqpbroker_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/lovage-go/lovage"
	"github.com/lovage-go/lovage/broker"
	"github.com/lovage-go/lovage/internal/testenv"
	"github.com/lovage-go/lovage/worker"
)

// exchangesPy is a project with exchanges of all kinds. A task tells who ran it.
const exchangesPy = `
import os, socket
from celery import Celery
from celery.signals import celeryd_init
from kombu import Exchange, Queue
from kombu.common import Broadcast
app = Celery('proj', broker='%[1]s', backend='%[2]s')
X = {e.name: e for e in (Exchange('x.direct', 'direct'), Exchange('x.topic', 'topic'), Exchange('x.fanout', 'fanout'), Exchange('x.headers', 'headers'), Exchange('bcast', 'fanout'), Exchange('x.py', 'topic'))}
app.conf.update(task_default_queue='plain', broker_connection_retry_on_startup=True, broker_transport_options={'confirm_publish': True},
    task_queues=[Queue('plain'), Queue('p', X['x.py'], 'of.#'), Queue('d', X['x.direct'], 'd'), Queue('t', X['x.topic'], 'video.#'), Queue('f', X['x.fanout']), Queue('f2', X['x.fanout']),
        Queue('h', X['x.headers'], '', binding_arguments={'x-match': 'all', 'format': 'pdf', 'pages': 3}), Broadcast('bcast')])

name = 'nobody'

@celeryd_init.connect
def init(sender, **kw):
    global name
    name = sender.split('@')[0]

@app.task(name='tell')
def tell(key):
    from redis import Redis
    Redis.from_url('%[3]s').rpush('%[4]s' + key, name)

def to(key, exchange, routing_key='', **kw):
    return tell.apply_async((key,), exchange=exchange, routing_key=routing_key, declare=[X[exchange]], **kw)
`

// exchangesCall sends from Python, and tells what became of what nobody takes.
const exchangesCall = `
import sys
import tasks as t
for i in range(5):
    t.to('py-d-%d' % i, 'x.direct', 'd')
    t.to('py-t-%d' % i, 'x.topic', 'video.new.%d' % i)
    t.to('py-f-%d' % i, 'x.fanout', 'any')
    t.to('py-h-%d' % i, 'x.headers', 'any', headers={'format': 'pdf', 'pages': 3}, mandatory=True)
    t.to('py-b-%d' % i, 'bcast', 'celery')
    t.to('py-lateb-%d' % i, 'bcast', 'celery', countdown=1)
def nowhere(exchange, *args, **kw):
    try:
        t.to('py-nowhere', exchange, *args, mandatory=True, retry=False, **kw)
        return 'sent'
    except Exception as e:
        return 'NO_ROUTE' if 'NO_ROUTE' in str(e) else repr(e)
print(nowhere('x.direct', 'nobody'), nowhere('x.topic', 'audio.new'), nowhere('x.headers', 'any', headers={'format': 'pdf', 'pages': 4}))
`

// TestInteropExchanges: a fleet of two workers of each language has queues on
// exchanges of every kind. Each message runs once for each queue that it comes to,
// a broadcast once on each worker, whoever sends; what nobody takes is an error for
// who asks for it.
func TestInteropExchanges(t *testing.T) {
	t.Parallel()
	redis := testenv.Redis(t)
	p := newPlace(t)
	list := "heard" + p.broker[strings.LastIndex(p.broker, "/"):] + "."
	source := fmt.Sprintf(exchangesPy, p.broker, p.backend, redis.URL(0), list)
	on := func(name, kind string) broker.Exchange { return broker.Exchange{Name: name, Type: kind} }
	newApp := func(name string) *lovage.App {
		app := lovage.New("proj", lovage.Config{BrokerURL: p.broker, ResultBackend: p.backend, TaskDefaultQueue: "plain", TaskQueues: []broker.Queue{
			broker.Named("plain"), broker.Broadcast("bcast"),
			{Name: "d", Exchange: on("x.direct", "direct"), RoutingKey: "d"},
			{Name: "t", Exchange: on("x.topic", "topic"), RoutingKey: "video.#"},
			{Name: "f", Exchange: on("x.fanout", "fanout")}, {Name: "f2", Exchange: on("x.fanout", "fanout")},
			{Name: "h", Bindings: []broker.Binding{{Exchange: on("x.headers", "headers"), Arguments: map[string]any{"x-match": "all", "format": "pdf", "pages": 3}}}},
		}}, quiet())
		lovage.Proc(app, "tell", func(ctx context.Context, key string) error {
			_, err := redis.Command(ctx, "RPUSH", list+key, name)
			return err
		})
		return app
	}
	for _, name := range []string{"py1", "py2"} {
		testenv.CeleryWorker(t, "tasks", source, "-P", "solo", "-n", name+"@test", "--without-gossip", "--without-mingle")
	}
	for _, name := range []string{"go1", "go2"} {
		goWorkerWith(t, newApp(name), func(c *worker.Config) { c.Hostname = name + "@test" })
	}
	ctx := limit(t, patience)
	client := newApp("client")
	defer client.Close(context.Background())
	send := func(key, exchange, routingKey string, opts ...lovage.CallOption) error {
		opts = append(opts, lovage.Exchange(exchange), lovage.RoutingKey(routingKey))
		_, err := client.Send(ctx, "tell", lovage.Args{Positional: []any{key}}, opts...)
		return err
	}
	sendTo := func(key, queue string) error {
		_, err := client.Send(ctx, "tell", lovage.Args{Positional: []any{key}}, lovage.Queue(queue))
		return err
	}
	pdf := func(pages int) lovage.CallOption {
		return lovage.Headers(map[string]any{"format": "pdf", "pages": pages})
	}
	for i := range 5 {
		if err := errors.Join(
			send(fmt.Sprint("go-d-", i), "x.direct", "d"),
			send(fmt.Sprint("go-t-", i), "x.topic", fmt.Sprint("video.new.", i)),
			send(fmt.Sprint("go-f-", i), "x.fanout", "any"),
			send(fmt.Sprint("go-h-", i), "x.headers", "any", pdf(3), lovage.Mandatory(true)),
			send(fmt.Sprint("go-b-", i), "bcast", "celery"),
			send(fmt.Sprint("go-late-", i), "x.headers", "any", pdf(3), lovage.Countdown(time.Duration(i)*300*time.Millisecond)),
			send(fmt.Sprint("go-latef-", i), "x.fanout", "any", lovage.Countdown(time.Duration(i)*300*time.Millisecond)),
			send(fmt.Sprint("go-lateb-", i), "bcast", "celery", lovage.Countdown(time.Duration(i)*300*time.Millisecond)),
			send(fmt.Sprint("go-latep-", i), "x.py", "of.python", lovage.Countdown(time.Duration(i)*300*time.Millisecond)), // Go knows no queue there
			sendTo(fmt.Sprint("go-bq-", i), "bcast"),
		); err != nil {
			t.Fatal(err)
		}
	}
	for what, err := range map[string]error{
		"direct":  send("nowhere", "x.direct", "nobody", lovage.Mandatory(true)),
		"topic":   send("nowhere", "x.topic", "audio.new", lovage.Mandatory(true)),
		"headers": send("nowhere", "x.headers", "any", pdf(4), lovage.Mandatory(true)),
	} {
		if !errors.Is(err, broker.ErrNoQueue) {
			t.Errorf("to nowhere by %s: %v, want ErrNoQueue", what, err)
		}
	}
	out := string(testenv.Python(t, ctx, map[string]string{"tasks": source}, exchangesCall))
	if strings.TrimSpace(out) != "NO_ROUTE NO_ROUTE NO_ROUTE" {
		t.Errorf("Python to nowhere: %s", out)
	}

	heard := func(key string) []string {
		text, err := redis.Command(t.Context(), "LRANGE", list+key, "0", "-1") // also when ctx has ended
		if err != nil {
			t.Fatal(err)
		}
		names := strings.Fields(text)
		slices.Sort(names)
		return names
	}
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for _, from := range []string{"py", "go"} {
		for kind, want := range map[string]int{"d": 1, "t": 1, "h": 1, "f": 2, "b": 4, "late": 1, "latef": 2, "lateb": 4, "latep": 1, "bq": 4} {
			if from == "py" && (strings.HasPrefix(kind, "late") && kind != "lateb" || kind == "bq") { // Python's late ones wait in the worker that gets it, but for those below
				continue
			}
			for i := range 5 {
				key := fmt.Sprint(from, "-", kind, "-", i)
				for len(heard(key)) < want {
					select {
					case <-tick.C:
					case <-ctx.Done():
						t.Fatalf("%s was heard by %q, want %d", key, heard(key), want)
					}
				}
				got := heard(key)
				if len(got) != want || kind == "b" && strings.Join(got, " ") != "go1 go2 py1 py2" {
					t.Errorf("%s was heard by %q, want %d", key, got, want)
				}
			}
		}
	}
}
