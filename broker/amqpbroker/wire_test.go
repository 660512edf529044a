package amqpbroker_test

import (
	"context"
	"encoding/base64"
	"fmt"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/lovage-go/lovage"
	_ "github.com/lovage-go/lovage/backend/rpcbackend"
	"github.com/lovage-go/lovage/broker"
	"github.com/lovage-go/lovage/control"
	"github.com/lovage-go/lovage/events"
	"github.com/lovage-go/lovage/internal/golden"
	"github.com/lovage-go/lovage/internal/testenv"
	"github.com/lovage-go/lovage/protocol"
	"github.com/lovage-go/lovage/worker"
	amqp "github.com/rabbitmq/amqp091-go"
)

// TestOnlyWhatNewServersTake: in everything that an App with a worker, events,
// remote control, delays and rpc results sends there is no global prefetch and no
// transient queue that is not exclusive.
func TestOnlyWhatNewServersTake(t *testing.T) {
	t.Parallel()
	server := testenv.RabbitMQ(t)
	url := server.Vhost(t)
	tp := newTap(t, server.Addr)
	url = strings.Replace(url, server.Addr, tp.addr, 1)
	p := place{broker: url, backend: "rpc://", queue: "q"}
	there := p.app()
	goWorkerWith(t, there, func(c *worker.Config) { c.TaskEvents = true })
	app := p.app()
	defer app.Close(context.Background())
	ctx := limit(t, patience)
	conn, err := app.Broker(ctx)
	if err != nil {
		t.Fatal(err)
	}
	r, err := events.Listen(ctx, conn, events.ListenConfig{})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	res, err := lovage.Remote[untilArgs, int](app, "go.flaky").Delay(ctx, untilArgs{Until: 1}, lovage.Countdown(50*time.Millisecond))
	if err != nil {
		t.Fatal(err)
	}
	if n, err := res.Get(ctx); err != nil || n != 1 {
		t.Fatalf("got %d, %v", n, err)
	}
	if _, err := res.Get(ctx); err != nil {
		t.Error(err)
	}
	if replies, err := app.Control().Ping(ctx, control.Options{Reply: true, Limit: 1, Timeout: patience}); err != nil || len(replies) != 1 {
		t.Errorf("ping: %v, %v", replies, err)
	}
	seen, queues := map[string]int{}, map[string]bool{}
	for _, m := range tp.all() {
		seen[m.name()]++
		switch m.name() {
		case queueDeclare:
			queues[strings.Fields(nameless(declaration(t, m)))[1]] = true
			name, rest := shortstr(m.args[2:])
			const passive, durable, exclusive = 1, 2, 4
			if bits := rest[0]; bits&passive == 0 && bits&durable == 0 && bits&exclusive == 0 {
				t.Errorf("queue %q is declared transient and not exclusive", name)
			} else if bits&exclusive != 0 {
				seen["exclusive"]++
			}
		case basicQos:
			if m.args[6] != 0 {
				t.Error("a global prefetch is set")
			}
		}
	}
	for _, name := range []string{"q", "celeryev.<id>", "<node>.celery.pidbox", "<id>.reply.celery.pidbox", "<id>"} { // of tasks, events, remote control, rpc
		if !queues[name] {
			t.Errorf("queue %s is not among those that were declared: %v", name, queues)
		}
	}
	if seen[basicQos] == 0 || seen[queueDeclare] < 4 || seen["exclusive"] < 3 {
		t.Errorf("the tap saw %v, want prefetches, queues and exclusive ones among them", seen)
	}
}

