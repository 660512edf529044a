package control

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/lovage-go/lovage/broker"
	"github.com/lovage-go/lovage/internal/proc"
	"github.com/lovage-go/lovage/internal/pyjson"
)

// builtin are Celery's commands, with its words.
func builtin() []Command {
	return []Command{
		{Name: "ping", Run: func(context.Context, Node, Args) (any, error) { return OK("pong"), nil }},
		{Name: "hello", Args: []string{"from_node"}, Run: hello},
		{Name: "clock", Run: func(_ context.Context, n Node, _ Args) (any, error) {
			return map[string]int64{"clock": n.Clock().Value()}, nil
		}},
		{Name: "revoke", Args: []string{"task_id"}, Run: revoke},
		{Name: "terminate", Args: []string{"signal", "task_id"}, Run: terminate},
		{Name: "revoked", Alias: "dump_revoked", Run: revoked},
		{Name: "rate_limit", Args: []string{"task_name", "rate_limit"}, Run: rateLimit},
		{Name: "time_limit", Run: timeLimit},
		{Name: "pool_grow", Run: func(_ context.Context, n Node, a Args) (any, error) { return resize(n, a, 1, "grow") }},
		{Name: "pool_shrink", Run: func(_ context.Context, n Node, a Args) (any, error) { return resize(n, a, -1, "shrink") }},
		{Name: "add_consumer", Args: []string{"queue"}, Run: addConsumer},
		{Name: "cancel_consumer", Args: []string{"queue"}, Run: cancelConsumer},
		{Name: "shutdown", Run: shutdown},
		{Name: "active", Alias: "dump_active", Run: func(_ context.Context, n Node, _ Args) (any, error) { return list(n.Active()), nil }},
		{Name: "reserved", Alias: "dump_reserved", Run: func(_ context.Context, n Node, _ Args) (any, error) { return list(n.Reserved()), nil }},
		{Name: "registered", Alias: "dump_tasks", Run: registered},
		{Name: "stats", Run: func(_ context.Context, n Node, _ Args) (any, error) { return n.Stats(), nil }},
	}
}

// list is an empty list and not null where there is nothing.
func list[T any](items []T) []T {
	if items == nil {
		return []T{}
	}
	return items
}

// hello gives a worker that starts what it has missed. The times are those of
// the machine's monotonic clock in seconds, which Python's workers compare with
// their own.
func hello(_ context.Context, n Node, a Args) (any, error) {
	from, err := a.Text("from_node")
	if err != nil || from == n.Hostname() {
		return nil, err
	}
	var theirs map[string]json.RawMessage
	if err := a.Decode("revoked", &theirs); err != nil {
		return nil, err
	}
	for id := range theirs {
		n.Revoke(id)
	}
	now, uptime := time.Now(), proc.Monotonic()
	out := map[string][2]any{}
	for id, at := range n.Revoked() {
		seconds := max(uptime-now.Sub(at), 0).Seconds()
		out[id] = [2]any{json.RawMessage(pyjson.AppendFloat(nil, seconds, 64)), id}
	}
	return map[string]any{"revoked": out, "clock": n.Clock().Forward()}, nil
}

func revoke(_ context.Context, n Node, a Args) (any, error) {
	ids, err := a.Texts("task_id")
	if err != nil {
		return nil, err
	}
	end := false
	if err := a.Decode("terminate", &end); err != nil {
		return nil, err
	}
	ids = unique(ids)
	if end {
		return terminated(n.Terminate(ids...)), nil
	}
	n.Revoke(ids...)
	if len(ids) == 0 {
		return OK("tasks set() flagged as revoked"), nil
	}
	quoted := make([]string, len(ids))
	for i, id := range ids {
		quoted[i] = repr(id)
	}
	return OK("tasks {%s} flagged as revoked", strings.Join(quoted, ", ")), nil
}

// unique is the set of ids, in their first order.
func unique(ids []string) []string {
	seen := make(map[string]bool, len(ids))
	return slices.DeleteFunc(slices.Clone(ids), func(id string) bool {
		again := seen[id]
		seen[id] = true
		return again
	})
}

// terminate takes a signal, as every command line of Celery's sends one, and
// does not look at it: a run is a goroutine, and is cancelled.
func terminate(_ context.Context, n Node, a Args) (any, error) {
	ids, err := a.Texts("task_id")
	if err != nil {
		return nil, err
	}
	return terminated(n.Terminate(unique(ids)...)), nil
}

func terminated(ids []string) any {
	if len(ids) == 0 {
		return OK("terminate: tasks unknown")
	}
	return OK("terminate: %s", strings.Join(ids, ", "))
}

