package lovage_test

import (
	"bytes"
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"reflect"
	"testing"
	"testing/synctest"
	"time"

	"github.com/lovage-go/lovage"
	"github.com/lovage-go/lovage/broker"
	"github.com/lovage-go/lovage/serializer"
)

// golden is one message that Celery's client sent.
type golden struct {
	Call       string          `json:"python_call"`
	Headers    map[string]any  `json:"headers"`
	Properties map[string]any  `json:"properties"`
	Type       string          `json:"content-type"`
	Encoding   string          `json:"content-encoding"`
	Body       json.RawMessage `json:"body"`
}

func readGolden(t testing.TB, name string) golden {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("testdata", "messages", name+".json"))
	if err != nil {
		t.Fatal(err)
	}
	var g golden
	if err := json.Unmarshal(text, &g); err != nil {
		t.Fatal(err)
	}
	return g
}

type twoArgs struct{ X, Y int }

// goldenCase is the Go call that equals a Python call.
type goldenCase struct {
	name         string
	task         string // demo.tasks.add unless given
	args         lovage.Args
	opts         []lovage.CallOption
	cfg          lovage.Config
	typed        bool          // by the typed handle, with x=2, y=3
	eta, expires time.Duration // relative times, which the recording cannot give
}

func TestMessagesEqualCelerys(t *testing.T) {
	t.Parallel()
	mul := lovage.Remote[twoArgs, int](nil, "demo.tasks.mul")
	ident := lovage.Remote[any, any](nil, "demo.tasks.ident")
	onError := lovage.Remote[string, any](nil, "demo.tasks.on_error")
	x200 := string(bytes.Repeat([]byte("x"), 200))
	paris := time.FixedZone("", -3*3600)
	numbers := make([]any, 500)
	for i := range numbers {
		numbers[i] = i
	}
	echo := "demo.tasks.echo"
	for _, c := range []goldenCase{
		{name: "args_and_kwargs", task: echo, args: lovage.Args{Positional: []any{1, "two"}, Keyword: map[string]any{"three": 3}}},
		{name: "argsrepr", typed: true, opts: []lovage.CallOption{lovage.ArgsRepr("(<hidden>, 3)"), lovage.KwargsRepr("{<hidden>}")}},
		{name: "argsrepr_truncated_long", task: echo, args: lovage.Args{
			Positional: []any{string(bytes.Repeat([]byte("x"), 3000)), numbers}, Keyword: map[string]any{"key": string(bytes.Repeat([]byte("y"), 3000))}}},
		{name: "compression_zlib", task: echo, args: lovage.Args{Positional: []any{x200}}, opts: []lovage.CallOption{lovage.Compression("zlib")}},
		{name: "countdown", typed: true, opts: []lovage.CallOption{lovage.Countdown(90 * time.Second)}, eta: 90 * time.Second},
		{name: "countdown_zero", typed: true, opts: []lovage.CallOption{lovage.Countdown(0)}},
		{name: "custom_headers", typed: true, opts: []lovage.CallOption{lovage.Headers(map[string]any{
			"x-tenant": "acme", "n": 7, "neg": -1, "f": 1.5, "b": true, "none": nil, "list": []any{1, "a"},
			"map": map[string]any{"k": "v"}, "big": 1 << 40})}},
		{name: "delivery_mode_transient", typed: true, opts: []lovage.CallOption{lovage.DeliveryMode(1)}},
		{name: "default_delivery_mode_transient", typed: true, cfg: lovage.Config{TaskDefaultDeliveryMode: 1}},
		{name: "default_priority", typed: true, cfg: lovage.Config{TaskDefaultPriority: new(5)}},
		{name: "eta_utc", typed: true, opts: []lovage.CallOption{lovage.ETA(time.Date(2030, 1, 2, 3, 4, 5, 678901000, time.UTC))}},
		{name: "expires_seconds", typed: true, opts: []lovage.CallOption{lovage.Expires(2 * time.Minute)}, expires: 2 * time.Minute},
		{name: "expires_in_the_past", typed: true, opts: []lovage.CallOption{lovage.Expires(-5 * time.Second)}, expires: -5 * time.Second},
		{name: "ignore_result", typed: true, opts: []lovage.CallOption{lovage.IgnoreResult(true)}},
		{name: "kwargs", task: echo, args: lovage.Args{Keyword: map[string]any{"a": 1, "b": []any{1, 2.5, nil, true}, "c": map[string]any{"nested": "x"}}}},
		{name: "link_error", typed: true, opts: []lovage.CallOption{lovage.LinkError(onError.After())}},
		{name: "link_list_immutable", typed: true, opts: []lovage.CallOption{lovage.Link(mul.After(twoArgs{Y: 10}), mul.S(twoArgs{1, 2})),
			lovage.Link(ident.After().With(lovage.Queue("other"), lovage.Priority(5), lovage.Countdown(5*time.Second)))}},
		{name: "no_args", task: "demo.tasks.info"},
		{name: "priority_5", typed: true, opts: []lovage.CallOption{lovage.Priority(5)}},
		{name: "protocol1_plain", typed: true, cfg: lovage.Config{TaskProtocol: 1}},
		{name: "protocol1_options", args: lovage.Args{Positional: []any{2}, Keyword: map[string]any{"y": 3}}, cfg: lovage.Config{TaskProtocol: 1},
			opts: []lovage.CallOption{lovage.Countdown(time.Minute), lovage.Expires(2 * time.Minute), lovage.TimeLimit(30 * time.Second), lovage.SoftTimeLimit(20 * time.Second),
				lovage.Link(mul.After(twoArgs{Y: 2})), lovage.LinkError(onError.After()), lovage.Retries(1)},
			eta: time.Minute, expires: 2 * time.Minute},
		{name: "queue_named", typed: true, opts: []lovage.CallOption{lovage.Queue("other")}},
		{name: "retries_option", typed: true, opts: []lovage.CallOption{lovage.Retries(2)}},
		{name: "routing_key_only", typed: true, opts: []lovage.CallOption{lovage.RoutingKey("celery")}},
		{name: "send_task_by_name", args: lovage.Args{Positional: []any{2, 3}}},
		{name: "shadow", typed: true, opts: []lovage.CallOption{lovage.Shadow("billing.invoice")}},
		{name: "signature_options", args: lovage.Args{Positional: []any{2}, Keyword: map[string]any{"y": 3}},
			opts: []lovage.CallOption{lovage.Countdown(3 * time.Second), lovage.Queue("other"), lovage.Priority(4), lovage.Shadow("nick")}, eta: 3 * time.Second},
		{name: "task_id_given", typed: true, opts: []lovage.CallOption{lovage.TaskID("11111111-2222-3333-4444-555555555555")}},
		{name: "task_routes", typed: true, cfg: lovage.Config{TaskRoutes: []lovage.Route{{Pattern: "demo.tasks.*", Queue: "routed", Priority: new(3)}}}},
		{name: "time_limit_hard_only_float", typed: true, opts: []lovage.CallOption{lovage.TimeLimit(30500 * time.Millisecond)}},
		{name: "time_limits", typed: true, opts: []lovage.CallOption{lovage.TimeLimit(30 * time.Second), lovage.SoftTimeLimit(20 * time.Second)}},
		{name: "unicode", task: echo, args: lovage.Args{Positional: []any{"héllo wörld", "日本語", "😀"}, Keyword: map[string]any{"kéy": "привет"}}},
		{name: "json_datetime", task: echo, args: lovage.Args{Positional: []any{
			json.RawMessage(`{"__type__": "datetime", "__value__": "2024-02-29T12:30:45.123456"}`),
			time.Date(2024, 2, 29, 12, 30, 45, 0, time.UTC), time.Date(2024, 2, 29, 12, 30, 45, 0, paris)}}},
		{name: "json_bytes", task: echo, args: lovage.Args{Positional: []any{[]byte("utf8 hé"), []byte{0xff, 0, 1}, []byte{}}}},
		{name: "timezone_paris_countdown", typed: true, cfg: lovage.Config{Timezone: "Europe/Paris"}, eta: time.Minute, expires: 2 * time.Minute,
			opts: []lovage.CallOption{lovage.Countdown(time.Minute), lovage.Expires(2 * time.Minute)}},
		{name: "enable_utc_false_countdown", typed: true, cfg: lovage.Config{Timezone: "Europe/Paris", EnableUTC: new(false)}, eta: time.Minute, expires: 2 * time.Minute,
			opts: []lovage.CallOption{lovage.Countdown(time.Minute), lovage.Expires(2 * time.Minute)}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) { compareWithGolden(t, c) })
		})
	}
}

