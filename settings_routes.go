package lovage

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/lovage-go/lovage/broker"
	"github.com/lovage-go/lovage/internal/settings"
)

// readQueues reads task_queues: a list of names or maps, a map from name to
// options, or names with commas between them.
func readQueues(value any) ([]broker.Queue, error) {
	if qs, ok := value.([]broker.Queue); ok {
		return qs, nil
	}
	if s, ok := value.(string); ok && !strings.ContainsAny(s, "[{") {
		value, _ = settings.Strings(s)
	}
	if list, err := settings.List(value); err == nil {
		out := make([]broker.Queue, len(list))
		for i, e := range list {
			var err error
			if name, ok := e.(string); ok {
				out[i] = broker.Named(name)
			} else if out[i], err = readQueue("", e); err != nil {
				return nil, fmt.Errorf("queue %d: %w", i+1, err)
			}
		}
		return out, nil
	}
	byName, err := settings.Map(value)
	if err != nil {
		return nil, &settings.WantError{Got: "something else", Want: "a list of queues, or a map from queue name to options"}
	}
	out := make([]broker.Queue, 0, len(byName))
	for _, name := range slices.Sorted(maps.Keys(byName)) {
		q, err := readQueue(name, byName[name])
		if err != nil {
			return nil, fmt.Errorf("queue %q: %w", name, err)
		}
		out = append(out, q)
	}
	return out, nil
}

func readQueue(name string, options any) (broker.Queue, error) {
	q := broker.Queue{Name: name}
	if settings.None(options) {
		return broker.Named(name), nil
	}
	m, err := settings.Map(options)
	if err != nil {
		return q, err
	}
	r := reader{m: m}
	q.Name = r.text("name", name)
	q.Alias = r.text("alias", "")
	q.Exchange = r.exchange("exchange")
	q.Exchange.Type = r.text("exchange_type", cmp.Or(q.Exchange.Type, "direct"))
	q.RoutingKey = r.text("routing_key", r.text("binding_key", q.Name))
	if q.Exchange.Name == "" {
		q.Exchange.Name = q.Name
	}
	q.Transient = !r.flag("durable", true)
	q.Exclusive = r.flag("exclusive", false)
	q.AutoDelete = r.flag("auto_delete", q.Exclusive)
	q.NoAck = r.flag("no_ack", false)
	q.NoDeclare = r.flag("no_declare", false)
	q.MessageTTL = r.seconds("message_ttl")
	q.Expires = r.seconds("expires")
	q.MaxLength = r.whole("max_length")
	q.MaxPriority = r.whole("max_priority")
	q.Arguments = r.dict("queue_arguments")
	q.Consumer = r.dict("consumer_arguments")
	q.Type = r.text("queue_type", "")
	if t, ok := q.Arguments["x-queue-type"].(string); ok && q.Type == "" {
		q.Type = t
	}
	for _, b := range r.items("bindings") {
		br := reader{m: b}
		bind := broker.Binding{Exchange: br.exchange("exchange"), RoutingKey: br.text("routing_key", ""), Arguments: br.dict("arguments")}
		r.errs = append(r.errs, br.done())
		q.Bindings = append(q.Bindings, bind)
	}
	if err := r.done(); err != nil {
		return q, err
	}
	if q.Name == "" {
		return q, errors.New("it has no name")
	}
	return q, nil
}

// readRoutes reads task_routes: a map from name or pattern to a route, a list of
// [pattern, route] pairs, or a list that mixes both. A map has no order: its
// exact names come first, then its patterns, the longest first.
func readRoutes(value any) ([]Route, error) {
	if rs, ok := value.([]Route); ok {
		return rs, nil
	}
	if m, err := settings.Map(value); err == nil {
		return routesOfMap(m)
	}
	list, err := settings.List(value)
	if err != nil {
		return nil, &settings.WantError{Got: "something else", Want: "a map from task name to route, or a list of [name, route] pairs"}
	}
	var out []Route
	for i, e := range list {
		if path, ok := e.(string); ok {
			return nil, fmt.Errorf("item %d: %q names a router class, and Go cannot import one by name: give the app a function (lovage.WithRouter)", i+1, path)
		}
		if pair, err := settings.List(e); err == nil && len(pair) == 2 {
			pattern, err := settings.String(pair[0])
			if err == nil {
				var r Route
				if r, err = readRoute(pattern, pair[1]); err == nil {
					out = append(out, r)
					continue
				}
			}
			return nil, fmt.Errorf("item %d: %w", i+1, err)
		}
		rs, err := readRoutes(e)
		if err != nil {
			return nil, fmt.Errorf("item %d: %w", i+1, err)
		}
		out = append(out, rs...)
	}
	return out, nil
}

func routesOfMap(m map[string]any) ([]Route, error) {
	patterns := slices.SortedFunc(maps.Keys(m), func(a, b string) int {
		globA, globB := strings.ContainsAny(a, "*?["), strings.ContainsAny(b, "*?[")
		if globA != globB {
			if globA {
				return 1
			}
			return -1
		}
		return cmp.Or(cmp.Compare(len(b), len(a)), strings.Compare(a, b))
	})
	out := make([]Route, 0, len(m))
	for _, p := range patterns {
		r, err := readRoute(p, m[p])
		if err != nil {
			return nil, err
		}
		out = append(out, r)
	}
	return out, nil
}

