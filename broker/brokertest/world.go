package brokertest

import (
	"context"
	"encoding/json"
	"errors"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/lovage-go/lovage/broker"
	"github.com/lovage-go/lovage/protocol"
)

const (
	// patience is how long the suite waits for what must come.
	patience = time.Minute
	// silence is how long it listens for what must not come.
	silence = 100 * time.Millisecond
	// slack is how much earlier than due a delayed message may come: stores
	// keep times in milliseconds.
	slack = 2 * time.Millisecond
)

// world is one case's store, with what it opened there.
type world struct {
	*testing.T
	h         *Harness
	has       []Ability
	ctx       context.Context // ends with the case, or when patience does
	conn      broker.Conn
	conns     []broker.Conn
	consumers []broker.Consumer
	killed    []broker.Conn
}

func newWorld(t *testing.T, h *Harness, has []Ability) *world {
	ctx, cancel := context.WithTimeoutCause(t.Context(), patience, errors.New("the suite lost patience"))
	t.Cleanup(cancel)
	w := &world{T: t, h: h, has: has, ctx: ctx, conn: h.Open(t)}
	w.conns = append(w.conns, w.conn)
	return w
}

// end checks that nothing is left claimed and closes what is open.
func (w *world) end() {
	w.Helper()
	if w.Failed() {
		w.closeAll()
		return
	}
	if slices.Contains(w.has, Lengths) {
		for name, l := range w.lengths(w.other()) {
			if l.Claimed > 0 {
				w.Errorf("at the end queue %q has %d messages claimed, want 0", name, l.Claimed)
			}
		}
	}
	w.closeAll()
}

func (w *world) closeAll() {
	w.Helper()
	for _, cs := range w.consumers {
		if err := cs.Close(); err != nil {
			w.Errorf("close consumer: %v", err)
		}
	}
	for _, c := range w.conns {
		if err := c.Close(); err != nil && !slices.Contains(w.killed, c) {
			w.Errorf("close connection: %v", err)
		}
	}
}

func (w *world) must(err error) {
	w.Helper()
	if err != nil {
		w.Fatal(err)
	}
}

// other opens a further connection, as another process would.
func (w *world) other() broker.Conn {
	w.Helper()
	c := w.h.Reopen(w.T, w.conn)
	w.conns = append(w.conns, c)
	return c
}

// kill cuts a connection off; its consumers are forgotten.
func (w *world) kill(c broker.Conn) {
	w.Helper()
	w.killed = append(w.killed, c)
	w.h.Kill(w.T, c)
}

// consumer starts a consumer with the driver's own lease.
func (w *world) consumer(c broker.Conn, queues ...string) broker.Consumer {
	w.Helper()
	return w.leased(c, 0, queues...)
}

func (w *world) leased(c broker.Conn, lease time.Duration, queues ...string) broker.Consumer {
	w.Helper()
	return w.consume(c, broker.ConsumeConfig{Window: 64, Lease: lease}, queues...)
}

// narrow starts a consumer that buffers no more than one message.
func (w *world) narrow(c broker.Conn, queues ...string) broker.Consumer {
	w.Helper()
	return w.consume(c, broker.ConsumeConfig{Window: 1}, queues...)
}

func (w *world) consume(c broker.Conn, cfg broker.ConsumeConfig, queues ...string) broker.Consumer {
	w.Helper()
	cfg.Worker = "suite@localhost"
	for _, q := range queues {
		cfg.Queues = append(cfg.Queues, broker.Named(q))
	}
	cs, err := c.Consume(w.ctx, cfg)
	if err != nil {
		w.Fatalf("consume %v: %v", queues, err)
	}
	w.consumers = append(w.consumers, cs)
	return cs
}

// message makes a task message whose body is its id, for a queue by its name.
func message(queue, id string) *broker.Message {
	return &broker.Message{
		Headers:    protocol.Headers{Lang: "go", Task: "suite.task", ID: id, RootID: id},
		Properties: protocol.Properties{ContentType: protocol.ContentJSON, ContentEncoding: protocol.EncodingUTF8, CorrelationID: id, DeliveryMode: 2},
		Body:       []byte(id),
		RoutingKey: queue,
		Queue:      queue,
	}
}

func (w *world) publish(msgs ...*broker.Message) {
	w.Helper()
	if err := w.conn.Publish(w.ctx, msgs...); err != nil {
		w.Fatalf("publish: %v", err)
	}
}

// send publishes plain messages to a queue.
func (w *world) send(queue string, ids ...string) {
	w.Helper()
	msgs := make([]*broker.Message, len(ids))
	for i, id := range ids {
		msgs[i] = message(queue, id)
	}
	w.publish(msgs...)
}

// claim takes exactly n messages, in as many calls as it needs.
func (w *world) claim(cs broker.Consumer, n int) []*broker.Delivery {
	w.Helper()
	var out []*broker.Delivery
	for len(out) < n {
		ds, err := cs.Claim(w.ctx, n-len(out))
		if err != nil {
			w.Fatalf("claim with %d of %d there: %v", len(out), n, err)
		}
		if len(ds) == 0 || len(ds) > n-len(out) {
			w.Fatalf("claim of at most %d gave %d", n-len(out), len(ds))
		}
		for i := range ds {
			out = append(out, &ds[i])
		}
	}
	return out
}

