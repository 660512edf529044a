package amqpbroker_test

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"math"
	"reflect"
	"testing"

	"github.com/lovage-go/lovage/broker"
	"github.com/lovage-go/lovage/internal/testenv"
	amqp "github.com/rabbitmq/amqp091-go"
)

// mirror takes recorded messages through the driver: one end hears them as they
// were sent, and what it makes of them is sent on another vhost, where a plain
// consumer reads it.
type mirror struct {
	from *amqp.Channel // publishes what was recorded
	in   broker.Conn
	out  broker.Conn
	to   *amqp.Channel
	seen map[string]<-chan amqp.Delivery // by exchange and key
}

func newMirror(t *testing.T) *mirror {
	t.Helper()
	server := testenv.RabbitMQ(t)
	m := &mirror{seen: map[string]<-chan amqp.Delivery{}}
	for _, end := range []struct {
		plain **amqp.Channel
		conn  *broker.Conn
	}{{&m.from, &m.in}, {&m.to, &m.out}} {
		url := server.Vhost(t)
		c := open(t, url, nil)
		stranger, err := amqp.Dial(url)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { stranger.Close(); c.Close() })
		if *end.plain, err = stranger.Channel(); err != nil {
			t.Fatal(err)
		}
		*end.conn = c
	}
	return m
}

// read gives what the plain consumer of an exchange and a key hears.
func (m *mirror) read(t *testing.T, ctx context.Context, exchange, key string) amqp.Delivery {
	t.Helper()
	select {
	case d := <-m.seen[exchange+"/"+key]:
		return d
	case <-ctx.Done():
		t.Fatalf("nothing comes by %s %q", exchange, key)
		panic("unreachable")
	}
}

// pass sends a recorded message, which anew reads as it is heard and sends again, and
// compares what arrives.
func (m *mirror) pass(t *testing.T, ctx context.Context, name string, rec *recordedMessage, heard broker.Listener, anew func(headers, body []byte) error) {
	t.Helper()
	if err := m.from.PublishWithContext(ctx, rec.Exchange, rec.RoutingKey, true, false, rec.publishing(t)); err != nil {
		t.Fatal(err)
	}
	d, err := heard.Next(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if err := anew(d.Headers, d.Body); err != nil {
		t.Errorf("%s: %v", name, err)
		return
	}
	got := m.read(t, ctx, rec.Exchange, rec.RoutingKey)
	same(t, name, &got, rec)
}

// expect has a plain consumer hear what is sent by an exchange and a key.
func (m *mirror) expect(t *testing.T, exchange, kind, key string, durable bool) {
	t.Helper()
	if m.seen[exchange+"/"+key] != nil {
		return
	}
	err := m.to.ExchangeDeclare(exchange, kind, durable, false, false, false, nil)
	var q amqp.Queue
	if err == nil {
		q, err = m.to.QueueDeclare("", false, true, true, false, nil)
	}
	if err == nil {
		err = m.to.QueueBind(q.Name, key, exchange, false, nil)
	}
	if err == nil {
		m.seen[exchange+"/"+key], err = m.to.Consume(q.Name, "", true, true, false, false, nil)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// publishing is a recorded message for the library.
func (m *recordedMessage) publishing(t *testing.T) amqp.Publishing {
	t.Helper()
	body, err := base64.StdEncoding.DecodeString(m.Body)
	if err != nil {
		t.Fatal(err)
	}
	text := func(k string) string { s, _ := m.Properties[k].(string); return s }
	return amqp.Publishing{
		Headers: typed(t, m.Headers).(amqp.Table), Body: body,
		ContentType: text("content_type"), ContentEncoding: text("content_encoding"), CorrelationId: text("correlation_id"), ReplyTo: text("reply_to"),
		DeliveryMode: uint8(number(t, m.Properties["delivery_mode"])), Priority: uint8(number(t, m.Properties["priority"])),
	}
}

// same compares what arrived with what was recorded: headers with their types,
// properties, and bodies as JSON. A priority of 0 is not told from none.
func same(t *testing.T, name string, got *amqp.Delivery, want *recordedMessage) {
	t.Helper()
	w := want.publishing(t)
	if a, b := got.Headers["expires"], w.Headers["expires"]; a != nil || b != nil { // a float that went through a time
		x, _ := a.(float64)
		y, _ := b.(float64)
		if reflect.TypeOf(a) != reflect.TypeOf(b) || math.Abs(x-y) > 2e-6 {
			t.Errorf("%s: expires %v, want %v", name, a, b)
		}
		delete(got.Headers, "expires")
		delete(w.Headers, "expires")
	}
	if len(got.Headers)+len(w.Headers) > 0 && !reflect.DeepEqual(got.Headers, w.Headers) {
		t.Errorf("%s: headers\n got %#v\nwant %#v", name, got.Headers, w.Headers)
	}
	if got.Exchange != want.Exchange || got.RoutingKey != want.RoutingKey || got.ContentType != w.ContentType || got.ContentEncoding != w.ContentEncoding ||
		got.CorrelationId != w.CorrelationId || got.ReplyTo != w.ReplyTo || got.DeliveryMode != w.DeliveryMode || got.Priority != w.Priority {
		t.Errorf("%s: got %+v, want %+v", name, got, want)
	}
	if g, w := plain(t, got.Body), plain(t, w.Body); !reflect.DeepEqual(g, w) {
		t.Errorf("%s: body\n got %s\nwant %s", name, got.Body, w)
	}
}

func plain(t *testing.T, raw []byte) (v any) {
	t.Helper()
	raw = bytes.ReplaceAll(raw, []byte(`: Infinity`), []byte(`: null`)) // Python's, and no JSON: we write null
	if err := json.Unmarshal(raw, &v); err != nil {
		t.Fatalf("%s: %v", raw, err)
	}
	return v
}