// TestOldDeclarations: with the options for old fleets the queues of events and
// remote control are transient and not exclusive, as Celery 5.2's, whose worker is
// there first; both understand each other.
func TestOldDeclarations(t *testing.T) {
	t.Parallel()
	server := testenv.RabbitMQ(t)
	url := server.Vhost(t)
	old := place{broker: url, backend: "rpc://", queue: "celery"}
	testenv.CeleryWorker(t, "tasks", old.tasks(), "-P", "solo", "-n", "py@test", "-E", "--heartbeat-interval=1")
	tp := newTap(t, server.Addr)
	newApp := func() *lovage.App {
		return lovage.New("proj", lovage.Config{BrokerURL: strings.Replace(url, server.Addr, tp.addr, 1), ResultBackend: "rpc://",
			BrokerTransportOptions: map[string]any{"event_queue_exclusive": false, "control_queue_exclusive": false}}, quiet())
	}
	goWorkerWith(t, newApp(), func(c *worker.Config) { c.Hostname = "go@test" })
	app := newApp()
	defer app.Close(context.Background())
	ctx := limit(t, patience)
	conn, err := app.Broker(ctx)
	if err != nil {
		t.Fatal(err)
	}
	r, err := events.Listen(ctx, conn, events.ListenConfig{})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	replies, err := app.Control().Ping(ctx, control.Options{Reply: true, Limit: 2, Timeout: patience})
	if err != nil || len(replies) != 2 {
		t.Errorf("ping: %v, %v, want both workers", replies, err)
	}
	for heard := map[string]bool{}; !heard["py@test"] || !heard["go@test"]; {
		e, err := r.Next(ctx)
		if err != nil {
			t.Fatalf("heard %v: %v", heard, err)
		}
		heard[e.Hostname] = true
	}
	if raw := testenv.Python(t, ctx, map[string]string{"tasks": old.tasks()},
		`import tasks as t; print(sorted(list(r)[0] for r in t.app.control.ping(timeout=20, limit=2)))`); strings.TrimSpace(string(raw)) != "['go@test', 'py@test']" {
		t.Errorf("Python's ping: %s", raw)
	}
	kinds := map[string]bool{}
	for _, m := range tp.all() {
		if text := nameless(declaration(t, m)); strings.Contains(text, "durable=false exclusive=false auto_delete=true") {
			kinds[strings.Fields(text)[1]] = true
		}
	}
	for _, name := range []string{"celeryev.<id>", "<node>.celery.pidbox", "<id>.reply.celery.pidbox"} {
		if !kinds[name] {
			t.Errorf("%s is not declared the old way: %v", name, kinds)
		}
	}
}

// TestGoldenDeclarations compares what is declared for a queue with what Celery
// declared, bit by bit and with the types of the arguments.
func TestGoldenDeclarations(t *testing.T) {
	t.Parallel()
	server := testenv.RabbitMQ(t)
	files := recordedFiles(t)
	prio, quorum, video := broker.Named("prio"), broker.Named("celery_quorum"), broker.Named("video")
	prio.MaxPriority = 10
	quorum.Type = "quorum"
	video.Exchange, video.RoutingKey = broker.Exchange{Name: "demo.topic", Type: "topic"}, "video.#"
	news := broker.Named("news")
	news.Exchange, news.RoutingKey = broker.Exchange{Name: "demo.news", Type: "fanout"}, "celery"
	for file, queues := range map[string][]broker.Queue{
		"plain_args.json": {broker.Named("celery")}, "queue_max_priority.json": {prio}, "quorum_default_queue.json": {quorum},
		"topic_exchange_queue.json": {broker.Named("celery"), video}, "fanout_exchange_queue.json": {news},
	} {
		tp := newTap(t, server.Addr)
		c := open(t, strings.Replace(server.Vhost(t), server.Addr, tp.addr, 1), nil)
		if err := c.Declare(t.Context(), queues...); err != nil {
			t.Fatal(err)
		}
		if err := c.Close(); err != nil {
			t.Error(err)
		}
		var got, want []string
		for _, m := range tp.all() {
			if text := declaration(t, m); text != "" && !strings.Contains(text, "celery_delayed") {
				got = append(got, text)
			}
		}
		for _, d := range files[file].Declares {
			want = append(want, recordedDeclaration(t, d))
		}
		if !slices.Equal(got, want) {
			t.Errorf("%s:\n got %q\nwant %q", file, got, want)
		}
	}
}

