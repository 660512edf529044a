package control

import (
	"context"
	"encoding/json"
	"errors"
	"time"

	"github.com/lovage-go/lovage/broker"
)

// ErrUnknownTask is returned by a Node for a task name that it does not know.
var ErrUnknownTask = errors.New("control: unknown task")

// ErrAutoscaled is returned by a Node whose autoscaler has the pool's size, and
// ErrNoAutoscaler by one that has none.
var (
	ErrAutoscaled   = errors.New("control: the autoscaler has the pool's size")
	ErrNoAutoscaler = errors.New("control: there is no autoscaler")
)

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
	Revoke(ctx context.Context, ids ...string)
	// Terminate revokes them, ends those that run, and returns those it has. The
	// signal is told to monitors.
	Terminate(ctx context.Context, signal int, ids ...string) []string
	// RevokeStamped lets tasks not run that are stamped with one of the values of
	// a header, each JSON as [Canonical] writes it. With terminate it ends those
	// that run, and returns what they were found by.
	RevokeStamped(stamps map[string][]string, terminate bool, signal int) map[string][]string
	// Heard takes over revokes that another worker knows.
	Heard(ids ...string)
	// Revoked are the revoked ids with the time of the revocation.
	Revoked() map[string]time.Time

	// SetRate sets the time between two runs of a task here, and the text that
	// says so; 0 is no limit.
	SetRate(task, rate string, every time.Duration) error
	// SetTimeLimits sets the limits for later runs of a task; nil is the worker's.
	SetTimeLimits(task string, soft, hard *time.Duration) error

	// ResizePool adds n slots, or takes away -n.
	ResizePool(n int) error
	// Autoscale changes the bounds of the autoscaler, those that are not nil, and
	// returns them.
	Autoscale(most, least *int) (newMost, newLeast int, err error)
	// AddConsumer consumes from a queue too. With nothing but its name it is the
	// configured one of that name, or a plain one.
	AddConsumer(ctx context.Context, q broker.Queue) error
	CancelConsumer(ctx context.Context, queue string) error

	// Queues are those that the worker consumes.
	Queues() []broker.Queue
	// SendTaskEvents turns task events on or off and reports whether that is news.
	SendTaskEvents(on bool) bool
	// Heartbeat sends a heartbeat event now.
	Heartbeat()
	// Elect takes part in an election; action is what the winner of its topic gets.
	Elect(ctx context.Context, id, topic string, action json.RawMessage) error
	// Shutdown stops the worker, warm.
	Shutdown(reason string)

	// Active are the runs under way; safe gives their arguments as text.
	Active(safe bool) []TaskInfo
	Reserved() []TaskInfo
	// Scheduled are the tasks that wait for their time, as far as a page goes.
	Scheduled(ctx context.Context) ([]Scheduled, error)
	Registered() []TaskType
	// Settings are those that are set, or all, without secrets.
	Settings(all bool) map[string]any
	// Report is a text about versions and settings.
	Report() string
	// Stats are counts and facts under Celery's names.
	Stats() map[string]any
}

// TaskType describes a registered task: Info has the text of each of Celery's
// attributes that it has, such as rate_limit and max_retries.
type TaskType struct {
	Name string
	Info map[string]string
}

// Scheduled is a task that waits for its time.
type Scheduled struct {
	ETA      string   `json:"eta"` // ISO 8601
	Priority int      `json:"priority"`
	Request  TaskInfo `json:"request"`
}

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
