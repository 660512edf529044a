package amqpbroker_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/lovage-go/lovage/broker"
	"github.com/lovage-go/lovage/internal/testenv"
)

// TestRefusedAmongConfirmed: a full queue refuses messages at once, those for
// another queue that were sent before and after are confirmed later, many at a
// time. Who was refused is told so.
func TestRefusedAmongConfirmed(t *testing.T) {
	t.Parallel()
	const each, room = 500, 3
	s := newSite(t, testenv.RabbitMQ(t).Vhost(t), nil)
	ctx := limit(t, patience)
	err := s.c.Declare(ctx, broker.Queue{Name: "full", MaxLength: room, Arguments: map[string]any{"x-overflow": "reject-publish"}})
	if err != nil {
		t.Fatal(err)
	}
	for i := range room {
		if err := s.c.Publish(ctx, task("full", fmt.Sprint("first-", i))); err != nil {
			t.Fatal(err)
		}
	}
	var msgs []*broker.Message
	for i := range each {
		msgs = append(msgs, task("q", fmt.Sprint("q-", i)), task("full", fmt.Sprint("full-", i)))
	}
	wrong := 0
	for i, err := range broker.EachError(s.c.Publish(ctx, msgs...), len(msgs)) {
		if refused := errors.Is(err, broker.ErrUnavailable); refused != (msgs[i].Queue == "full") {
			wrong++
		}
	}
	if wrong > 0 {
		t.Errorf("%d of %d messages have the outcome of another one", wrong, len(msgs))
	}
}

// TestWhatAMQPCannotCarry: a message for which the connection would be ended is
// refused alone, with the reason. Those beside it arrive, and the outcomes of later
// ones are their own.
func TestWhatAMQPCannotCarry(t *testing.T) {
	t.Parallel()
	s := newSite(t, testenv.RabbitMQ(t).Vhost(t), nil)
	ctx := limit(t, patience)
	long := strings.Repeat("x", 256)
	header := func(key, value string) *broker.Message {
		m := task("q", "header")
		m.Headers.Extra = map[string]json.RawMessage{key: json.RawMessage(value)}
		return m
	}
	routed := task("q", "routed")
	routed.Queue, routed.RoutingKey = "", long
	msgs := []*broker.Message{
		task("q", "first"), task("q", long), header(long, "1"), header("deep", `{"list": [{"`+long+`": 1}]}`), routed,
		header("big", `"`+strings.Repeat("x", 131_072)+`"`), header("just", `"`+strings.Repeat("x", 130_500)+`"`), task("q", long[:255]), task("q", "last"),
	}
	want := []string{"", "correlation id", "the key", "the key", "routing key", "frame_max", "", "", ""}
	for i, err := range broker.EachError(s.c.Publish(ctx, msgs...), len(msgs)) {
		if (err == nil) != (want[i] == "") || err != nil && (!strings.Contains(err.Error(), want[i]) || broker.Retryable(err)) {
			t.Errorf("message %d: %v, want %q", i, err, want[i])
		}
	}
	if err := s.c.Publish(ctx, task("none", "made")); err != nil { // returned first
		t.Error(err)
	}
	for _, m := range msgs {
		if m == msgs[1] || len(m.Headers.Extra) > 0 && m != msgs[6] || m == routed {
			continue
		}
		d := s.claim(ctx)
		if string(d.Body) != string(m.Body) {
			t.Errorf("got %.20q, want %.20q", d.Body, m.Body)
		}
		if err := s.cs.Settle(ctx, broker.Settlement{Delivery: d}); err != nil {
			t.Error(err)
		}
	}
	if text := s.log.String(); strings.Contains(text, "lost") || strings.Contains(text, "closed") {
		t.Errorf("a connection or channel ended:\n%s", text)
	}
}
