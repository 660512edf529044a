package lovage_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/lovage-go/lovage"
	"github.com/lovage-go/lovage/broker"
	"github.com/lovage-go/lovage/protocol"
	"github.com/lovage-go/lovage/serializer"
)

func delivery(headers, body string) *broker.Delivery {
	return &broker.Delivery{Headers: []byte(headers), Body: []byte(body), Queue: "celery",
		Properties: protocol.Properties{ContentType: "application/json", ContentEncoding: "utf-8"}}
}

const (
	goodHeaders = `{"lang": "py", "task": "t.add", "id": "id"}`
	goodBody    = `[[1], {}, {"callbacks": null, "errbacks": null, "chain": null, "chord": null}]`
)

func TestReceiveRefuses(t *testing.T) {
	t.Parallel()
	app := newWorld(t, lovage.Config{TaskMaxMessageSize: 10_000}).app
	bomb := string(must[[]byte](t)(serializer.Compress("zlib", []byte(`[["`+strings.Repeat("a", 1<<20)+`"], {}, {}]`))))
	for name, c := range map[string]struct {
		d    *broker.Delivery
		kind string
		text string
	}{
		"Envelope":        {&broker.Delivery{Malformed: errors.New("no JSON")}, lovage.Malformed, "no JSON"},
		"Headers":         {delivery(`{"task": 3}`, goodBody), lovage.Malformed, "task"},
		"BodyNoJSON":      {delivery(goodHeaders, `[[1], {`), lovage.Malformed, ""},
		"BodyAnObject":    {delivery(goodHeaders, `{"args": [1]}`), lovage.Malformed, ""},
		"ArgsNoList":      {delivery(goodHeaders, `[{}, {}, {}]`), lovage.Malformed, ""},
		"NoTaskAtAll":     {delivery(`{}`, `{}`), lovage.Malformed, "task"},
		"NoID":            {delivery(`{"task": "t.add"}`, goodBody), lovage.Malformed, "id"},
		"ETA":             {delivery(`{"task": "t.add", "id": "id", "eta": "tomorrow"}`, goodBody), lovage.Malformed, "eta"},
		"Expires":         {delivery(`{"task": "t.add", "id": "id", "expires": "tomorrow"}`, goodBody), lovage.Malformed, "expires"},
		"TooLarge":        {delivery(goodHeaders, `[["`+strings.Repeat("a", 10_000)+`"], {}, {}]`), lovage.TooLarge, "task_max_message_size (10000)"},
		"TooLargeInside":  {delivery(`{"task": "t.add", "id": "id", "compression": "application/x-gzip"}`, bomb), lovage.TooLarge, ""},
		"TooDeep":         {delivery(goodHeaders, `[[`+strings.Repeat("[", 2000)+strings.Repeat("]", 2000)+`], {}, {}]`), lovage.TooLarge, ""},
		"Compression":     {delivery(`{"task": "t.add", "id": "id", "compression": "application/x-rar"}`, goodBody), lovage.Malformed, "x-rar"},
		"ChordMember":     {delivery(goodHeaders, strings.Replace(goodBody, `"chord": null`, `"chord": {"task": "b", "args": [], "kwargs": {}, "options": {}, "subtask_type": "star"}`, 1)), lovage.Unsupported, "star"},
		"NotAcceptedType": {&broker.Delivery{Headers: []byte(goodHeaders), Body: []byte(goodBody), Properties: protocol.Properties{ContentType: "application/x-python-serialize", ContentEncoding: "binary"}}, lovage.NotAccepted, "pickle"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, err := app.Receive(c.d)
			me, ok := errors.AsType[*lovage.MessageError](err)
			if !ok || me.Kind != c.kind {
				t.Fatalf("got %v, want it %s", err, c.kind)
			}
			contains(t, err.Error(), c.kind+" message", c.text)
		})
	}
}