func (w *world) claimOne(cs broker.Consumer) *broker.Delivery {
	w.Helper()
	return w.claim(cs, 1)[0]
}

// expect claims one message for each id, in order.
func (w *world) expect(cs broker.Consumer, ids ...string) []*broker.Delivery {
	w.Helper()
	ds := w.claim(cs, len(ids))
	if got := bodies(ds); !slices.Equal(got, ids) {
		w.Fatalf("claimed %v, want %v", got, ids)
	}
	return ds
}

// nothing checks that no message comes.
func (w *world) nothing(cs broker.Consumer) {
	w.Helper()
	ctx, cancel := context.WithTimeout(w.ctx, silence)
	defer cancel()
	ds, err := cs.Claim(ctx, 8)
	if len(ds) > 0 {
		w.Fatalf("claimed %q, want nothing", bodies(pointers(ds)))
	}
	if !errors.Is(err, context.DeadlineExceeded) {
		w.Fatalf("claim of nothing: %v, want the context's end", err)
	}
}

func (w *world) settle(cs broker.Consumer, a broker.Action, ds ...*broker.Delivery) {
	w.Helper()
	sts := make([]broker.Settlement, len(ds))
	for i, d := range ds {
		sts[i] = broker.Settlement{Delivery: d, Action: a, Reason: "suite"}
	}
	if err := cs.Settle(w.ctx, sts...); err != nil {
		w.Fatalf("%v: %v", a, err)
	}
}

func (w *world) ack(cs broker.Consumer, ds ...*broker.Delivery) {
	w.Helper()
	w.settle(cs, broker.Ack, ds...)
}

func (w *world) lengths(c broker.Conn, queues ...string) map[string]broker.Length {
	w.Helper()
	ls, err := c.(broker.Lengther).Lengths(w.ctx, queues...)
	if err != nil {
		w.Fatalf("lengths: %v", err)
	}
	return ls
}

// wantLength checks one queue where the driver can count.
func (w *world) wantLength(queue string, want broker.Length) {
	w.Helper()
	w.wantLengthBefore(time.Time{}, queue, want)
}

// wantLengthBefore is wantLength for what is so until a time, which may have come
// before the answer on a slow machine. Zero is for ever.
func (w *world) wantLengthBefore(until time.Time, queue string, want broker.Length) {
	w.Helper()
	if !slices.Contains(w.has, Lengths) {
		return
	}
	got := w.lengths(w.conn, queue)[queue]
	if !until.IsZero() && !time.Now().Before(until.Add(-slack)) {
		return
	}
	for _, n := range [][2]*int{{&got.Claimed, &want.Claimed}, {&got.Delayed, &want.Delayed}, {&got.Dead, &want.Dead}} {
		if *n[0] == broker.Unknown {
			*n[0] = *n[1]
		}
	}
	if got != want {
		w.Errorf("queue %q has %+v, want %+v", queue, got, want)
	}
}

// wantNoOrphan checks that a message which was handed back is not taken for one
// whose holder died, where the driver can tell.
func (w *world) wantNoOrphan(d *broker.Delivery) {
	w.Helper()
	if d.Orphaned && slices.Contains(w.has, Orphans) {
		w.Errorf("%s was handed back, yet it is an orphan", d.Body)
	}
}

// wantLost checks that a settlement was refused because its claim had ended.
func (w *world) wantLost(err error) {
	w.Helper()
	if !errors.Is(err, broker.ErrLeaseLost) {
		w.Errorf("got error %v, want ErrLeaseLost", err)
	}
}

// after runs f on its own and gives a channel with its outcome; the case waits
// for it by [world.wait].
func after[T any](f func() T) <-chan T {
	done := make(chan T, 1)
	go func() { done <- f() }()
	return done
}

func wait[T any](w *world, what string, done <-chan T) (v T) {
	w.Helper()
	select {
	case v = <-done:
	case <-w.ctx.Done():
		w.Fatalf("%s: %v", what, context.Cause(w.ctx))
	}
	return v
}

func bodies(ds []*broker.Delivery) []string {
	out := make([]string, len(ds))
	for i, d := range ds {
		out[i] = string(d.Body)
	}
	return out
}

func pointers(ds []broker.Delivery) []*broker.Delivery {
	out := make([]*broker.Delivery, len(ds))
	for i := range ds {
		out[i] = &ds[i]
	}
	return out
}

// sameJSON compares two JSON texts by value, numbers by their text.
func sameJSON(a, b []byte) bool {
	var x, y any
	return decode(a, &x) == nil && decode(b, &y) == nil && reflect.DeepEqual(x, y)
}

func decode(raw []byte, v any) error {
	d := json.NewDecoder(strings.NewReader(string(raw)))
	d.UseNumber()
	return d.Decode(v)
}
