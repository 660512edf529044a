package lovage

import (
	"encoding/json"
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"

	"github.com/lovage-go/lovage/broker"
	"github.com/lovage-go/lovage/protocol"
)

// router turns a task's name and options into an address. It does not change
// after it is built.
type router struct {
	conf   *resolved
	queues map[string]broker.Queue // by name and alias
	funcs  []RouterFunc
	exact  map[string]*route
	others []*route
}

// RouterFunc says where a call goes; nil leaves it to those that come after. It
// is called by whoever calls a task, at the same time by many.
type RouterFunc func(Routed) *Route

// Routed is a call whose way is asked for. Its arguments are as they will be
// sent; do not change them.
type Routed struct {
	Task   string
	Args   RawArgs
	Kwargs RawKwargs
}

// route is a Route with its options read.
type route struct {
	matches func(task string) bool // nil: the task's name is the pattern
	opts    options
}

func newRouter(conf *resolved, funcs []RouterFunc, newID func() string) (*router, error) {
	r := &router{conf: conf, queues: map[string]broker.Queue{}, funcs: funcs, exact: map[string]*route{}}
	conf.TaskQueues = slices.Clone(conf.TaskQueues)
	for i, q := range conf.TaskQueues {
		if q.Name == "" && q.Exchange.Type == "fanout" { // broker.Broadcast
			q.Name = "bcast." + newID()
			conf.TaskQueues[i].Name = q.Name
		}
		if q.Exchange.Type == "" {
			q.Exchange.Type = conf.TaskDefaultExchangeType
		}
		if q.Exchange.Name == "" && q.RoutingKey == "" {
			q.Exchange.Name, q.RoutingKey = q.Name, q.Name
		}
		if q.RoutingKey == "" {
			q.RoutingKey = conf.TaskDefaultRoutingKey
		}
		r.queues[q.Name] = q
		if q.Alias != "" {
			r.queues[q.Alias] = q
		}
	}
	for i := range conf.TaskRoutes {
		route, err := newRoute(&conf.TaskRoutes[i])
		if err != nil {
			return nil, fmt.Errorf("task_routes: route of %q: %w", conf.TaskRoutes[i].name(), err)
		}
		name := conf.TaskRoutes[i].Pattern
		if route.matches != nil {
			r.others = append(r.others, route)
		} else if _, dup := r.exact[name]; !dup {
			r.exact[name] = route
		}
	}
	return r, nil
}

func newRoute(r *Route) (*route, error) {
	matches, err := r.matcher()
	if err != nil {
		return nil, err
	}
	opts, err := r.read()
	if err != nil {
		return nil, err
	}
	return &route{matches, opts}, nil
}

// matcher tells the tasks of a pattern, nil for that of one name.
func (r *Route) matcher() (func(task string) bool, error) {
	switch {
	case r.Regexp != nil && r.Pattern != "":
		return nil, errors.New("it has a pattern and a regular expression: give it one of them")
	case r.Regexp != nil:
		return func(task string) bool {
			at := r.Regexp.FindStringIndex(task)
			return at != nil && at[0] == 0
		}, nil
	case !strings.ContainsAny(r.Pattern, "*?["):
		return nil, nil
	}
	if _, err := path.Match(r.Pattern, ""); err != nil {
		return nil, fmt.Errorf("%w: write it like proj.images.*", err)
	}
	return func(task string) bool {
		ok, _ := path.Match(r.Pattern, task)
		return ok
	}, nil
}

// name is what an error calls the route.
func (r *Route) name() string {
	if r.Regexp != nil {
		return r.Regexp.String()
	}
	return r.Pattern
}

// read reads a route's options.
func (r *Route) read() (options, error) {
	w := make(map[string]json.RawMessage, len(r.Options))
	for k, v := range r.Options {
		text, err := jsonCodec.Marshal(v)
		if err != nil {
			return options{}, fmt.Errorf("option %s: %w", k, err)
		}
		w[k] = text
	}
	opts, extra, err := parseWireOptions(w)
	if err != nil {
		return options{}, err
	}
	if extra.embed.Callbacks != nil || extra.embed.Errbacks != nil {
		return options{}, errors.New("a route cannot link: give Link and LinkError to the call")
	}
	for dst, text := range map[**string]string{&opts.queue: r.Queue, &opts.exchange: r.Exchange, &opts.routingKey: r.RoutingKey} {
		if text != "" {
			*dst = &text
		}
	}
	set(&opts.priority, r.Priority)
	return opts, nil
}

// QueueNotFoundError tells that a queue is not configured and may not be made.
type QueueNotFoundError struct{ Queue string }

func (e *QueueNotFoundError) Error() string {
	return fmt.Sprintf("queue %q is not in task_queues and task_create_missing_queues is off: add it there", e.Queue)
}