func readRoute(pattern string, value any) (Route, error) {
	out := Route{Pattern: pattern}
	if queue, ok := value.(string); ok {
		out.Queue = queue
		return out, nil
	}
	m, err := settings.Map(value)
	if err != nil {
		return out, fmt.Errorf("route of %q: %w", pattern, &settings.WantError{Got: "something else", Want: "a queue name, or a map such as {queue: fast, priority: 3}"})
	}
	r := reader{m: m}
	out.Queue, out.Exchange, out.RoutingKey = r.text("queue", ""), r.text("exchange", ""), r.text("routing_key", "")
	if _, has := r.m["priority"]; has {
		out.Priority = new(r.whole("priority"))
	}
	if err := r.failed(); err != nil {
		return out, fmt.Errorf("route of %q: %w", pattern, err)
	}
	for k, v := range r.m { // what was not taken
		if out.Options == nil {
			out.Options = map[string]any{}
		}
		out.Options[k] = v
	}
	return out, nil
}

// readAnnotations reads task_annotations: a map from task name to options, or a
// list of such maps of which the first that has an option wins.
func readAnnotations(value any) (map[string]map[string]any, error) {
	parts := []any{value}
	if list, err := settings.List(value); err == nil {
		parts = list
	}
	out := map[string]map[string]any{}
	for _, e := range parts {
		m, err := settings.Map(e)
		if err != nil {
			return nil, err
		}
		for name, v := range m {
			options, err := settings.Map(v)
			if err != nil {
				return nil, fmt.Errorf("options of %q: %w", name, err)
			}
			if out[name] == nil {
				out[name] = map[string]any{}
			}
			for k, v := range options {
				if _, has := out[name][k]; !has {
					out[name][k] = v
				}
			}
		}
	}
	return out, nil
}

// readRetryPolicy reads a policy; keys that are missing keep their defaults.
func readRetryPolicy(value any) (*RetryPolicy, error) {
	if p, ok := value.(*RetryPolicy); ok {
		return p, nil
	}
	m, err := settings.Map(value)
	if err != nil {
		return nil, err
	}
	p := &RetryPolicy{MaxRetries: 3, IntervalStep: 200 * time.Millisecond, IntervalMax: time.Second}
	r := reader{m: m}
	if v, has := m["max_retries"]; has {
		if p.MaxRetries = NoLimit; !settings.None(v) {
			p.MaxRetries = r.whole("max_retries")
		}
		delete(m, "max_retries")
	}
	for key, field := range map[string]*time.Duration{
		"interval_start": &p.IntervalStart, "interval_step": &p.IntervalStep, "interval_max": &p.IntervalMax,
	} {
		if _, has := m[key]; has {
			*field = r.seconds(key)
		}
	}
	return p, r.done()
}

// reader takes entries out of a map and keeps what was wrong with them.
type reader struct {
	m    map[string]any
	errs []error
}

func take[T any](r *reader, key string, def T, convert func(any) (T, error)) T {
	v, has := r.m[key]
	delete(r.m, key)
	if !has || settings.None(v) {
		return def
	}
	out, err := convert(v)
	if err != nil {
		r.errs = append(r.errs, fmt.Errorf("%s: %w", key, err))
	}
	return out
}

func (r *reader) text(key, def string) string {
	return take(r, key, def, settings.String)
}

func (r *reader) flag(key string, def bool) bool {
	return take(r, key, def, settings.Bool)
}

func (r *reader) dict(key string) map[string]any {
	return take(r, key, nil, settings.Map)
}

func (r *reader) whole(key string) int {
	return take(r, key, 0, func(v any) (int, error) {
		n, err := settings.Int(v)
		if err == nil && n < 0 {
			err = &settings.WantError{Got: fmt.Sprint("the number ", n), Want: "a number that is not negative"}
		}
		return n, err
	})
}

func (r *reader) seconds(key string) time.Duration {
	return take(r, key, 0, func(v any) (time.Duration, error) {
		d, err := settings.Duration(v)
		if err == nil && d < 0 {
			err = &settings.WantError{Got: "the duration " + d.String(), Want: "one that is not negative"}
		}
		return d, err
	})
}

func (r *reader) items(key string) []map[string]any {
	return take(r, key, nil, func(v any) ([]map[string]any, error) {
		list, err := settings.List(v)
		if err != nil {
			return nil, err
		}
		out := make([]map[string]any, len(list))
		for i, e := range list {
			if out[i], err = settings.Map(e); err != nil {
				return nil, fmt.Errorf("item %d: %w", i+1, err)
			}
		}
		return out, nil
	})
}

func (r *reader) exchange(key string) broker.Exchange {
	return take(r, key, broker.Exchange{}, func(v any) (broker.Exchange, error) {
		if name, ok := v.(string); ok {
			return broker.Exchange{Name: name}, nil
		}
		m, err := settings.Map(v)
		if err != nil {
			return broker.Exchange{}, err
		}
		er := reader{m: m}
		e := broker.Exchange{
			Name: er.text("name", ""), Type: er.text("type", ""), Transient: !er.flag("durable", true),
			AutoDelete: er.flag("auto_delete", false), Arguments: er.dict("arguments"),
		}
		return e, er.done()
	})
}

func (r *reader) failed() error { return errors.Join(r.errs...) }

// done returns what was wrong, unknown keys included.
func (r *reader) done() error {
	for _, k := range slices.Sorted(maps.Keys(r.m)) {
		r.errs = append(r.errs, fmt.Errorf("there is no option %q", k))
	}
	return r.failed()
}