// TestGoldenMessages takes each message that Celery sent through the driver and
// sends it anew: headers come out with the same types and values, and properties
// and body are the same.
func TestGoldenMessages(t *testing.T) {
	t.Parallel()
	url := testenv.RabbitMQ(t).Vhost(t)
	c := open(t, url, nil)
	defer c.Close()
	cs, err := c.Consume(t.Context(), broker.ConsumeConfig{Queues: []broker.Queue{broker.Named("in")}})
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Declare(t.Context(), broker.Named("out")); err != nil {
		t.Fatal(err)
	}
	stranger, err := amqp.Dial(url)
	if err != nil {
		t.Fatal(err)
	}
	defer stranger.Close()
	ch, err := stranger.Channel()
	if err != nil {
		t.Fatal(err)
	}
	ctx := limit(t, patience)
	n, expiring, without := 0, 0, 0
	files := recordedFiles(t)
	for name, file := range files {
		if len(file.Messages) == 0 { // most because Celery's client refuses the call
			without++
		}
		for i, m := range file.Messages {
			name := fmt.Sprint(name, "#", i)
			want := amqp.Publishing{Headers: typed(t, m.Headers).(amqp.Table)}
			if want.Body, err = base64.StdEncoding.DecodeString(m.Body); err != nil {
				t.Fatal(err)
			}
			text := func(k string) string { s, _ := m.Properties[k].(string); return s }
			want.ContentType, want.ContentEncoding, want.CorrelationId, want.ReplyTo = text("content_type"), text("content_encoding"), text("correlation_id"), text("reply_to")
			want.DeliveryMode, want.Priority = uint8(number(t, m.Properties["delivery_mode"])), uint8(number(t, m.Properties["priority"]))
			if e := text("expiration"); e != "" && number(t, e) > 25_000 { // a shorter one would drop it here
				want.Expiration = e
				expiring++
			}
			if err := ch.PublishWithContext(ctx, "", "in", true, false, want); err != nil {
				t.Fatal(err)
			}
			ds, err := cs.Claim(ctx, 1)
			if err != nil {
				t.Fatal(err)
			}
			h, err := protocol.ParseHeaders(ds[0].Headers)
			if err != nil {
				t.Errorf("%s: %v", name, err)
				continue
			}
			again := &broker.Message{Headers: h, Properties: ds[0].Properties, Body: ds[0].Body, Queue: "out", RoutingKey: "out"}
			if err := c.Publish(ctx, again); err != nil {
				t.Fatal(err)
			}
			if err := cs.Settle(ctx, broker.Settlement{Delivery: &ds[0]}); err != nil {
				t.Error(err)
			}
			got, ok, err := ch.Get("out", true)
			if err != nil || !ok {
				t.Fatalf("%s: %v, %v", name, ok, err)
			}
			if h.Task != "" { // 5.6 sends these always, others what they know
				for _, k := range []string{"replaced_task_nesting", "stamped_headers", "stamps"} {
					if _, sent := want.Headers[k]; !sent {
						delete(got.Headers, k)
					}
				}
			}
			if len(got.Headers) > 0 || len(want.Headers) > 0 {
				if !reflect.DeepEqual(got.Headers, want.Headers) {
					t.Errorf("%s: headers\n got %#v\nwant %#v", name, got.Headers, want.Headers)
				}
			}
			if string(got.Body) != string(want.Body) || got.ContentType != want.ContentType || got.ContentEncoding != want.ContentEncoding ||
				got.CorrelationId != want.CorrelationId || got.ReplyTo != want.ReplyTo || got.DeliveryMode != want.DeliveryMode || got.Priority != want.Priority || got.Expiration != want.Expiration {
				t.Errorf("%s: got %+v, want %+v", name, got, want)
			}
			n++
		}
	}
	t.Logf("%d files, %d of them without a message, %d messages, %d of them with an expiration", len(files), without, n, expiring)
	if present, err := golden.Count(recorded); err != nil || len(files) != present || without != 5 || expiring == 0 {
		t.Errorf("compared %d files of %d, %v", len(files), present, err)
	}
}

func number(t *testing.T, v any) int64 {
	t.Helper()
	if v == nil {
		return 0
	}
	n, err := strconv.ParseInt(fmt.Sprint(v), 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// typed turns recorded values with their types into the library's.
func typed(t *testing.T, v any) any {
	t.Helper()
	m, ok := v.(map[string]any)
	if !ok {
		t.Fatalf("a value without a type: %v", v)
	}
	kind, is := m["t"].(string)
	if !is { // the whole table
		out := amqp.Table{}
		for k, x := range m {
			out[k] = typed(t, x)
		}
		return out
	}
	switch kind {
	case "S":
		return m["v"].(string)
	case "t":
		return m["v"].(bool)
	case "V":
		return nil
	case "I":
		return int32(number(t, m["v"]))
	case "L", "l":
		return number(t, m["v"])
	case "d":
		f, err := strconv.ParseFloat(fmt.Sprint(m["v"]), 64)
		if err != nil {
			t.Fatal(err)
		}
		return f
	case "A":
		out := []any{}
		for _, x := range m["v"].([]any) {
			out = append(out, typed(t, x))
		}
		return out
	case "F":
		out := amqp.Table{}
		for k, x := range m["v"].(map[string]any) {
			out[k] = typed(t, x)
		}
		return out
	}
	t.Fatalf("type %q", kind)
	return nil
}
