package amqpbroker_test

import (
	"errors"
	"fmt"
	"testing"
	"time"

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
	ctx := limit(t, 60*time.Second)
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