// queue finds a queue by name or alias, or makes it as Celery would.
func (r *router) queue(name string) (broker.Queue, error) {
	if q, ok := r.queues[name]; ok {
		return q, nil
	}
	if name == r.conf.TaskDefaultQueue {
		return broker.Queue{
			Name:       name,
			Exchange:   broker.Exchange{Name: r.conf.TaskDefaultExchange, Type: r.conf.TaskDefaultExchangeType},
			RoutingKey: r.conf.TaskDefaultRoutingKey,
			Type:       typeOfQueue(r.conf.TaskDefaultQueueType),
		}, nil
	}
	if !r.conf.TaskCreateMissingQueues {
		return broker.Queue{}, &QueueNotFoundError{name}
	}
	q := broker.Named(name)
	q.Type = typeOfQueue(r.conf.TaskCreateMissingQueueType)
	if t := r.conf.TaskCreateMissingQueueExchangeType; t != "" {
		q.Exchange.Type = t
	}
	return q, nil
}

// typeOfQueue names no type for classic, which is what a server makes that is not
// asked, and what Celery does.
func typeOfQueue(t string) string {
	if t == "classic" {
		return ""
	}
	return t
}

// match is the route that the settings have for a task: an exact name first, then
// patterns in order.
func (r *router) match(task string) *route {
	if route, ok := r.exact[task]; ok {
		return route
	}
	for _, route := range r.others {
		if route.matches(task) {
			return route
		}
	}
	return nil
}

// route lays the options of a call over those of its task's route. A call that
// names a queue or an exchange is routed already.
func (r *router) route(c *call, o *options) error {
	if or(o.queue, "") != "" || or(o.exchange, "") != "" {
		return nil
	}
	chosen, err := r.choose(c)
	if err != nil || chosen == nil {
		return err
	}
	given := *o
	*o = *chosen
	o.merge(&given)
	return nil
}

// choose is what the first function that knows the call says, or else the settings;
// nil if nobody does.
func (r *router) choose(c *call) (*options, error) {
	for _, f := range r.funcs {
		if route := f(Routed{Task: c.name, Args: RawArgs(c.args), Kwargs: RawKwargs(c.kwargs)}); route != nil {
			opts, err := route.read()
			if err != nil {
				return nil, fmt.Errorf("the route that a router function gave: %w", err)
			}
			return &opts, nil
		}
	}
	if route := r.match(c.name); route != nil {
		return &route.opts, nil
	}
	return nil, nil
}

// checkPriority reports a priority that no message can carry.
func checkPriority(p *int) error {
	if p != nil && (*p < 0 || *p > 255) {
		return fmt.Errorf("priority %d: want 0 to 255", *p)
	}
	return nil
}

// address fills in where the message goes: where the options say, or to the
// default queue.
func (r *router) address(m *protocol.Message, o *options) error {
	queue, exchange, key := or(o.queue, ""), or(o.exchange, ""), or(o.routingKey, "")
	priority, mode := o.priority, o.deliveryMode
	if priority == nil {
		priority = r.conf.TaskDefaultPriority
	}
	if err := checkPriority(priority); err != nil {
		return err
	}
	m.Properties.Priority = priority
	m.Properties.DeliveryMode = or(mode, r.conf.TaskDefaultDeliveryMode)

	if exchange != "" && queue == "" {
		m.Exchange, m.RoutingKey = exchange, key
		return nil
	}
	if queue == "" {
		queue = r.conf.TaskDefaultQueue
	}
	q, err := r.queue(queue)
	if err != nil {
		return err
	}
	m.Queue = q.Name
	if key == "" {
		key = q.RoutingKey
	}
	if exchange == "" {
		exchange = q.Exchange.Name
	}
	direct := q.Exchange.Type == "" || q.Exchange.Type == "direct"
	if direct && exchange == q.Exchange.Name && key == q.RoutingKey {
		// The anonymous exchange routes by queue name: nothing need be bound.
		m.Exchange, m.RoutingKey = "", q.Name
		return nil
	}
	m.Exchange, m.RoutingKey = exchange, key
	return nil
}

// Queues resolves queue names, as a worker's -Q gives them; none means the
// configured queues, or the default one.
func (a *App) Queues(names ...string) ([]broker.Queue, error) {
	if err := a.Freeze(); err != nil {
		return nil, err
	}
	if len(names) == 0 {
		for _, q := range a.conf.TaskQueues {
			names = append(names, q.Name)
		}
	}
	if len(names) == 0 {
		names = []string{a.conf.TaskDefaultQueue}
	}
	out := make([]broker.Queue, 0, len(names))
	for _, n := range names {
		q, err := a.router.queue(n)
		if err != nil {
			return nil, err
		}
		out = append(out, q)
	}
	return out, nil
}
