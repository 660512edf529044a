package worker_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/lovage-go/lovage"
	"github.com/lovage-go/lovage/broker"
	"github.com/lovage-go/lovage/protocol"
	"github.com/lovage-go/lovage/worker"
)

// exchanged is a recorded exchange of real Celery processes.
type exchanged struct {
	Name     string
	Requests []wireText
	Replies  []map[string]json.RawMessage // node: value
}

type wireText struct{ Headers, Body json.RawMessage }

func recordedExchanges(t *testing.T) (list []exchanged) {
	t.Helper()
	files, err := filepath.Glob("../control/testdata/golden/*.json")
	if err != nil || len(files) != 63 {
		t.Fatalf("golden files: got %d (%v), want 63", len(files), err)
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		var f struct {
			Requests []struct{ Raw string }
			Replies  []struct {
				Decoded map[string]json.RawMessage `json:"body_decoded"`
			}
		}
		if err := json.Unmarshal(text, &f); err != nil {
			t.Fatalf("%s: %v", file, err)
		}
		x := exchanged{Name: strings.TrimSuffix(filepath.Base(file), ".json")}
		for _, r := range f.Requests {
			var e struct {
				Body    []byte
				Headers json.RawMessage
			}
			if err := json.Unmarshal([]byte(r.Raw), &e); err != nil {
				t.Fatalf("%s: %v", file, err)
			}
			x.Requests = append(x.Requests, wireText{e.Headers, e.Body})
		}
		for _, r := range f.Replies {
			x.Replies = append(x.Replies, r.Decoded)
		}
		list = append(list, x)
	}
	return list
}

// send broadcasts a recorded request as it was sent, and returns the reply of
// the world's worker.
func (x *world) replay(w wireText) (json.RawMessage, bool) {
	x.t.Helper()
	conn := x.store.Broker()
	defer conn.Close()
	var q struct {
		ReplyTo *struct {
			Exchange   string
			RoutingKey string `json:"routing_key"`
		} `json:"reply_to"`
		Ticket *string
	}
	if err := json.Unmarshal(w.Body, &q); err != nil {
		x.t.Fatal(err)
	}
	var headers map[string]json.RawMessage
	if err := json.Unmarshal(w.Headers, &headers); err != nil {
		x.t.Fatal(err)
	}
	var l broker.Listener
	if q.ReplyTo != nil {
		var err error
		if l, err = conn.Listen(context.Background(), q.ReplyTo.Exchange, q.ReplyTo.RoutingKey); err != nil {
			x.t.Fatal(err)
		}
		defer l.Close()
	}
	err := conn.Broadcast(context.Background(), "celery.pidbox", &broker.Message{
		Headers: protocol.Headers{Extra: headers}, Body: w.Body,
		Properties: protocol.Properties{ContentType: protocol.ContentJSON, ContentEncoding: protocol.EncodingUTF8},
	})
	if err != nil {
		x.t.Fatal(err)
	}
	if l == nil {
		pause(time.Second)
		return nil, false
	}
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Second)
	defer cancel()
	d, err := l.Next(ctx)
	if errors.Is(err, context.DeadlineExceeded) {
		return nil, false
	}
	if err != nil {
		x.t.Fatal(err)
	}
	var reply map[string]json.RawMessage
	var h struct {
		Ticket string
		Clock  int64
	}
	if err := errors.Join(json.Unmarshal(d.Body, &reply), json.Unmarshal(d.Headers, &h)); err != nil {
		x.t.Fatal(err)
	}
	if h.Ticket != *q.Ticket || h.Clock == 0 || len(reply) != 1 {
		x.t.Errorf("got ticket %q, clock %d, %d nodes; want %q, a clock, one node", h.Ticket, h.Clock, len(reply), *q.Ticket)
	}
	value, ok := reply[x.w.Hostname()]
	return value, ok
}

// The nodes of the recordings.
const first, second = "celery@worker.example", "w2@worker.example"

