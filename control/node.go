package control

import (
	"context"
	"errors"
	"time"

	"github.com/lovage-go/lovage/broker"
)

// ErrUnknownTask is returned by a Node for a task name that it does not know.
var ErrUnknownTask = errors.New("control: unknown task")

// Clock is the logical clock of a node; see events.Clock.
type Clock interface {
	Value() int64
	Forward() int64
	Adjust(other int64) int64
}

// Node is what a command sees of a worker. It is safe for concurrent use.
type Node interface {
	// Hostname is the node name.
	Hostname() string
	Clock() Clock

	// Revoke lets the tasks of these ids not run.
	Revoke(ids ...string)
	// Terminate revokes them, ends those that run, and returns those it has.
	Terminate(ids ...string) []string
	// Revoked are the revoked ids with the time of the revocation.
	Revoked() map[string]time.Time

	// SetRate sets the time between two runs of a task here, and the text that
	// says so; 0 is no limit.
	SetRate(task, rate string, every time.Duration) error
	// SetTimeLimits sets the limits for later runs of a task; nil is the worker's.
	SetTimeLimits(task string, soft, hard *time.Duration) error

	// ResizePool adds n slots, or takes away -n.
	ResizePool(n int) error
	// AddConsumer consumes from a queue too. With nothing but its name it is the
	// configured one of that name, or a plain one.
	AddConsumer(ctx context.Context, q broker.Queue) error
	CancelConsumer(ctx context.Context, queue string) error

	// Shutdown stops the worker, warm.
	Shutdown(reason string)

	Active() []TaskInfo
	Reserved() []TaskInfo
	// Registered are the names of the tasks, each with its rate limit.
	Registered() []TaskType
	// Stats are counts and facts under Celery's names.
	Stats() map[string]any
}

// TaskType describes a registered task.
type TaskType struct{ Name, RateLimit string }

// TaskInfo describes a task that a worker has, in Celery's form.
type TaskInfo struct {
	ID           string       `json:"id"`
	Name         string       `json:"name"`
	Args         any          `json:"args"`
	Kwargs       any          `json:"kwargs"`
	Type         string       `json:"type"`
	Hostname     string       `json:"hostname"`
	TimeStart    *float64     `json:"time_start"` // seconds since 1970; null: not started
	Acknowledged bool         `json:"acknowledged"`
	DeliveryInfo DeliveryInfo `json:"delivery_info"`
	WorkerPID    *int         `json:"worker_pid"`
}

// DeliveryInfo is how a task came to the worker.
type DeliveryInfo struct {
	Exchange    string `json:"exchange"`
	RoutingKey  string `json:"routing_key"`
	Priority    *int   `json:"priority"`
	Redelivered bool   `json:"redelivered"`
}
