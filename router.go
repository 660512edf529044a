package lovage

import (
	"fmt"
	"path"
	"strings"

	"github.com/lovage-go/lovage/broker"
	"github.com/lovage-go/lovage/protocol"
)

// router turns a task's name and options into an address. It does not change
// after it is built.
type router struct {
	conf   *resolved
	queues map[string]broker.Queue // by name and alias
	exact  map[string]*Route
	globs  []*Route
}

func newRouter(conf *resolved) *router {
	r := &router{conf: conf, queues: map[string]broker.Queue{}, exact: map[string]*Route{}}
	for _, q := range conf.TaskQueues {
		if q.Exchange.Type == "" {
			q.Exchange.Type = conf.TaskDefaultExchangeType
		}
		if q.Exchange.Name == "" && q.RoutingKey == "" {
			q.Exchange.Name, q.RoutingKey = q.Name, q.Name
		}
		r.queues[q.Name] = q
		if q.Alias != "" {
			r.queues[q.Alias] = q
		}
	}
	for i := range conf.TaskRoutes {
		route := &conf.TaskRoutes[i]
		if strings.ContainsAny(route.Pattern, "*?[") {
			r.globs = append(r.globs, route)
		} else if _, dup := r.exact[route.Pattern]; !dup {
			r.exact[route.Pattern] = route
		}
	}
	return r
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
		}, nil
	}
	if !r.conf.TaskCreateMissingQueues {
		return broker.Queue{}, &QueueNotFoundError{name}
	}
	return broker.Named(name), nil
}

// match is the route for a task: an exact name first, then patterns in order.
func (r *router) match(task string) *Route {
	if route, ok := r.exact[task]; ok {
		return route
	}
	for _, route := range r.globs {
		if ok, _ := path.Match(route.Pattern, task); ok {
			return route
		}
	}
	return nil
}

// address fills in where the message goes. What the call says wins over the
// route, and the route over the default queue.
func (r *router) address(m *protocol.Message, o *options) error {
	queue, exchange, key := or(o.queue, ""), or(o.exchange, ""), or(o.routingKey, "")
	priority, mode := o.priority, o.deliveryMode
	if queue == "" && exchange == "" {
		if route := r.match(m.Headers.Task); route != nil {
			queue, exchange = route.Queue, route.Exchange
			if key == "" {
				key = route.RoutingKey
			}
			if priority == nil {
				priority = route.Priority
			}
		}
	}
	if priority == nil {
		priority = r.conf.TaskDefaultPriority
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