// demo registers the tasks of the recordings.
func demo(app *lovage.App) (nap, add *lovage.Handle[lovage.Args, any]) {
	none := func(context.Context, lovage.Args) (any, error) { return nil, nil }
	for _, name := range strings.Fields("auto die echo fail fail_cause fail_custom fail_kwonly fail_local fail_unserialisable flaky grow_chord hardly ident ignored ignoring ignoring_fail info meta_failure mul on_error on_error_old progress rejected replace_chain replace_group replace_me send_custom_event softly spawn started_nap unserialisable_result values xsum") {
		lovage.Func(app, "demo.tasks."+name, none)
	}
	lovage.Func(app, "demo.tasks.limited", none, lovage.RateLimit("10/m"))
	lovage.Func(app, "demo.tasks.retry_exhausted", none, lovage.MaxRetries(1))
	lovage.Func(app, "demo.tasks.retry_exhausted_noexc", none, lovage.MaxRetries(0))
	add = lovage.Func(app, "demo.tasks.add", none)
	nap = lovage.Func(app, "demo.tasks.nap", func(ctx context.Context, _ lovage.Args) (any, error) {
		select {
		case <-time.After(30 * time.Second):
		case <-ctx.Done():
		}
		return nil, context.Cause(ctx)
	}, lovage.AcksLate(false))
	return nap, add
}

// notOurs are the replies that this worker has no counterpart of, with what it
// answers instead.
var notOurs = map[string]string{
	// Goroutines are not restarted, and modules are not loaded again.
	"pool_restart/" + first: `{"error": "ValueError('Pool restarts not enabled')"}`,
}

// lacking are keys of Celery's that mean nothing here, and kinds that differ.
var lacking = map[string]string{
	"stats.pool.writes":                        "pipes to child processes",
	"stats.broker.credential_provider":         "connections take a URL",
	"conf.result_expires":                      "Celery tells its timedelta as a text, we tell the seconds",
	"conf.task_cls":                            "Celery honours it and does not list it",
	"conf.worker_pidfile":                      "likewise",
	"conf.worker_logfile":                      "likewise",
	"conf.worker_uid":                          "likewise",
	"conf.worker_gid":                          "likewise",
	"conf.worker_umask":                        "likewise",
	"conf.redis_client_name":                   "likewise",
	"conf.redis_backend_health_check_interval": "likewise",
	"conf.worker_revokes_max":                  "in Celery an environment variable",
	"conf.worker_revoke_expires":               "likewise",
}

// beyond are keys of ours that Celery does not have.
var beyond = map[string]string{
	"stats.pool.stuck": "runs that go on past their hard limit: Celery kills a process",
}

// sameShape holds a value against a recorded one: the same keys, with the same
// types; null is of any type.
func sameShape(path string, got, want any, complain func(format string, a ...any)) {
	switch w := want.(type) {
	case nil:
		return
	case map[string]any:
		g, ok := got.(map[string]any)
		if !ok {
			complain("%s: got %v, want an object", path, got)
			return
		}
		for key := range g {
			if _, ok := w[key]; !ok && beyond[path+"."+key] == "" {
				complain("%s.%s: Celery has no such key", path, key)
			}
		}
		for key, v := range w {
			if _, reason := lacking[path+"."+key]; reason {
				continue
			}
			if _, ok := g[key]; !ok {
				complain("%s.%s: Celery's key is not there", path, key)
				continue
			}
			sameShape(path+"."+key, g[key], v, complain)
		}
	case []any:
		g, ok := got.([]any)
		if !ok || (len(g) == 0) != (len(w) == 0) {
			complain("%s: got %v, want a list like %v", path, got, want)
			return
		}
		if len(g) > 0 {
			sameShape(path+"[]", g[0], w[0], complain)
		}
	default:
		if got != nil && reflect.TypeOf(got) != reflect.TypeOf(want) {
			complain("%s: got %v, want a %T", path, got, want)
		}
	}
}

func TestGoldenCommands(t *testing.T) {
	t.Parallel()
	requests, replies := 0, 0
	for _, e := range recordedExchanges(t) {
		// Each node of the recording in a world of its own; without replies, both.
		nodes := map[string]json.RawMessage{}
		for _, r := range e.Replies {
			for node, value := range r {
				nodes[node] = value
			}
		}
		if len(nodes) == 0 {
			nodes[first], nodes[second] = nil, nil
		}
		requests += len(e.Requests)
		replies += len(e.Replies)
		for node, value := range nodes {
			t.Run(e.Name+"/"+node, func(t *testing.T) {
				t.Parallel()
				goldenCommand(t, e, node, value)
			})
		}
	}
	if requests < 63 || replies < 90 {
		t.Errorf("replayed %d requests for %d replies, want at least 63 and 90", requests, replies)
	}
}

