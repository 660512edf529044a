package amqpbroker_test

import (
	"context"
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/lovage-go/lovage"
	_ "github.com/lovage-go/lovage/backend/rpcbackend"
	"github.com/lovage-go/lovage/broker"
	"github.com/lovage-go/lovage/control"
	"github.com/lovage-go/lovage/events"
	"github.com/lovage-go/lovage/internal/testenv"
	"github.com/lovage-go/lovage/protocol"
	"github.com/lovage-go/lovage/worker"
	amqp "github.com/rabbitmq/amqp091-go"
)

// method is one AMQP method that a client sent.
type method struct {
	class, id uint16
	args      []byte
}

func (m method) name() string { return fmt.Sprintf("%d.%d", m.class, m.id) }

const (
	exchangeDeclare = "40.10"
	queueDeclare    = "50.10"
	queueBind       = "50.20"
	basicQos        = "60.10"
	basicAck        = "60.80"
)

// tap is a TCP proxy that keeps the methods clients send.
type tap struct {
	addr string

	mu      sync.Mutex
	methods []method
	drop    string // a method that does not reach the server
}

func newTap(t *testing.T, target string) *tap {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	tp := &tap{addr: l.Addr().String()}
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			s, err := net.Dial("tcp", target)
			if err != nil {
				c.Close()
				continue
			}
			wg.Go(func() { io.Copy(c, s); c.Close() })
			wg.Go(func() { tp.pass(c, s); s.Close() })
		}
	})
	t.Cleanup(func() { l.Close(); wg.Wait() })
	return tp
}

func (tp *tap) pass(r io.Reader, w io.Writer) {
	if _, err := io.CopyN(w, r, 8); err != nil { // the protocol header
		return
	}
	var head [7]byte
	for {
		if _, err := io.ReadFull(r, head[:]); err != nil {
			return
		}
		payload := make([]byte, binary.BigEndian.Uint32(head[3:])+1)
		if _, err := io.ReadFull(r, payload); err != nil {
			return
		}
		if head[0] == 1 && tp.keep(method{binary.BigEndian.Uint16(payload), binary.BigEndian.Uint16(payload[2:]), payload[4 : len(payload)-1]}) {
			continue
		}
		if _, err := w.Write(append(head[:], payload...)); err != nil {
			return
		}
	}
}

// keep keeps a method and tells whether it is dropped.
func (tp *tap) keep(m method) bool {
	tp.mu.Lock()
	defer tp.mu.Unlock()
	tp.methods = append(tp.methods, m)
	return m.name() == tp.drop
}

func (tp *tap) all() []method {
	tp.mu.Lock()
	defer tp.mu.Unlock()
	return slices.Clone(tp.methods)
}

// shortstr takes a text of AMQP's from the front.
func shortstr(b []byte) (string, []byte) { return string(b[1 : 1+b[0]]), b[1+b[0]:] }

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
	ctx := limit(t, 25*time.Second)
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
	if replies, err := app.Control().Ping(ctx, control.Options{Reply: true, Limit: 1, Timeout: 10 * time.Second}); err != nil || len(replies) != 1 {
		t.Errorf("ping: %v, %v", replies, err)
	}
	seen := map[string]int{}
	for _, m := range tp.all() {
		seen[m.name()]++
		switch m.name() {
		case queueDeclare:
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
	if seen[basicQos] == 0 || seen[queueDeclare] < 4 || seen["exclusive"] < 3 {
		t.Errorf("the tap saw %v, want prefetches, queues and exclusive ones among them", seen)
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

// declaration writes what a method declares; empty: nothing.
func declaration(t *testing.T, m method) string {
	t.Helper()
	b := m.args
	switch m.name() {
	case exchangeDeclare:
		name, b := shortstr(b[2:])
		kind, b := shortstr(b)
		return fmt.Sprintf("exchange %s %s passive=%t durable=%t auto_delete=%t %v", name, kind, b[0]&1 > 0, b[0]&2 > 0, b[0]&4 > 0, readTable(t, b[1:]))
	case queueDeclare:
		name, b := shortstr(b[2:])
		return fmt.Sprintf("queue %s passive=%t durable=%t exclusive=%t auto_delete=%t %v", name, b[0]&1 > 0, b[0]&2 > 0, b[0]&4 > 0, b[0]&8 > 0, readTable(t, b[1:]))
	case queueBind:
		queue, b := shortstr(b[2:])
		exchange, b := shortstr(b)
		key, b := shortstr(b)
		return fmt.Sprintf("bind %s %s %s %v", queue, exchange, key, readTable(t, b[1:]))
	}
	return ""
}

func recordedDeclaration(t *testing.T, d map[string]any) string {
	t.Helper()
	args := map[string]string{}
	for k, v := range d["arguments"].(map[string]any) {
		args[k] = v.(map[string]any)["t"].(string) + fmt.Sprint(v.(map[string]any)["v"])
	}
	switch d["method"] {
	case "exchange.declare":
		return fmt.Sprintf("exchange %v %v passive=%v durable=%v auto_delete=%v %v", d["exchange"], d["type"], d["passive"], d["durable"], d["auto_delete"], args)
	case "queue.declare":
		return fmt.Sprintf("queue %v passive=%v durable=%v exclusive=%v auto_delete=%v %v", d["queue"], d["passive"], d["durable"], d["exclusive"], d["auto_delete"], args)
	}
	return fmt.Sprintf("bind %v %v %v %v", d["queue"], d["exchange"], d["routing_key"], args)
}

// readTable reads a flat table of texts and 32-bit numbers, with their types.
func readTable(t *testing.T, b []byte) map[string]string {
	t.Helper()
	out := map[string]string{}
	b = b[4:]
	for len(b) > 0 {
		var key string
		key, b = shortstr(b)
		switch kind := b[0]; kind {
		case 'I':
			out[key] = fmt.Sprintf("I%d", int32(binary.BigEndian.Uint32(b[1:])))
			b = b[5:]
		case 'S':
			n := binary.BigEndian.Uint32(b[1:])
			out[key] = "S" + string(b[5:5+n])
			b = b[5+n:]
		default:
			t.Fatalf("argument %s has type %c", key, kind)
		}
	}
	return out
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
	ctx := limit(t, 25*time.Second)
	n := 0
	for name, file := range recordedFiles(t) {
		for i, m := range file.Messages {
			name := fmt.Sprint(name, "#", i)
			want := amqp.Publishing{Headers: typed(t, m.Headers).(amqp.Table)}
			if want.Body, err = base64.StdEncoding.DecodeString(m.Body); err != nil {
				t.Fatal(err)
			}
			text := func(k string) string { s, _ := m.Properties[k].(string); return s }
			want.ContentType, want.ContentEncoding, want.CorrelationId, want.ReplyTo = text("content_type"), text("content_encoding"), text("correlation_id"), text("reply_to")
			want.DeliveryMode, want.Priority = uint8(number(t, m.Properties["delivery_mode"])), uint8(number(t, m.Properties["priority"]))
			// expiration would drop it here, and is judged by itself below
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
				got.CorrelationId != want.CorrelationId || got.ReplyTo != want.ReplyTo || got.DeliveryMode != want.DeliveryMode || got.Priority != want.Priority {
				t.Errorf("%s: got %+v, want %+v", name, got, want)
			}
			n++
		}
	}
	t.Logf("%d messages", n)
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
