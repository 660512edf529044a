package control

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/lovage-go/lovage/broker"
)

// orEmptyList is an empty list and not null where there is nothing.
func orEmptyList[T any](items []T) []T {
	if items == nil {
		return []T{}
	}
	return items
}

func active(_ context.Context, n Node, a Args) (any, error) {
	safe := false
	if err := a.Decode("safe", &safe); err != nil {
		return nil, err
	}
	return orEmptyList(n.Active(safe)), nil
}

func scheduled(ctx context.Context, n Node, _ Args) (any, error) {
	list, err := n.Scheduled(ctx)
	return orEmptyList(list), err
}

// queryTask finds tasks that this node has. Those that wait for their time in
// the broker are nobody's, and are not among them.
func queryTask(_ context.Context, n Node, a Args) (any, error) {
	ids, err := a.Texts("ids")
	if err != nil {
		return nil, err
	}
	out := map[string][2]any{}
	for state, list := range map[string][]TaskInfo{"active": n.Active(false), "reserved": n.Reserved()} {
		for _, t := range list {
			if slices.Contains(ids, t.ID) {
				out[t.ID] = [2]any{state, t}
			}
		}
	}
	return out, nil
}

func conf(_ context.Context, n Node, a Args) (any, error) {
	all := false
	if err := a.Decode("with_defaults", &all); err != nil {
		return nil, err
	}
	return n.Settings(all), nil
}

// registered lists the tasks, Celery's own only with builtins, with the attributes
// asked for in brackets where a task has them.
func registered(_ context.Context, n Node, a Args) (any, error) {
	items, err := a.Texts("taskinfoitems")
	if err != nil {
		return nil, err
	}
	if len(items) == 0 {
		items = []string{"exchange", "routing_key", "rate_limit"}
	}
	var builtins bool
	if err := a.Decode("builtins", &builtins); err != nil {
		return nil, err
	}
	names := []string{}
	for _, t := range n.Registered() {
		if !builtins && strings.HasPrefix(t.Name, "celery.") {
			continue
		}
		var info []string
		for _, item := range items {
			if text, ok := t.Info[item]; ok {
				info = append(info, item+"="+text)
			}
		}
		name := t.Name
		if len(info) > 0 {
			name = fmt.Sprintf("%s [%s]", name, strings.Join(info, " "))
		}
		names = append(names, name)
	}
	slices.Sort(names)
	return names, nil
}

func activeQueues(_ context.Context, n Node, _ Args) (any, error) {
	list := []map[string]any{}
	for _, q := range n.Queues() {
		list = append(list, describeQueue(&q))
	}
	return list, nil
}

// describeQueue is a queue in kombu's form. What kombu has and a Queue has not
// is null.
func describeQueue(q *broker.Queue) map[string]any {
	bindings := []map[string]any{}
	for _, b := range q.Bindings {
		bindings = append(bindings, map[string]any{
			"exchange": describeExchange(&b.Exchange), "routing_key": b.RoutingKey,
			"arguments": orNullMap(b.Arguments), "unbind_arguments": nil,
		})
	}
	return map[string]any{
		"name": q.Name, "exchange": describeExchange(&q.Exchange), "routing_key": q.RoutingKey,
		"queue_arguments": orNullMap(q.Arguments), "binding_arguments": nil, "consumer_arguments": orNullMap(q.Consumer),
		"durable": !q.Transient, "exclusive": q.Exclusive, "auto_delete": q.AutoDelete, "no_ack": q.NoAck,
		"alias": orNull(q.Alias), "bindings": bindings, "no_declare": orNullValue(q.NoDeclare),
		"expires": orNullValue(q.Expires.Seconds()), "message_ttl": orNullValue(q.MessageTTL.Seconds()),
		"max_length": orNullValue(q.MaxLength), "max_length_bytes": nil, "max_priority": orNullValue(q.MaxPriority),
	}
}

func describeExchange(e *broker.Exchange) map[string]any {
	kind := e.Type
	if kind == "" {
		kind = "direct"
	}
	return map[string]any{
		"name": e.Name, "type": kind, "arguments": orNullMap(e.Arguments), "durable": !e.Transient, "passive": false,
		"auto_delete": e.AutoDelete, "delivery_mode": nil, "no_declare": false,
	}
}

func orNullMap(m map[string]any) any {
	if len(m) == 0 {
		return nil
	}
	return m
}

func orNullValue[T comparable](v T) any {
	var zero T
	if v == zero {
		return nil
	}
	return v
}
