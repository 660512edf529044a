package amqpbroker_test

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/lovage-go/lovage/backend"
	"github.com/lovage-go/lovage/backend/rpcbackend"
	"github.com/lovage-go/lovage/broker"
	"github.com/lovage-go/lovage/control"
	"github.com/lovage-go/lovage/events"
	"github.com/lovage-go/lovage/internal/golden"
	"github.com/lovage-go/lovage/internal/testenv"
	"github.com/lovage-go/lovage/protocol"
	"github.com/lovage-go/lovage/serializer"
	amqp "github.com/rabbitmq/amqp091-go"
)

// load reads all recorded files that match, by their names without the ending.
func load[T any](t *testing.T, pattern string) map[string]T {
	t.Helper()
	names, err := filepath.Glob(pattern)
	if err != nil {
		t.Fatal(err)
	}
	files := map[string]T{}
	for _, name := range names {
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		var f T
		if err := serializer.JSON.Unmarshal(text, &f); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		files[strings.TrimSuffix(filepath.Base(name), ".json")] = f
	}
	return files
}

type recordedExchange struct {
	Requests, Replies []recordedMessage
	Methods           []map[string]any `json:"client_methods"`
}

// TestGoldenControl takes each request and each reply of Celery's remote control
// over the wire, reads it, writes it anew, and compares what arrives.
func TestGoldenControl(t *testing.T) {
	t.Parallel()
	m := newMirror(t)
	ctx := limit(t, patience)
	requests := listen(t, ctx, m.in, "celery.pidbox", "")
	files := load[recordedExchange](t, "testdata/golden/control/*.json")
	counts := map[string]int{"files": len(files)}
	for name, f := range files {
		for i := range f.Requests {
			q := &f.Requests[i]
			counts["requests"]++
			m.expect(t, q.Exchange, "fanout", q.RoutingKey, false)
			m.pass(t, ctx, name+" request", q, requests, func(headers, body []byte) error {
				parsed, err := control.ParseRequest(headers, body)
				if err != nil {
					return err
				}
				again, err := parsed.Message()
				if err != nil {
					return err
				}
				return m.out.(broker.Fanouter).Broadcast(ctx, q.Exchange, again)
			})
		}
		for i := range f.Replies {
			p := &f.Replies[i]
			counts["replies"]++
			m.expect(t, p.Exchange, "direct", p.RoutingKey, false)
			replies, err := m.in.(broker.ReplyQueuer).Replies(ctx, p.Exchange, p.RoutingKey)
			if err != nil {
				t.Fatal(err)
			}
			m.pass(t, ctx, name+" reply", p, replies, func(headers, body []byte) error {
				parsed, err := control.ParseReply(headers, body)
				if err != nil {
					return err
				}
				again, err := parsed.Message()
				if err != nil {
					return err
				}
				again.Exchange, again.RoutingKey = p.Exchange, p.RoutingKey
				return m.out.(broker.ReplyQueuer).Reply(ctx, time.Minute, again)
			})
			if err := replies.Close(); err != nil {
				t.Error(err)
			}
		}
	}
	t.Log(counts)
	if counts["files"] != 63 || counts["requests"] != 63 || counts["replies"] != 102 {
		t.Errorf("compared %v, want 63 files with 63 requests and 102 replies", counts)
	}
}

