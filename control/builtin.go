package control

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/lovage-go/lovage/internal/proc"
	"github.com/lovage-go/lovage/internal/pyjson"
)

// builtin are Celery's commands, with its words.
func builtin() []Command {
	list := []Command{
		{Name: "active", Alias: "dump_active", Help: "Runs under way, with their arguments.", Run: active},
		{Name: "active_queues", Help: "Queues that each worker consumes.", Run: activeQueues},
		{Name: "clock", Help: "Logical clock of each worker.", Run: func(_ context.Context, n Node, _ Args) (any, error) {
			return map[string]int64{"clock": n.Clock().Value()}, nil
		}},
		{Name: "conf", Alias: "dump_conf", Help: "Settings that are set, or all of them, without secrets.", Params: []Param{{Name: "with_defaults", Type: "bool"}}, Run: conf},
		{Name: "hello", Args: []string{"from_node"}, Run: hello},
		{Name: "memdump", Help: "Memory of each worker, as a text.", Params: []Param{{Name: "samples", Type: "int"}}, Run: memdump},
		{Name: "memsample", Help: "Resident memory of each worker.", Run: memsample},
		{Name: "objgraph", Run: objgraph},
		{Name: "ping", Help: "Which workers are there.", Run: func(context.Context, Node, Args) (any, error) { return OK("pong"), nil }},
		{Name: "query_task", Help: "Tasks by their ids, where a worker has them.", Args: []string{"ids"}, Rest: "ids", Run: queryTask},
		{Name: "registered", Alias: "dump_tasks", Help: "Tasks that each worker knows, with attributes.", Rest: "taskinfoitems", Run: registered},
		{Name: "report", Help: "Versions and settings, for a bug report.", Run: func(_ context.Context, n Node, _ Args) (any, error) {
			return map[string]string{"ok": n.Report()}, nil
		}},
		{Name: "reserved", Alias: "dump_reserved", Help: "Tasks that a worker has claimed and not started.", Run: func(_ context.Context, n Node, _ Args) (any, error) {
			return orEmptyList(n.Reserved()), nil
		}},
		{Name: "revoked", Alias: "dump_revoked", Help: "Ids of revoked tasks.", Run: revoked},
		{Name: "scheduled", Alias: "dump_schedule", Help: "Tasks that wait for their time.", Run: scheduled},
		{Name: "stats", Help: "Counts and facts about each worker.", Run: func(_ context.Context, n Node, _ Args) (any, error) { return n.Stats(), nil }},
	}
	for i := range list {
		list[i].Inspect = true
	}
	return append(list, []Command{
		{Name: "add_consumer", Help: "Consume from a queue too.", Args: []string{"queue"},
			Params: []Param{{Name: "queue", Must: true}, {Name: "exchange"}, {Name: "exchange_type"}, {Name: "routing_key"}}, Run: addConsumer},
		{Name: "autoscale", Help: "Change the bounds of the autoscaler.", Params: []Param{{Name: "max", Type: "int"}, {Name: "min", Type: "int"}}, Run: autoscale},
		{Name: "cancel_consumer", Help: "Consume from a queue no more.", Args: []string{"queue"},
			Params: []Param{{Name: "queue", Must: true}}, Run: cancelConsumer},
		{Name: "disable_events", Help: "Send no more events of tasks; heartbeats go on.", Run: func(_ context.Context, n Node, _ Args) (any, error) {
			return taskEvents(n, false)
		}},
		{Name: "election", Help: "Hold an election: one worker does what the topic is for.", Args: []string{"id", "topic"},
			Params: []Param{{Name: "id", Must: true}, {Name: "topic", Must: true}, {Name: "action"}}, Run: election},
		{Name: "enable_events", Help: "Send the events of tasks.", Run: func(_ context.Context, n Node, _ Args) (any, error) {
			return taskEvents(n, true)
		}},
		{Name: "heartbeat", Help: "Send a heartbeat now.", Run: func(_ context.Context, n Node, _ Args) (any, error) {
			n.Heartbeat()
			return nil, nil
		}},
		{Name: "pool_grow", Help: "Add slots to the pool.", Params: []Param{{Name: "n", Type: "int"}}, Run: func(_ context.Context, n Node, a Args) (any, error) {
			return resize(n, a, 1, "grow")
		}},
		{Name: "pool_restart", Help: "Restart the pool.", Run: refuse("Pool restarts not enabled")},
		{Name: "pool_shrink", Help: "Take slots from the pool.", Params: []Param{{Name: "n", Type: "int"}}, Run: func(_ context.Context, n Node, a Args) (any, error) {
			return resize(n, a, -1, "shrink")
		}},
		{Name: "rate_limit", Help: "Change the rate limit of a task.", Args: []string{"task_name", "rate_limit"},
			Params: []Param{{Name: "task_name", Must: true}, {Name: "rate_limit", Must: true}}, Run: rateLimit},
		{Name: "revoke", Help: "Let tasks not run, by id.", Args: []string{"task_id"}, Rest: "task_id", Run: revoke},
		{Name: "revoke_by_stamped_headers", Help: "Let tasks not run, by stamp, each as header=value.", Args: []string{"headers"}, Rest: "headers", Run: revokeStamped},
		{Name: "shutdown", Help: "Shut workers down, warm.", Run: shutdown},
		{Name: "terminate", Help: "Let tasks not run, and end those that do.", Args: []string{"signal", "task_id"},
			Params: []Param{{Name: "signal", Must: true}}, Rest: "task_id", Run: terminate},
		{Name: "time_limit", Help: "Change the time limits of a task.",
			Params: []Param{{Name: "task_name", Must: true}, {Name: "soft", Type: "float", Must: true}, {Name: "hard", Type: "float"}}, Run: timeLimit},
	}...)
}