func TestReceiveReads(t *testing.T) {
	t.Parallel()
	app := newWorld(t, lovage.Config{}).app
	lovage.Func(app, "t.add", add)
	d := delivery(`{"lang": "py", "task": "t.add", "id": "id", "shadow": "nick", "eta": "2030-01-02T03:04:05+05:30", "expires": "2030-01-02T03:04:05.5",
		"group": "g", "group_index": 2, "retries": 1, "timelimit": [30.5, 20], "root_id": "root", "parent_id": "parent", "argsrepr": "(1,)", "kwargsrepr": "{}",
		"origin": "gen1@h", "ignore_result": true, "replaced_task_nesting": 1, "stamped_headers": ["s"], "stamps": {"s": "v"}, "x-own": {"a": 1}}`, goodBody)
	d.Properties.ReplyTo, d.Properties.CorrelationID, d.Properties.Priority = "rq", "corr", new(5)
	d.Exchange, d.RoutingKey, d.Redelivered, d.Losses = "ex", "key", true, 2
	r, err := app.Receive(d)
	if err != nil {
		t.Fatal(err)
	}
	if r.ID != "id" || r.Task != "t.add" || r.Shadow != "nick" || !r.ETA.Equal(time.Date(2030, 1, 1, 21, 34, 5, 0, time.UTC)) ||
		!r.Expires.Equal(time.Date(2030, 1, 2, 3, 4, 5, 5e8, time.UTC)) || r.Group != "g" || *r.GroupIndex != 2 || r.Retries != 1 ||
		r.TimeLimit != 30500*time.Millisecond || r.SoftLimit != 20*time.Second || r.RootID != "root" || r.ParentID != "parent" ||
		r.ArgsRepr != "(1,)" || r.Origin != "gen1@h" || r.Lang != "py" || !r.IgnoreResult || r.ReplacedTaskNesting != 1 ||
		len(r.StampedHeaders) != 1 || string(r.Stamps["s"]) != `"v"` || len(r.Headers) != 1 || string(r.Headers["x-own"]) != `{"a": 1}` ||
		r.ReplyTo != "rq" || r.CorrelationID != "corr" {
		t.Errorf("%+v", r)
	}
	want := lovage.DeliveryInfo{Exchange: "ex", RoutingKey: "key", Queue: "celery", Priority: 5, Redelivered: true, Losses: 2}
	equal(t, "delivery", r.Delivery, want)
	if r.Definition() == nil || r.App() != app {
		t.Error("no definition")
	}
	unknown, err := app.Receive(delivery(strings.Replace(goodHeaders, "t.add", "t.none", 1), goodBody))
	if err != nil || unknown.Definition() != nil || unknown.RootID != "id" {
		t.Errorf("unknown task: %+v, %v", unknown, err)
	}
	args, kwargs := unknown.Describe()
	equal(t, "description", args+kwargs, "(1,){}")
}

type loginArgs struct {
	User  string
	Pass  string
	Retry int `lovage:"retry,default=0"`
}

func TestArguments(t *testing.T) {
	t.Parallel()
	app := newWorld(t, lovage.Config{}).app
	for _, c := range []struct {
		args, kwargs string
		want         loginArgs
		err          string
	}{
		{`["u", "p"]`, `{}`, loginArgs{"u", "p", 0}, ""},
		{`["u", "p", 2]`, `{}`, loginArgs{"u", "p", 2}, ""},
		{`["u"]`, `{"retry": 3, "pass": "p"}`, loginArgs{"u", "p", 3}, ""},
		{`[]`, `{"retry": 3, "pass": "p", "user": "u"}`, loginArgs{"u", "p", 3}, ""},
		{`["u"]`, `{}`, loginArgs{}, "missing 1 required positional argument: 'pass'"},
		{`["u", "p", "many"]`, `{}`, loginArgs{}, "retry"},
	} {
		r, err := app.Receive(delivery(goodHeaders, `[`+c.args+`, `+c.kwargs+`, {}]`))
		if err != nil {
			t.Fatal(err)
		}
		got, err := lovage.ArgsOf[loginArgs](r)
		if c.err == "" && (err != nil || got != c.want) || c.err != "" && (err == nil || !strings.Contains(err.Error(), c.err)) {
			t.Errorf("%s %s: got %+v, %v", c.args, c.kwargs, got, err)
		}
	}
	r := must[*lovage.Request](t)(app.Receive(delivery(goodHeaders, `[[1, "b"], {"k": 2.5, "n": 12345678901234567890}, {}]`)))
	var s string
	var f float64
	found, err := r.Args.At(1, &s)
	has, err2 := r.Kwargs.Get("k", &f)
	if !found || !has || s != "b" || f != 2.5 || errors.Join(err, err2) != nil || r.Args.Len() != 2 {
		t.Errorf("%v %v %q %v", found, has, s, f)
	}
	if found, _ := r.Args.At(2, &s); found {
		t.Error("there is a third argument")
	}
	kw := must[map[string]any](t)(r.Kwargs.Values())
	equal(t, "number", kw["n"].(lovage.Number).String(), "12345678901234567890")
	equal(t, "args", len(must[[]any](t)(r.Args.Values())), 2)
}

func TestRawArguments(t *testing.T) {
	t.Parallel()
	w := newWorld(t, lovage.Config{})
	h := lovage.Func(w.app, "t.raw", func(_ context.Context, in lovage.Args) (int, error) {
		return len(in.Positional)*10 + len(in.Keyword), nil
	})
	res := must[*lovage.Result[int]](t)(h.Delay(w.ctx(), lovage.Args{Positional: []any{1, "a"}, Keyword: map[string]any{"k": 1}}))
	w.run()
	if n, err := res.Get(w.ctx()); n != 21 || err != nil {
		t.Errorf("got %d, %v", n, err)
	}
}