func listen(t *testing.T, ctx context.Context, c broker.Conn, exchange, pattern string) broker.Listener {
	t.Helper()
	l, err := c.(broker.Fanouter).Listen(ctx, exchange, pattern)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// TestGoldenEvents does the same with each event. receiver_declarations is
// compared by TestGoldenTopology.
func TestGoldenEvents(t *testing.T) {
	t.Parallel()
	m := newMirror(t)
	ctx := limit(t, patience)
	heard := listen(t, ctx, m.in, "celeryev", "#")
	files := load[recordedFile](t, "testdata/golden/events/*.json")
	n, of := 0, 0
	for name, f := range files {
		if len(f.Messages) > 0 {
			of++
		}
		for i := range f.Messages {
			e := &f.Messages[i]
			n++
			m.expect(t, "celeryev", "topic", e.RoutingKey, true)
			if err := m.from.PublishWithContext(ctx, e.Exchange, e.RoutingKey, true, false, e.publishing(t)); err != nil {
				t.Fatal(err)
			}
			d, err := heard.Next(ctx)
			if err != nil {
				t.Fatal(err)
			}
			list, err := events.Parse(d.Body)
			if err != nil {
				t.Errorf("%s: %v", name, err)
				continue
			}
			var parts [][]byte
			for _, one := range list {
				text, err := one.AppendJSON(nil)
				if err != nil {
					t.Errorf("%s: %v", name, err)
				}
				parts = append(parts, text)
			}
			body := bytes.Join(parts, []byte(","))
			if d.Body[0] == '[' {
				body = append(append([]byte{'['}, body...), ']')
			}
			h, err := protocol.ParseHeaders(d.Headers)
			if err != nil {
				t.Errorf("%s: %v", name, err)
			}
			again := &broker.Message{Headers: protocol.Headers{Extra: h.Extra}, RoutingKey: d.RoutingKey, Body: body, Properties: protocol.Properties{
				ContentType: d.Properties.ContentType, ContentEncoding: d.Properties.ContentEncoding, DeliveryMode: d.Properties.DeliveryMode}}
			if err := m.out.(broker.Fanouter).Broadcast(ctx, "celeryev", again); err != nil {
				t.Fatal(err)
			}
			got := m.read(t, ctx, e.Exchange, e.RoutingKey)
			same(t, name, &got, e)
		}
	}
	t.Logf("%d files, %d messages", of, n)
	if of != 17 || len(files) != 18 || n != 37 {
		t.Errorf("compared %d files of %d, %d messages, want 17 of 18, and 37", of, len(files), n)
	}
}

// TestGoldenReplies: results of rpc:// are sent as Celery's workers send them, to a
// queue that is declared as Celery's clients declare it.
func TestGoldenReplies(t *testing.T) {
	t.Parallel()
	server := testenv.RabbitMQ(t)
	tp := newTap(t, server.Addr)
	url := strings.Replace(server.Vhost(t), server.Addr, tp.addr, 1)
	ctx := limit(t, patience)
	stores := map[bool]*rpcbackend.Backend{}
	for _, persistent := range []bool{false, true} {
		b, err := rpcbackend.Open(ctx, backend.Config{BrokerURL: url, Persistent: persistent})
		if err != nil {
			t.Fatal(err)
		}
		defer b.Close()
		stores[persistent] = b
	}
	if _, err := stores[false].Expect(ctx, "a"); err != nil {
		t.Fatal(err)
	}
	var declared []string
	for _, m := range tp.all() {
		if text := declaration(t, m); text != "" {
			declared = append(declared, nameless(text))
		}
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
	type file struct {
		Replies []recordedMessage `json:"reply_messages"`
		Methods []map[string]any  `json:"client_queue_methods"`
	}
	const dir = "../../protocol/testdata/golden/results/rpc"
	files := load[file](t, dir+"/*.json")
	n, without := 0, 0
	for name, f := range files {
		var want []string
		for _, m := range f.Methods {
			if m["method"] == "queue.declare" && m["queue"] != "celery" {
				want = []string{nameless(recordedDeclaration(t, m))} // however often
			}
		}
		if !reflect.DeepEqual(declared, want) {
			t.Errorf("%s: we declare %q, want %q", name, declared, want)
		}
		if len(f.Replies) == 0 {
			without++
		}
		for i := range f.Replies {
			r := &f.Replies[i]
			n++
			if _, err := ch.QueueDeclare(r.RoutingKey, false, false, true, false, nil); err != nil {
				t.Fatal(err)
			}
			p := r.publishing(t)
			meta, err := protocol.ParseResultMeta(p.Body)
			if err != nil {
				t.Errorf("%s: %v", name, err)
				continue
			}
			rec := &backend.Record{TaskID: meta.TaskID, State: meta.Status, Meta: meta.AppendJSON(nil), ReplyTo: r.RoutingKey, CorrelationID: p.CorrelationId}
			if err := stores[p.DeliveryMode == 2].Store(ctx, rec); err != nil {
				t.Fatal(err)
			}
			got, ok, err := ch.Get(r.RoutingKey, true)
			if err != nil || !ok {
				t.Fatalf("%s: %v, %v", name, ok, err)
			}
			same(t, name, &got, r)
			if string(got.Body) != string(p.Body) {
				t.Errorf("%s: got %s, want %s", name, got.Body, p.Body)
			}
		}
	}
	present, err := golden.Count(dir)
	t.Logf("%d files, %d of them without a reply, %d replies", len(files), without, n)
	if err != nil || len(files) != present || without != 1 || n < len(files)-without {
		t.Errorf("compared %d files of %d, %d without a reply, %d replies; %v", len(files), present, without, n, err)
	}
}