func compareWithGolden(t *testing.T, c goldenCase) {
	g := readGolden(t, c.name)
	w := newWorld(t, c.cfg)
	if c.task == "" {
		c.task = "demo.tasks.add"
	}
	lovage.Remote[twoArgs, int](w.app, "demo.tasks.mul")
	typed := lovage.Remote[twoArgs, int](w.app, "demo.tasks.add")
	now := time.Now()
	var err error
	if c.typed {
		_, err = typed.Delay(w.ctx(), twoArgs{2, 3}, c.opts...)
	} else {
		_, err = w.app.Send(w.ctx(), c.task, c.args, c.opts...)
	}
	if err != nil {
		t.Fatal(err)
	}
	info := g.Properties["delivery_info"].(map[string]any)
	d := peek(t, w, info["routing_key"].(string))
	equal(t, "exchange", d.Exchange, info["exchange"].(string))
	equal(t, "routing key", d.RoutingKey, info["routing_key"].(string))
	equal(t, "content type", d.Properties.ContentType, g.Type)
	equal(t, "content encoding", d.Properties.ContentEncoding, g.Encoding)
	equal(t, "delivery mode", float64(d.Properties.DeliveryMode), g.Properties["delivery_mode"].(float64))
	if ms, ok := g.Properties["expiration"]; ok != d.Properties.HasExpiration || ok && ms != json.Number(jsonText(t, d.Properties.Expiration.Milliseconds())).String() {
		t.Errorf("expiration %v, want %v", d.Properties.Expiration, ms)
	}
	priority := 0.0 // kombu writes 0 on Redis where none was given
	if d.Properties.Priority != nil {
		priority = float64(*d.Properties.Priority)
	}
	equal(t, "priority", priority, g.Properties["priority"].(float64))

	headers := parse(t, d.Headers).(map[string]any)
	body := d.Body
	if mime, ok := headers["compression"]; ok {
		body = must[[]byte](t)(serializer.Decompress(mime.(string), body, 1<<20))
	}
	gotBody, wantBody := parse(t, body), parse(t, g.Body)
	times := headers
	if v1, ok := gotBody.(map[string]any); ok {
		times = v1
	}
	id := d.Properties.CorrelationID
	if times["id"] != id || c.cfg.TaskProtocol != 1 && headers["root_id"] != id {
		t.Errorf("ids are %v and %v, correlation id %s", times["id"], headers["root_id"], id)
	}
	zone := "+00:00"
	if c.cfg.EnableUTC != nil {
		zone = "+01:00"
	}
	loc := must[time.Time](t)(time.Parse("-07:00", zone)).Location()
	for key, offset := range map[string]time.Duration{"eta": c.eta, "expires": c.expires} {
		if offset != 0 {
			want := now.Add(offset).In(loc).Format("2006-01-02T15:04:05-07:00")
			equal(t, key, times[key], any(want))
			times[key] = "relative"
		}
	}
	if want, ok := wantBody.(map[string]any); ok {
		normalize(want, c)
		normalize(gotBody.(map[string]any), c)
	} else {
		normalize(headers, c)
		normalize(g.Headers, c)
	}
	linksByName(wantBody)
	same(t, "headers", headers, g.Headers)
	same(t, "body", gotBody, wantBody)
}