// refuse is a command that this worker has nothing for.
func refuse(why string) func(context.Context, Node, Args) (any, error) {
	return func(context.Context, Node, Args) (any, error) { return nil, exception("ValueError", "%s", why) }
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
	if len(theirs) > 0 {
		ids := make([]string, 0, len(theirs))
		for id := range theirs {
			ids = append(ids, id)
		}
		n.Heard(ids...)
	}
	return map[string]any{"revoked": Revokes(n.Revoked()), "clock": n.Clock().Forward()}, nil
}

// Revokes are revoked ids with their times as workers tell each other.
func Revokes(known map[string]time.Time) map[string]any {
	now, uptime := time.Now(), proc.Monotonic()
	out := make(map[string]any, len(known))
	for id, at := range known {
		seconds := max(uptime-now.Sub(at), 0).Seconds()
		out[id] = [2]any{json.RawMessage(pyjson.AppendFloat(nil, seconds, 64)), id}
	}
	return out
}

func shutdown(_ context.Context, n Node, a Args) (any, error) {
	reason := "Got shutdown from remote"
	if err := a.Decode("msg", &reason); err != nil {
		return nil, err
	}
	n.Shutdown(reason)
	return nil, ErrNoReply
}

func taskEvents(n Node, on bool) (any, error) {
	word := map[bool]string{true: "enabled", false: "disabled"}[on]
	if n.SendTaskEvents(on) {
		return OK("task events %s", word), nil
	}
	return OK("task events already %s", word), nil
}

// election lets the node stand in an election, if it gossips.
func election(ctx context.Context, n Node, a Args) (any, error) {
	id, err := a.Text("id")
	if err != nil {
		return nil, err
	}
	topic, err := a.Text("topic")
	if err != nil {
		return nil, err
	}
	return nil, n.Elect(ctx, id, topic, json.RawMessage(a["action"]))
}

func memsample(context.Context, Node, Args) (any, error) { return megabytes(proc.RSS()), nil }

// megabytes writes KiB as Celery does.
func megabytes(kib int) string { return fmt.Sprintf("%.3fMB", float64(kib)/1024) }

func memdump(context.Context, Node, Args) (any, error) {
	return "- rss (end): " + megabytes(proc.RSS()) + ".\n", nil
}

func objgraph(context.Context, Node, Args) (any, error) {
	return nil, exception("ImportError", "objgraph is Python's: take a heap profile of this Go worker with net/http/pprof instead")
}