func goldenCommand(t *testing.T, e exchanged, node string, reply json.RawMessage) {
	var nap, add *lovage.Handle[lovage.Args, any]
	var scale worker.Autoscale
	if node == first { // as it was recorded
		scale = worker.Autoscale{Max: 3, Min: 1}
	}
	in(t, setup{
		conn: func(c broker.Conn) broker.Conn { return c },
		conf: lovage.Config{BrokerURL: "redis://:secret@127.0.0.1:36400/6", ResultBackend: "redis://127.0.0.1:36400/7"},
		cfg:  worker.Config{Hostname: node, Concurrency: 1, Autoscale: scale, WithoutMingle: true}, tasks: func(app *lovage.App) { nap, add = demo(app) },
	}, func(x *world) {
		var body struct {
			Method    string
			Arguments map[string]json.RawMessage
		}
		if err := json.Unmarshal(e.Requests[0].Body, &body); err != nil {
			x.t.Fatal(err)
		}
		arrange(x, e.Name, node, body.Arguments, reply, nap, add)
		var got json.RawMessage
		answered := false
		for _, q := range e.Requests {
			got, answered = x.replay(q)
		}
		if other, exempt := notOurs[e.Name+"/"+node]; exempt {
			reply = json.RawMessage(other)
		}
		if answered != (reply != nil) {
			x.t.Fatalf("answered: %t (%s), want %s", answered, got, reply)
		}
		if reply != nil {
			judge(x, e.Name, got, reply)
		}
		if body.Method == "shutdown" && (e.Name == "shutdown" || node == second) {
			if err := <-x.ended; err != nil {
				x.t.Errorf("Run: %v", err)
			}
			x.cancel()
			x.cancel = nil
			return
		}
		replies, err := x.app.Control().Ping(context.Background(), one) // whatever it was, the worker lives
		want(x, ask(x, replies, err), "pong")
	})
}

// arrange brings about what the recording began with.
func arrange(x *world, name, node string, args map[string]json.RawMessage, want json.RawMessage, nap, add *lovage.Handle[lovage.Args, any]) {
	x.t.Helper()
	texts := func(key string) (list []string) {
		if json.Unmarshal(args[key], &list) != nil {
			var one string
			if json.Unmarshal(args[key], &one) == nil {
				list = []string{one}
			}
		}
		return list
	}
	run := func(id string, opts ...lovage.CallOption) {
		delay(x, nap, lovage.Args{Positional: []any{4}}, append(opts, lovage.TaskID(id))...)
		pause(time.Millisecond)
	}
	control, ctx := x.app.Control(), context.Background()
	switch name {
	case "active", "active_safe":
		if node == first {
			run("ab2559da-a04b-465f-8031-6999f9d7a436", lovage.Shadow("nick"))
		}
	case "query_task":
		if node == first {
			run(texts("ids")[0], lovage.Shadow("nick"))
		}
	case "reserved_busy":
		if node == second {
			run("a")
			run("b")
		}
	case "scheduled":
		if node == first {
			delay(x, add, lovage.Args{Positional: []any{2, 3}}, lovage.Countdown(40*time.Second))
		}
	case "revoke_terminate", "terminate":
		if strings.Contains(string(want), texts("task_id")[0]) {
			run(texts("task_id")[0])
		}
	case "revoke_by_stamped_headers_terminate":
		if node == first {
			h := `{"lang": "py", "task": "demo.tasks.nap", "id": "s1", "root_id": "s1", "stamped_headers": ["order"], "stamps": {"order": ["o1"]}}`
			stamped(x, h)
		}
	case "active_queues_after_add":
		for _, q := range []broker.Queue{{Name: "extra"}, {Name: "extra2", Exchange: broker.Exchange{Name: "extra.topic", Type: "topic"}, RoutingKey: "media.#"}} {
			if q.Name == "extra" || node == first {
				replies, err := control.AddConsumer(ctx, q, one)
				ask(x, replies, err)
			}
		}
	case "pool_shrink":
		replies, err := control.PoolGrow(ctx, 1, one)
		ask(x, replies, err)
	case "enable_events_again", "disable_events":
		replies, err := control.EnableEvents(ctx, one)
		ask(x, replies, err)
	case "revoked":
		for _, id := range []string{"77777777-0000-4000-8000-000000000001", "613b6db2-9ca6-4320-adc8-e4cdc5a74fd1", "77777777-0000-4000-8000-000000000002",
			"77777777-0000-4000-8000-000000000003", "77777777-0000-4000-8000-000000000004"} {
			replies, err := control.Revoke(ctx, []string{id}, one)
			ask(x, replies, err)
			pause(time.Millisecond)
		}
	}
}

