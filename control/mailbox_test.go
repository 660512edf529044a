package control_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/lovage-go/lovage/broker"
	"github.com/lovage-go/lovage/control"
	"github.com/lovage-go/lovage/events"
	"github.com/lovage-go/lovage/memory"
	"github.com/lovage-go/lovage/protocol"
)

// node is a worker that only notes what it is told.
type node struct {
	name  string
	clock events.Clock

	mu   sync.Mutex
	told []string
}

func (n *node) say(format string, a ...any) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.told = append(n.told, fmt.Sprintf(format, a...))
}

func (n *node) heard() []string {
	n.mu.Lock()
	defer n.mu.Unlock()
	return slices.Clone(n.told)
}

func (n *node) Hostname() string                        { return n.name }
func (n *node) Clock() control.Clock                    { return &n.clock }
func (n *node) Revoke(_ context.Context, ids ...string) { n.say("revoke %v", ids) }
func (n *node) Heard(ids ...string)                     { n.say("heard %v", ids) }
func (n *node) Revoked() map[string]time.Time           { return map[string]time.Time{"r1": time.Now()} }
func (n *node) RevokeStamped(stamps map[string][]string, end bool, signal int) map[string][]string {
	n.say("stamped %v %t %d", stamps, end, signal)
	return nil
}
func (n *node) Terminate(_ context.Context, signal int, ids ...string) []string {
	n.say("terminate %v by %d", ids, signal)
	return slices.DeleteFunc(slices.Clone(ids), func(id string) bool { return !strings.HasPrefix(id, "mine") })
}
func (n *node) SetRate(task, rate string, every time.Duration) error {
	n.say("rate %s %s %s", task, rate, every)
	return n.known(task)
}
func (n *node) SetTimeLimits(task string, soft, hard *time.Duration) error {
	n.say("limits %s %v %v", task, soft, hard)
	return n.known(task)
}
func (n *node) known(task string) error {
	if strings.HasSuffix(task, ".nope") {
		return control.ErrUnknownTask
	}
	return nil
}
func (n *node) ResizePool(by int) error {
	n.say("resize %d", by)
	return nil
}
func (n *node) Autoscale(most, least *int) (int, int, error) {
	if most == nil || least == nil {
		return 0, 0, control.ErrNoAutoscaler
	}
	n.say("autoscale %d %d", *most, *least)
	return *most, *least, nil
}
func (n *node) AddConsumer(_ context.Context, q broker.Queue) error {
	n.say("add %s %s %s %s", q.Name, q.Exchange.Name, q.Exchange.Type, q.RoutingKey)
	return nil
}
func (n *node) CancelConsumer(_ context.Context, queue string) error {
	n.say("cancel %s", queue)
	return nil
}
func (n *node) Elect(context.Context, string, string, json.RawMessage) error { return nil }
func (n *node) Shutdown(reason string)                                       { n.say("shutdown %s", reason) }
func (n *node) Active(bool) []control.TaskInfo                               { return nil }
func (n *node) Queues() []broker.Queue                                       { return nil }
func (n *node) SendTaskEvents(bool) bool                                     { return true }
func (n *node) Heartbeat()                                                   { n.say("heartbeat") }
func (n *node) Scheduled(context.Context) ([]control.Scheduled, error)       { return nil, nil }
func (n *node) Settings(bool) map[string]any                                 { return nil }
func (n *node) Report() string                                               { return "report" }
func (n *node) Reserved() []control.TaskInfo                                 { return nil }
func (n *node) Registered() []control.TaskType                               { return nil }
func (n *node) Stats() map[string]any                                        { return map[string]any{} }

// fleet is a broker with nodes on it and a client.
type fleet struct {
	store  *memory.Store
	client *control.Client
	nodes  map[string]*node
	boxes  map[string]*control.Mailbox
	log    bytes.Buffer
}

