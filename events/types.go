package events

import (
	"strings"
	"time"
)

// Exchange is the default of Celery's event_exchange.
const Exchange = "celeryev"

// The events of a task, in the order of its life.
const (
	TaskSent      = "task-sent"
	TaskReceived  = "task-received"
	TaskStarted   = "task-started"
	TaskSucceeded = "task-succeeded"
	TaskFailed    = "task-failed"
	TaskRejected  = "task-rejected"
	TaskRevoked   = "task-revoked"
	TaskRetried   = "task-retried"
	TaskCancelled = "task-cancelled" // the connection was lost and the run stopped for it
)

// The events of a worker.
const (
	WorkerOnline    = "worker-online"
	WorkerHeartbeat = "worker-heartbeat"
	WorkerOffline   = "worker-offline"
	WorkerElect     = "worker-elect"
	WorkerElectAck  = "worker-elect-ack"
)

// Group is the first word of an event type: "task" for "task-sent".
func Group(typ string) string {
	group, _, _ := strings.Cut(typ, "-")
	return group
}

// RoutingKey is the key under which one event of a type is sent.
func RoutingKey(typ string) string { return strings.ReplaceAll(typ, "-", ".") }

// workerGroup is the group of what workers tell of themselves.
const workerGroup = "worker"

// MultiKey is the key under which a batch of a group is sent.
func MultiKey(group string) string { return group + ".multi" }

// TaskInfo is what task-sent and task-received tell about a task. Empty
// RootID, ParentID, ETA and Expires are sent as null.
type TaskInfo struct {
	Name     string
	Args     string // as argsrepr: text for people, shortened by the sender
	Kwargs   string
	RootID   string
	ParentID string
	Retries  int
	ETA      string // ISO 8601
	Expires  string // ISO 8601
}

func (t TaskInfo) fields() map[string]any {
	return map[string]any{
		"name": t.Name, "args": t.Args, "kwargs": t.Kwargs,
		"root_id": orNull(t.RootID), "parent_id": orNull(t.ParentID),
		"retries": t.Retries, "eta": orNull(t.ETA), "expires": orNull(t.Expires),
	}
}

// SentFields are the fields of [TaskSent].
func SentFields(t TaskInfo, queue, exchange, routingKey string) map[string]any {
	f := t.fields()
	f["queue"], f["exchange"], f["routing_key"] = orNull(queue), exchange, routingKey
	return f
}

// ReceivedFields are the fields of [TaskReceived].
func ReceivedFields(t TaskInfo) map[string]any { return t.fields() }

// SucceededFields are the fields of [TaskSucceeded]; result is text for people.
func SucceededFields(result string, runtime time.Duration) map[string]any {
	return map[string]any{"result": result, "runtime": runtime.Seconds()}
}

// FailedFields are the fields of [TaskFailed] and [TaskRetried]. An empty
// traceback is left out, as Celery does for a task it does not know.
func FailedFields(exception, traceback string) map[string]any {
	f := map[string]any{"exception": exception}
	if traceback != "" {
		f["traceback"] = traceback
	}
	return f
}

// RevokedFields are the fields of [TaskRevoked]. signum is the number or the
// name of the signal that ended the run, nil if there was none.
func RevokedFields(terminated bool, signum any, expired bool) map[string]any {
	return map[string]any{"terminated": terminated, "signum": signum, "expired": expired}
}

// RejectedFields are the fields of [TaskRejected].
func RejectedFields(requeue bool) map[string]any { return map[string]any{"requeue": requeue} }

// WorkerInfo is what a worker tells about itself in [WorkerOnline],
// [WorkerHeartbeat] and [WorkerOffline].
type WorkerInfo struct {
	Freq      time.Duration // between two heartbeats
	Active    int           // runs under way
	Processed int64         // runs since the start
	LoadAvg   [3]float64    // 1, 5 and 15 minutes
	Ident     string        // software; "" is lovage
	Version   string
	System    string // as uname -s: Linux, Darwin
}

// Fields are the fields of the three worker events.
func (w WorkerInfo) Fields() map[string]any {
	if w.Ident == "" {
		w.Ident = "lovage"
	}
	return map[string]any{
		"freq": w.Freq.Seconds(), "active": w.Active, "processed": w.Processed,
		"loadavg":  []any{w.LoadAvg[0], w.LoadAvg[1], w.LoadAvg[2]},
		"sw_ident": w.Ident, "sw_ver": w.Version, "sw_sys": w.System,
	}
}

func orNull(s string) any {
	if s == "" {
		return nil
	}
	return s
}