// stamped sends a message as a Python client that stamps would.
func stamped(x *world, headers string) {
	x.t.Helper()
	h, err := protocol.ParseHeaders([]byte(headers))
	if err != nil {
		x.t.Fatal(err)
	}
	conn := x.store.Broker()
	defer conn.Close()
	err = conn.Publish(context.Background(), &broker.Message{Headers: h, Body: []byte(`[[8], {}, {}]`), Queue: "celery", RoutingKey: "celery",
		Properties: protocol.Properties{ContentType: protocol.ContentJSON, ContentEncoding: protocol.EncodingUTF8}})
	if err != nil {
		x.t.Fatal(err)
	}
	pause(time.Millisecond)
}

// judge compares a reply with the recorded one: most are the same; of the others
// the shape is.
func judge(x *world, name string, got, want json.RawMessage) {
	x.t.Helper()
	var g, w any
	if err := errors.Join(json.Unmarshal(got, &g), json.Unmarshal(want, &w)); err != nil {
		x.t.Fatalf("%s: %v", got, err)
	}
	switch name {
	case "active", "active_safe", "query_task", "reserved_busy", "scheduled", "stats":
		sameShape(name, g, w, x.t.Errorf)
		if name == "active_safe" || name == "active" {
			g, w := g.([]any), w.([]any)
			if len(w) > 0 && !reflect.DeepEqual(g[0].(map[string]any)["args"], w[0].(map[string]any)["args"]) {
				x.t.Errorf("args: got %v, want %v", g, w)
			}
		}
	case "clock", "mingle_hello_between_workers", "hello":
		sameShape(name, g, w, x.t.Errorf)
		if name == "hello" && !strings.Contains(string(got), "77777777-0000-4000-8000-000000000001") {
			x.t.Errorf("hello: got %s, want the revoked id that was told", got)
		}
	case "revoked":
		if !reflect.DeepEqual(sortedList(g), sortedList(w)) {
			x.t.Errorf("got %s, want the ids of %s", got, want)
		}
	case "memsample":
		if pattern := regexp.MustCompile(`^"\d+\.\d{3}MB"$`); !pattern.Match(got) || !pattern.Match(want) {
			x.t.Errorf("got %s, want a text as %s", got, want)
		}
	case "report":
		for _, part := range []string{`{"ok":"\nsoftware -> `, `\nplatform -> system:`, `\nsettings -> transport:`, `\nbroker_url: `} {
			if !strings.Contains(string(got), part) {
				x.t.Errorf("got %s, want %s in it as in %s", got, part, want)
			}
		}
		if strings.Contains(string(got), "secret") {
			x.t.Errorf("the password is told: %s", got)
		}
	case "conf", "conf_with_defaults":
		judgeSettings(x, name, g.(map[string]any), w.(map[string]any))
	case "revoke_list": // a set has no order
		sort := func(raw json.RawMessage) string { b := []byte(raw); slices.Sort(b); return string(b) }
		if sort(json.RawMessage(fmt.Sprint(g))) != sort(json.RawMessage(fmt.Sprint(w))) {
			x.t.Errorf("got %s, want %s", got, want)
		}
	default:
		if !reflect.DeepEqual(g, w) {
			x.t.Errorf("got %s, want %s", got, want)
		}
	}
}

func sortedList(v any) []string {
	var out []string
	for _, item := range v.([]any) {
		out = append(out, item.(string))
	}
	slices.Sort(out)
	return out
}

// judgeSettings wants Celery's names, types and masks for the settings that both
// have; the names that are ours are marked so in the table.
func judgeSettings(x *world, name string, got, want map[string]any) {
	x.t.Helper()
	ours := map[string]bool{}
	conf := lovage.Config{}
	for _, row := range conf.Table(true) {
		ours[row.Name] = row.Ours
	}
	for key, v := range got {
		w, known := want[key]
		if _, reason := lacking["conf."+key]; reason {
			continue
		}
		if !known && name == "conf_with_defaults" && !ours[key] {
			x.t.Errorf("%s: Celery knows no such setting", key)
		}
		if _, list := w.([]any); known && v != nil && w != nil && !list {
			sameShape(key, v, w, x.t.Errorf)
		}
	}
	stars := regexp.MustCompile(`\*+`)
	if stars.ReplaceAllString(got["broker_url"].(string), "**") != stars.ReplaceAllString(want["broker_url"].(string), "**") || got["result_backend"] != want["result_backend"] {
		x.t.Errorf("URLs: got %v and %v, want %v and %v", got["broker_url"], got["result_backend"], want["broker_url"], want["result_backend"])
	}
	if name == "conf_with_defaults" && (len(got) < 60 || got["task_default_queue"] != "celery") {
		x.t.Errorf("got %d settings: %v", len(got), got)
	}
}