// in runs a test inside a bubble with nodes that listen, and lets them end.
func in(t *testing.T, names []string, more []control.Command, test func(t *testing.T, f *fleet)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		f := &fleet{store: memory.New(), nodes: map[string]*node{}, boxes: map[string]*control.Mailbox{}}
		conn := f.store.Broker()
		defer conn.Close()
		log := slog.New(slog.NewTextHandler(&f.log, nil))
		commands, err := control.NewRegistry(more...)
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		var running sync.WaitGroup
		for _, name := range names {
			f.nodes[name] = &node{name: name}
			box, err := control.Open(ctx, conn, control.Config{Node: f.nodes[name], Commands: commands, Logger: log})
			if err != nil {
				t.Fatal(err)
			}
			f.boxes[name] = box
			running.Go(func() {
				if err := box.Run(ctx); !errors.Is(err, context.Canceled) {
					t.Errorf("Run: got %v, want the end of its context", err)
				}
				if err := box.Close(); err != nil {
					t.Error(err)
				}
			})
		}
		ids := 0
		f.client = control.NewClient(control.ClientConfig{
			Conn:  func(context.Context) (broker.Conn, error) { return conn, nil },
			Clock: new(events.Clock), NewID: func() string { ids++; return "id" + strconv.Itoa(ids) }, Logger: log,
		})
		test(t, f)
		cancel()
		running.Wait()
	})
}

func names(replies []control.Reply) (list []string) {
	for _, r := range replies {
		list = append(list, r.Node)
	}
	slices.Sort(list)
	return list
}

var both = []string{"celery@worker.example", "w2@worker.example"}

func TestWhoIsMeant(t *testing.T) {
	t.Parallel()
	in(t, both, nil, func(t *testing.T, f *fleet) {
		for _, c := range []struct {
			o    control.Options
			want []string
			took time.Duration
		}{
			{control.Options{}, both, time.Second},
			{control.Options{Timeout: 3 * time.Second}, both, 3 * time.Second},
			{control.Options{Limit: 2}, both, 0},
			{control.Options{Destination: both[:1]}, both[:1], 0},
			{control.Options{Destination: []string{"w2@worker.example", "nobody@x"}}, both[1:], time.Second},
			{control.Options{Pattern: "w2@*"}, both[1:], time.Second},
			{control.Options{Pattern: "w[!3-9]@worker.exampl?"}, both[1:], time.Second},
			{control.Options{Pattern: "*@worker"}, nil, time.Second},
			{control.Options{Pattern: "^celery@.*", Matcher: control.PCRE}, both[:1], time.Second},
			{control.Options{Pattern: "w|celery", Matcher: control.PCRE}, both, time.Second},
			{control.Options{Pattern: "@worker", Matcher: control.PCRE}, nil, time.Second},
		} {
			began := time.Now()
			replies, err := f.client.Ping(t.Context(), c.o)
			if err != nil {
				t.Fatal(err)
			}
			if got := names(replies); !slices.Equal(got, c.want) {
				t.Errorf("%+v: got %v, want %v", c.o, got, c.want)
			}
			if took := time.Since(began); took != c.took {
				t.Errorf("%+v: took %s, want %s", c.o, took, c.took)
			}
			for _, r := range replies {
				if r.OK() != "pong" || r.Err() != nil {
					t.Errorf("reply: got %s, want pong", r.Value)
				}
			}
		}
		for _, o := range []control.Options{{Pattern: "(", Matcher: control.PCRE}, {Pattern: "a", Matcher: "sql"}} {
			if _, err := f.client.Ping(t.Context(), o); err == nil {
				t.Errorf("%+v: got no error", o)
			}
		}
	})
}

