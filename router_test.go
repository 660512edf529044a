package lovage_test

import (
	"context"
	"errors"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/lovage-go/lovage"
	"github.com/lovage-go/lovage/broker"
)

func TestRoutes(t *testing.T) {
	t.Parallel()
	cfg := lovage.Config{
		TaskRoutes: []lovage.Route{
			{Pattern: "proj.*", Queue: "glob", Priority: new(2)},
			{Pattern: "proj.images.*", Queue: "never: the first pattern wins"},
			{Pattern: "proj.exact", Queue: "exact", Options: map[string]any{"expires": 60, "priority": 6, "headers": map[string]any{"a": 1}}},
			{Regexp: regexp.MustCompile(`feed\.(get|put)$`), Queue: "exact"},
			{Pattern: "topic.?", Exchange: "ex", RoutingKey: "k.1"},
			{Pattern: "keyed", Queue: "topical", RoutingKey: "other.key"},
		},
		TaskQueues: []broker.Queue{
			{Name: "celery"}, {Name: "glob"}, {Name: "exact", Alias: "alias"},
			{Name: "topical", Exchange: broker.Exchange{Name: "tex", Type: "topic"}, RoutingKey: "t.#"},
		},
	}
	type address struct{ queue, exchange, key string }
	for name, c := range map[string]struct {
		task string
		opts []lovage.CallOption
		want address
	}{
		"Default":             {"x", nil, address{"celery", "", "celery"}},
		"ExactBeforePattern":  {"proj.exact", nil, address{"exact", "", "exact"}},
		"Pattern":             {"proj.images.resize", nil, address{"glob", "", "glob"}},
		"Regexp":              {"feed.put", nil, address{"exact", "", "exact"}},
		"RegexpFromTheStart":  {"myfeed.put", nil, address{"celery", "", "celery"}},
		"RegexpToItsEnd":      {"feed.putter", nil, address{"celery", "", "celery"}},
		"CallBeforeRoute":     {"proj.exact", []lovage.CallOption{lovage.Queue("topical")}, address{"topical", "tex", "t.#"}},
		"KeyOfTheCall":        {"keyed", []lovage.CallOption{lovage.RoutingKey("mine")}, address{"topical", "tex", "mine"}},
		"KeyOfTheRoute":       {"keyed", nil, address{"topical", "tex", "other.key"}},
		"ExchangeOfTheRoute":  {"topic.a", nil, address{"", "ex", "k.1"}},
		"ExchangeOfTheCall":   {"x", []lovage.CallOption{lovage.Exchange("e"), lovage.RoutingKey("k")}, address{"", "e", "k"}},
		"Alias":               {"x", []lovage.CallOption{lovage.Queue("alias")}, address{"exact", "", "exact"}},
		"AMissingQueueIsMade": {"x", []lovage.CallOption{lovage.Queue("new")}, address{"new", "", "new"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, cfg)
			var got address
			w.app.Signals.BeforeTaskPublish.Connect(func(_ context.Context, e lovage.BeforeTaskPublish) {
				got = address{e.Message.Queue, e.Message.Exchange, e.Message.RoutingKey}
			})
			must[*lovage.Result[any]](t)(w.app.Send(w.ctx(), c.task, lovage.Args{}, c.opts...))
			equal(t, "address", got, c.want)
		})
	}
	t.Run("OptionsOfARoute", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t, cfg)
		must[*lovage.Result[any]](t)(w.app.Send(w.ctx(), "proj.exact", lovage.Args{}, lovage.Headers(map[string]any{"b": 2})))
		d := peek(t, w, "exact")
		r := w.receive(&d)
		if *d.Properties.Priority != 6 || d.Properties.Expiration > time.Minute || !d.Properties.HasExpiration || string(r.Headers["a"])+string(r.Headers["b"]) != "12" {
			t.Errorf("%+v %s", d.Properties, d.Headers)
		}
		must[*lovage.Result[any]](t)(w.app.Send(w.ctx(), "proj.glob", lovage.Args{}, lovage.Priority(9)))
		equal(t, "priority of the call", *peek(t, w, "glob").Properties.Priority, 9)
	})
	t.Run("MissingQueuesMayBeRefused", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t, lovage.Config{TaskCreateMissingQueues: new(false)})
		_, err := w.app.Send(w.ctx(), "x", lovage.Args{}, lovage.Queue("typo"))
		if q, ok := errors.AsType[*lovage.QueueNotFoundError](err); !ok || q.Queue != "typo" {
			t.Errorf("got %v", err)
		}
		if _, err := w.app.Queues("typo"); err == nil {
			t.Error("a worker would consume from it")
		}
	})
	for name, r := range map[string]lovage.Route{
		"syntax error in pattern": {Pattern: "proj.[", Queue: "q"},
		"option priority":         {Pattern: "x", Options: map[string]any{"priority": "high"}},
		"give it one of them":     {Pattern: "x", Regexp: regexp.MustCompile("x"), Queue: "q"},
		"a route cannot link":     {Pattern: "x", Options: map[string]any{"link": map[string]any{"task": "t"}}},
	} {
		t.Run("AWrongRouteIsRefused", func(t *testing.T) {
			t.Parallel()
			err := newWorld(t, lovage.Config{TaskRoutes: []lovage.Route{r}}).app.Freeze()
			if err == nil || !strings.Contains(err.Error(), "task_routes") || !strings.Contains(err.Error(), name) {
				t.Errorf("got %v, want %s", err, name)
			}
		})
	}
}

func TestRouterFunctions(t *testing.T) {
	t.Parallel()
	tenant := func(c lovage.Routed) *lovage.Route {
		var who string
		if ok, err := c.Kwargs.Get("tenant", &who); err != nil || !ok {
			return nil
		}
		return &lovage.Route{Queue: "of-" + who, Priority: new(4)}
	}
	last := func(c lovage.Routed) *lovage.Route {
		switch c.Task {
		case "proj.wrong":
			return &lovage.Route{Options: map[string]any{"priority": "high"}}
		case "proj.other":
			return &lovage.Route{Queue: "second"}
		}
		return nil
	}
	cfg := lovage.Config{TaskRoutes: []lovage.Route{{Pattern: "proj.*", Queue: "pattern"}}}
	w := newWorld(t, cfg, lovage.WithRouter(tenant), lovage.WithRouter(last))
	send := func(task, tenant string, opts ...lovage.CallOption) error {
		args := lovage.Args{}
		if tenant != "" {
			args.Keyword = map[string]any{"tenant": tenant}
		}
		_, err := w.app.Send(w.ctx(), task, args, opts...)
		return err
	}
	for queue, err := range map[string]error{
		"of-acme": send("proj.a", "acme"),
		"second":  send("proj.other", ""),
		"pattern": send("proj.a", ""),
		"called":  send("proj.a", "acme", lovage.Queue("called")),
		"celery":  send("x", ""),
	} {
		if err != nil {
			t.Error(queue, err)
		}
		if d := peek(t, w, queue); queue == "of-acme" && *d.Properties.Priority != 4 {
			t.Errorf("priority %v, want that of the route", d.Properties.Priority)
		}
	}
	err := send("proj.wrong", "")
	if err == nil || !strings.Contains(err.Error(), "router function") || !strings.Contains(err.Error(), "option priority") {
		t.Errorf("a wrong route gave %v", err)
	}
}
