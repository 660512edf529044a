package control

import (
	"cmp"
	"context"
	"time"

	"github.com/lovage-go/lovage/broker"
)

// Ping asks who is there and always collects the replies, {"ok": "pong"} each.
func (c *Client) Ping(ctx context.Context, o Options) ([]Reply, error) {
	return c.Inspect(ctx, "ping", nil, o)
}

// Inspect is Broadcast for commands that are of no use without their replies:
// active, reserved, registered, revoked, stats, clock and the like.
func (c *Client) Inspect(ctx context.Context, method string, args map[string]any, o Options) ([]Reply, error) {
	o.Reply = true
	return c.Broadcast(ctx, method, args, o)
}

// Revoke lets the tasks of these ids not run. Workers remember them for 3 hours
// (worker_revoke_expires).
func (c *Client) Revoke(ctx context.Context, ids []string, o Options) ([]Reply, error) {
	return c.revoke(ctx, ids, false, o)
}

// Terminate revokes them and ends those that run: a run in Go is cancelled with
// lovage.ErrRevoked as the cause, or its child of a process pool gets the signal,
// as the process of one in Python does.
func (c *Client) Terminate(ctx context.Context, ids []string, o Options) ([]Reply, error) {
	return c.revoke(ctx, ids, true, o)
}

func (c *Client) revoke(ctx context.Context, ids []string, terminate bool, o Options) ([]Reply, error) {
	var task any = orEmptyList(ids)
	if len(ids) == 1 {
		task = ids[0]
	}
	return c.Broadcast(ctx, "revoke", map[string]any{"task_id": task, "terminate": terminate, "signal": cmp.Or(o.Signal, "SIGTERM")}, o)
}

// RevokeStamped lets tasks not run whose stamp of a header has one of the given
// values, a value or a list of them for each header, and with terminate ends
// those that run.
func (c *Client) RevokeStamped(ctx context.Context, headers map[string]any, terminate bool, o Options) ([]Reply, error) {
	return c.Broadcast(ctx, "revoke_by_stamped_headers", map[string]any{"headers": headers, "terminate": terminate, "signal": cmp.Or(o.Signal, "SIGTERM")}, o)
}

// RateLimit sets the rate limit of a task, such as 100/m, at each worker; "" or
// "0" lifts it. The limit is each worker's own.
func (c *Client) RateLimit(ctx context.Context, task, limit string, o Options) ([]Reply, error) {
	var rate any = limit
	if limit == "" || limit == "0" {
		rate = 0 // what Celery's workers take for no limit
	}
	return c.Broadcast(ctx, "rate_limit", map[string]any{"task_name": task, "rate_limit": rate}, o)
}

// TimeLimit sets the time limits of a task for runs that start later; 0 leaves
// it to the worker's default.
func (c *Client) TimeLimit(ctx context.Context, task string, soft, hard time.Duration, o Options) ([]Reply, error) {
	seconds := func(d time.Duration) any {
		switch {
		case d <= 0:
			return nil
		case d%time.Second == 0:
			return int64(d / time.Second)
		}
		return d.Seconds()
	}
	return c.Broadcast(ctx, "time_limit", map[string]any{"task_name": task, "hard": seconds(hard), "soft": seconds(soft)}, o)
}

// PoolGrow adds n slots to each worker's pool.
func (c *Client) PoolGrow(ctx context.Context, n int, o Options) ([]Reply, error) {
	return c.Broadcast(ctx, "pool_grow", map[string]any{"n": n}, o)
}

// PoolShrink takes n slots away. Runs under way go on.
func (c *Client) PoolShrink(ctx context.Context, n int, o Options) ([]Reply, error) {
	return c.Broadcast(ctx, "pool_shrink", map[string]any{"n": n}, o)
}

// Autoscale changes the bounds of the autoscaler of workers that have one.
func (c *Client) Autoscale(ctx context.Context, most, least int, o Options) ([]Reply, error) {
	return c.Broadcast(ctx, "autoscale", map[string]any{"max": most, "min": least}, o)
}

// AddConsumer lets workers consume from a queue too. With nothing but a name it
// is what the worker's configuration has under that name, else a plain queue.
func (c *Client) AddConsumer(ctx context.Context, q broker.Queue, o Options) ([]Reply, error) {
	kind := q.Exchange.Type
	if kind == "" {
		kind = "direct"
	}
	return c.Broadcast(ctx, "add_consumer", map[string]any{
		"queue": q.Name, "exchange": orNull(q.Exchange.Name), "exchange_type": kind, "routing_key": orNull(q.RoutingKey)}, o)
}

// CancelConsumer lets workers consume from a queue no more.
func (c *Client) CancelConsumer(ctx context.Context, queue string, o Options) ([]Reply, error) {
	return c.Broadcast(ctx, "cancel_consumer", map[string]any{"queue": queue}, o)
}

// Election lets the workers that gossip elect one, the lowest logical clock among
// them, which then does what the topic is for: task sends the signature that is
// the action; other topics are the programs' own. Nobody confirms it, and as in
// Celery it is a best effort: when a worker or a connection is lost just then, none
// may win, or two.
func (c *Client) Election(ctx context.Context, id, topic string, action any, o Options) ([]Reply, error) {
	return c.Broadcast(ctx, "election", map[string]any{"id": id, "topic": topic, "action": action}, o)
}

// EnableEvents lets workers send the events of tasks.
func (c *Client) EnableEvents(ctx context.Context, o Options) ([]Reply, error) {
	return c.Broadcast(ctx, "enable_events", nil, o)
}

// DisableEvents lets workers send them no more; heartbeats go on.
func (c *Client) DisableEvents(ctx context.Context, o Options) ([]Reply, error) {
	return c.Broadcast(ctx, "disable_events", nil, o)
}

// Heartbeat asks for a heartbeat event now.
func (c *Client) Heartbeat(ctx context.Context, o Options) ([]Reply, error) {
	return c.Broadcast(ctx, "heartbeat", nil, o)
}

// Shutdown stops workers, warm. There are no replies: with Reply the call only
// waits for its time.
func (c *Client) Shutdown(ctx context.Context, o Options) ([]Reply, error) {
	return c.Broadcast(ctx, "shutdown", nil, o)
}