// TestRepliesAreCelerys broadcasts what Celery's client sent and wants one of
// the replies that Celery's workers gave.
func TestRepliesAreCelerys(t *testing.T) {
	t.Parallel()
	cases := map[string]bool{}
	for _, name := range strings.Fields(`ping ping_destination ping_pattern_glob ping_pattern_pcre revoke revoke_list terminate_unknown
		terminate_command_direct rate_limit rate_limit_invalid rate_limit_off rate_limit_unknown_task time_limit time_limit_unknown_task
		pool_grow pool_shrink add_consumer add_consumer_topic cancel_consumer reserved unknown_command bad_arguments shutdown revoke_no_reply`) {
		cases[name] = true
	}
	for _, r := range recordings(t) {
		if !cases[r.Name] {
			continue
		}
		delete(cases, r.Name)
		t.Run(r.Name, func(t *testing.T) {
			t.Parallel()
			in(t, both, nil, func(t *testing.T, f *fleet) {
				var q struct {
					Method      string
					Arguments   map[string]any
					Destination []string
					Pattern     string
					Matcher     string
				}
				if err := json.Unmarshal(r.Requests[0].Body, &q); err != nil {
					t.Fatal(err)
				}
				got, err := f.client.Broadcast(t.Context(), q.Method, q.Arguments,
					control.Options{Destination: q.Destination, Pattern: q.Pattern, Matcher: q.Matcher, Reply: len(r.Replies) > 0 || q.Method == "shutdown"})
				if err != nil {
					t.Fatal(err)
				}
				if len(got) != len(r.Replies) {
					t.Fatalf("got %d replies, want %d", len(got), len(r.Replies))
				}
				var want []any
				for _, w := range r.Replies {
					for _, v := range decoded(t, w.Body).(map[string]any) {
						want = append(want, v)
					}
				}
				for _, g := range got {
					if !slices.ContainsFunc(want, func(w any) bool { return reflect.DeepEqual(w, decoded(t, g.Value)) }) {
						t.Errorf("%s: got %s, want one of %v", g.Node, g.Value, want)
					}
				}
			})
		})
	}
	if len(cases) > 0 {
		t.Errorf("not recorded: %v", slices.Collect(maps.Keys(cases)))
	}
}

func TestCallsReachTheNode(t *testing.T) {
	t.Parallel()
	in(t, both[:1], nil, func(t *testing.T, f *fleet) {
		c, ctx, o := f.client, t.Context(), control.Options{Reply: true, Limit: 1}
		for _, call := range []struct {
			do          func() ([]control.Reply, error)
			told, reply string
		}{
			{func() ([]control.Reply, error) { return c.Revoke(ctx, []string{"a", "b", "a"}, o) }, "revoke [a b]", "tasks {'a', 'b'} flagged as revoked"},
			{func() ([]control.Reply, error) { return c.Revoke(ctx, []string{"it's"}, o) }, "revoke [it's]", `tasks {"it's"} flagged as revoked`},
			{func() ([]control.Reply, error) { return c.Terminate(ctx, []string{"mine1", "x", "mine2"}, o) }, "terminate [mine1 x mine2] by 15", "terminate: mine1, mine2"},
			{func() ([]control.Reply, error) { return c.RateLimit(ctx, "t", "100/m", o) }, "rate t 100/m 600ms", "new rate limit set successfully"},
			{func() ([]control.Reply, error) { return c.RateLimit(ctx, "t", "", o) }, "rate t 0 0s", "rate limit disabled successfully"},
			{func() ([]control.Reply, error) { return c.PoolGrow(ctx, 3, o) }, "resize 3", "pool will grow"},
			{func() ([]control.Reply, error) { return c.PoolShrink(ctx, 2, o) }, "resize -2", "pool will shrink"},
			{func() ([]control.Reply, error) { return c.Autoscale(ctx, 5, 2, o) }, "autoscale 5 2", "autoscale now max=5 min=2"},
			{func() ([]control.Reply, error) { return c.AddConsumer(ctx, broker.Queue{Name: "q"}, o) }, "add q   ", "add consumer q"},
			{func() ([]control.Reply, error) {
				return c.AddConsumer(ctx, broker.Queue{Name: "q", Exchange: broker.Exchange{Name: "e", Type: "topic"}, RoutingKey: "a.#"}, o)
			}, "add q e topic a.#", "add consumer q"},
			{func() ([]control.Reply, error) { return c.CancelConsumer(ctx, "q", o) }, "cancel q", "no longer consuming from q"},
		} {
			before := len(f.nodes[both[0]].heard())
			replies, err := call.do()
			if err != nil || len(replies) != 1 {
				t.Fatalf("%s: got %v, %v; want one reply", call.told, replies, err)
			}
			if got := f.nodes[both[0]].heard()[before:]; !slices.Equal(got, []string{call.told}) {
				t.Errorf("the node was told %q, want %q", got, call.told)
			}
			if got := replies[0].OK(); got != call.reply {
				t.Errorf("reply: got %s, want %q", replies[0].Value, call.reply)
			}
		}
		replies, err := c.Inspect(ctx, "hello", map[string]any{"from_node": "other", "revoked": map[string]any{"theirs": 1.5}}, o)
		var hello struct {
			Revoked map[string][2]any
			Clock   int64
		}
		if err != nil || len(replies) != 1 || replies[0].Decode(&hello) != nil || hello.Revoked["r1"][1] != "r1" || hello.Clock == 0 {
			t.Errorf("hello: got %v, %v; want the revoked ids and the clock", replies, err)
		}
		if at := string(replies[0].Value); !strings.Contains(at, ".") {
			t.Errorf("hello: got %s, want the time as a float: Python refuses an int", at)
		}
		if told := f.nodes[both[0]].heard(); told[len(told)-1] != "heard [theirs]" {
			t.Errorf("hello: the node was told %q last, want what the other had revoked", told[len(told)-1])
		}
	})
}