func revoked(_ context.Context, n Node, _ Args) (any, error) {
	known := n.Revoked()
	ids := make([]string, 0, len(known))
	for id := range known {
		ids = append(ids, id)
	}
	slices.SortFunc(ids, func(a, b string) int {
		if c := known[a].Compare(known[b]); c != 0 {
			return c
		}
		return strings.Compare(a, b)
	})
	return ids, nil
}

func rateLimit(_ context.Context, n Node, a Args) (any, error) {
	task, err := a.Text("task_name")
	if err != nil {
		return nil, err
	}
	text, every, limited, err := parseRate(a["rate_limit"])
	if err != nil {
		var bad *Exception
		if errors.As(err, &bad) && bad.Type == "ValueError" {
			return Refused("Invalid rate limit string: %v", bad), nil
		}
		return nil, err
	}
	if err := n.SetRate(task, text, every); err != nil {
		return unknownTask(err)
	}
	if !limited {
		return OK("rate limit disabled successfully"), nil
	}
	return OK("new rate limit set successfully"), nil
}

func unknownTask(err error) (any, error) {
	if errors.Is(err, ErrUnknownTask) {
		return Refused("unknown task"), nil
	}
	return nil, err
}

func timeLimit(_ context.Context, n Node, a Args) (any, error) {
	task, err := a.Text("task_name")
	if err != nil {
		return nil, err
	}
	var limits [2]*time.Duration
	for i, name := range [...]string{"soft", "hard"} {
		var seconds *float64
		if err := a.Decode(name, &seconds); err != nil {
			return nil, err
		}
		if seconds == nil {
			continue
		}
		if *seconds < 0 || *seconds > math.MaxInt64/float64(time.Second)/2 {
			return nil, exception("ValueError", "%s: %v: want seconds, 0 for no limit", name, *seconds)
		}
		d := time.Duration(*seconds * float64(time.Second))
		limits[i] = &d
	}
	if err := n.SetTimeLimits(task, limits[0], limits[1]); err != nil {
		return unknownTask(err)
	}
	return OK("time limits set successfully"), nil
}

// maxResize bounds one change of a pool: more is a slip of the finger.
const maxResize = 100_000

func resize(n Node, a Args, sign int, verb string) (any, error) {
	by := 1
	if err := a.Decode("n", &by); err != nil {
		return nil, err
	}
	if by < 0 || by > maxResize {
		return nil, exception("ValueError", "pool_%s: n is %d: want 0 to %d", verb, by, maxResize)
	}
	if err := n.ResizePool(sign * by); err != nil {
		return nil, exception("ValueError", "%v", err)
	}
	return OK("pool will %s", verb), nil
}

func addConsumer(ctx context.Context, n Node, a Args) (any, error) {
	var name, exchange, kind, key string
	for arg, dst := range map[string]*string{"queue": &name, "exchange": &exchange, "exchange_type": &kind, "routing_key": &key} {
		if err := a.Decode(arg, dst); err != nil {
			return nil, err
		}
	}
	if name == "" {
		return nil, exception("ValueError", "add_consumer: queue has no name")
	}
	q := broker.Queue{Name: name}
	if exchange != "" || key != "" || kind != "" && kind != "direct" {
		q = broker.Named(name)
		if exchange != "" {
			q.Exchange.Name = exchange
		}
		if kind != "" {
			q.Exchange.Type = kind
		}
		if key != "" {
			q.RoutingKey = key
		}
	}
	if err := n.AddConsumer(ctx, q); err != nil {
		return nil, err
	}
	return OK("add consumer %s", name), nil
}

func cancelConsumer(ctx context.Context, n Node, a Args) (any, error) {
	name, err := a.Text("queue")
	if err != nil {
		return nil, err
	}
	if err := n.CancelConsumer(ctx, name); err != nil {
		return nil, err
	}
	return OK("no longer consuming from %s", name), nil
}

func shutdown(_ context.Context, n Node, a Args) (any, error) {
	reason := "Got shutdown from remote"
	if err := a.Decode("msg", &reason); err != nil {
		return nil, err
	}
	n.Shutdown(reason)
	return nil, ErrNoReply
}

// registered lists the tasks; of the attributes that Celery would add in
// brackets there is rate_limit.
func registered(_ context.Context, n Node, a Args) (any, error) {
	items, err := a.Texts("taskinfoitems")
	if err != nil {
		return nil, err
	}
	names := []string{}
	for _, t := range n.Registered() {
		name := t.Name
		if t.RateLimit != "" && (len(items) == 0 || slices.Contains(items, "rate_limit")) {
			name = fmt.Sprintf("%s [rate_limit=%s]", name, t.RateLimit)
		}
		names = append(names, name)
	}
	slices.Sort(names)
	return names, nil
}