// normalize takes out what differs from run to run.
func normalize(m map[string]any, c goldenCase) {
	for _, k := range []string{"id", "root_id", "origin", "lang"} {
		delete(m, k)
	}
	if c.eta != 0 {
		m["eta"] = "relative"
	}
	if c.expires != 0 {
		m["expires"] = "relative"
	}
}

// linksByName writes mul.s(10) as Go does: the open parameters travel by name,
// so that a result put before them moves nothing.
func linksByName(v any) {
	switch v := v.(type) {
	case []any:
		for _, e := range v {
			linksByName(e)
		}
	case map[string]any:
		if args, ok := v["args"].([]any); ok && v["task"] == "demo.tasks.mul" && v["immutable"] == false {
			v["args"], v["kwargs"] = []any{}, map[string]any{"y": args[0]}
		}
		for _, e := range v {
			linksByName(e)
		}
	}
}

func same(t *testing.T, what string, got, want any) {
	t.Helper()
	if reflect.DeepEqual(got, want) {
		return
	}
	g, ok1 := got.(map[string]any)
	w, ok2 := want.(map[string]any)
	if !ok1 || !ok2 {
		t.Errorf("%s: got\n%s\nwant\n%s", what, jsonText(t, got), jsonText(t, want))
		return
	}
	for k := range w {
		same(t, what+"."+k, g[k], w[k])
	}
	for k := range g {
		if _, ok := w[k]; !ok {
			t.Errorf("%s.%s: got %v, want nothing", what, k, g[k])
		}
	}
}

func parse(t testing.TB, text []byte) any {
	t.Helper()
	var v any
	if err := json.Unmarshal(text, &v); err != nil {
		t.Fatalf("%v in %s", err, text)
	}
	return v
}

func jsonText(t testing.TB, v any) string {
	t.Helper()
	return string(must[[]byte](t)(json.Marshal(v)))
}

// peek reads the next message of a queue, delayed ones too, and leaves it.
func peek(t testing.TB, w *world, queue string) broker.Delivery {
	t.Helper()
	conn := must[broker.Conn](t)(w.app.Broker(w.ctx()))
	ds := must[[]broker.Delivery](t)(conn.(broker.Peeker).Peek(context.Background(), queue, 0, 1))
	if len(ds) == 0 {
		t.Fatalf("queue %s is empty", queue)
	}
	return ds[0]
}