func TestBadRequestsCostNothing(t *testing.T) {
	t.Parallel()
	boom := control.Command{Name: "boom", Run: func(context.Context, control.Node, control.Args) (any, error) { panic("boom") }}
	odd := control.Command{Name: "odd", Run: func(context.Context, control.Node, control.Args) (any, error) { return make(chan int), nil }}
	in(t, both[:1], []control.Command{boom, odd}, func(t *testing.T, f *fleet) {
		conn := f.store.Broker()
		defer conn.Close()
		for _, m := range []*broker.Message{
			{Body: []byte(`{`)},
			{Body: []byte(`{"method": "ping", "pattern": "(", "matcher": "pcre"}`)},
			{Body: []byte(`{"method": "ping", "pattern": "a", "matcher": "sql"}`)},
			{Body: []byte(`x`), Properties: protocol.Properties{ContentType: protocol.ContentPickle}},
		} {
			if err := conn.Broadcast(t.Context(), "celery.pidbox", m); err != nil {
				t.Fatal(err)
			}
		}
		o := control.Options{Limit: 1}
		for method, want := range map[string]string{
			"boom": "RuntimeError('boom panicked: boom')",
			"odd":  "RuntimeError('the reply cannot be encoded: json: unsupported type: chan int')",
		} {
			replies, err := f.client.Inspect(t.Context(), method, nil, o)
			if err != nil || len(replies) != 1 || replies[0].Err() == nil || !strings.HasSuffix(replies[0].Err().Error(), ": "+want) {
				t.Errorf("%s: got %v, %v; want %s", method, replies, err, want)
			}
		}
		for method, args := range map[string]map[string]any{
			"revoke":      {"task_id": map[string]any{"a": 1}},
			"pool_grow":   {"n": "three"},
			"pool_shrink": {"n": -1},
			"rate_limit":  {"task_name": "t", "rate_limit": "x/s"},
			"time_limit":  {"task_name": "t", "soft": -1},
		} {
			replies, err := f.client.Inspect(t.Context(), method, args, o)
			if err != nil || len(replies) != 1 || replies[0].Err() == nil {
				t.Errorf("%s %v: got %v, %v; want an error reply", method, args, replies, err)
			}
		}
		if told := f.nodes[both[0]].heard(); len(told) > 0 {
			t.Errorf("the node was told %q, want nothing", told)
		}
		if box := f.boxes[both[0]]; box.Malformed() != 4 || box.Handled() != 7 {
			t.Errorf("got %d malformed and %d handled requests, want 4 and 7", box.Malformed(), box.Handled())
		}
		if replies, err := f.client.Ping(t.Context(), o); err != nil || len(replies) != 1 {
			t.Errorf("ping at the end: got %v, %v; want one reply", replies, err)
		}
	})
}
