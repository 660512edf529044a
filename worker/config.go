package worker

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/lovage-go/lovage"
	"github.com/lovage-go/lovage/broker"
	"github.com/lovage-go/lovage/control"
	"github.com/lovage-go/lovage/internal/proc"
)

// Config is what a worker is given. The zero Config is a worker for the default
// queue with the App's settings.
type Config struct {
	// Hostname is the node name, expanded as Celery does: %h is the host, %n its
	// first part, %d the rest. Default celery@%h.
	Hostname string
	// Concurrency is the number of runs at once. Default worker_concurrency.
	Concurrency int
	// Autoscale lets the number of runs at once follow the load between two
	// bounds, in the pools goroutine and prefork: it grows at once when more
	// messages are claimed than there are slots, and shrinks to what was needed
	// of them in the last 30 s (AUTOSCALE_KEEPALIVE, in seconds). Concurrency is
	// its maximum then, whatever it is given. Default: a fixed number.
	Autoscale Autoscale
	// Pool is where runs happen: goroutine, in this process; prefork, in children
	// of it, one run at a time in each; solo, one run at a time in this process.
	// Celery's other names are understood: threads, gevent and eventlet are
	// goroutine, processes is prefork. Default worker_pool.
	Pool string
	// MaxTasksPerChild and MaxMemoryPerChild, in KiB, replace a child after so
	// many runs, and one that is larger when a run has ended. Default
	// worker_max_tasks_per_child and worker_max_memory_per_child.
	MaxTasksPerChild  int
	MaxMemoryPerChild int
	// Isolated is the number of children for tasks declared with
	// lovage.Isolated, in the goroutine pool. Default: the CPUs, at most the
	// concurrency.
	Isolated int
	// ChildEnv is the environment of children beside this process's, name=value.
	ChildEnv []string
	// Queues to consume, by name. Default: task_queues, or the default queue.
	Queues []string
	// ExcludeQueues are left out of the default ones.
	ExcludeQueues []string
	// LookAhead is the most messages that are claimed before a slot is free.
	// 0 adapts to the run times, up to 400, or to worker_prefetch_multiplier
	// times the concurrency if that is set, or to none if worker_disable_prefetch
	// is; negative claims nothing ahead.
	LookAhead int
	// TimeLimit and SoftTimeLimit are for tasks that have none of their own.
	// Default task_time_limit and task_soft_time_limit.
	TimeLimit     time.Duration
	SoftTimeLimit time.Duration
	// TaskEvents sends an event at each step of a task (-E). Default
	// worker_send_task_events.
	TaskEvents bool
	// HeartbeatInterval is the time between worker-heartbeat events. Default 2 s.
	HeartbeatInterval time.Duration
	// WithoutHeartbeat sends no worker events at all.
	WithoutHeartbeat bool
	// WithoutMingle asks no other worker at the start. Otherwise they are asked,
	// for a second in the background, what they have revoked, which tasks they
	// know and which queues they consume.
	WithoutMingle bool
	// WithoutGossip listens to no other worker's events: nobody joins, leaves or is
	// lost, and the worker takes no part in elections.
	WithoutGossip bool
	// Gossip is what is done with them.
	Gossip Gossip
	// Purge deletes what waits in the queues before the worker starts.
	Purge bool
	// SoftShutdownTimeout is the time that runs get when a cold shutdown is
	// asked for, before it happens. Default worker_soft_shutdown_timeout.
	SoftShutdownTimeout time.Duration
	// Grace is the time between the cancelling of runs at a cold shutdown and
	// the moment their messages are handed back all the same. Default 5 s.
	Grace time.Duration
	// StuckLimit is the number of runs that may go on past their hard time limit.
	// When it is reached the worker stops, warm, with ErrStuck, so that its
	// supervisor starts a fresh process. 0 is ten times the concurrency;
	// negative is no limit.
	StuckLimit int
	// StallTimeout is how long a connected worker with free slots may go without
	// an answer from its broker before it connects anew. Default 30 s.
	StallTimeout time.Duration
	// Lease is how long a claim outlives the last sign of life of this worker.
	// Default: the driver's.
	Lease time.Duration
	// Steps and ConsumerSteps are the program's own parts of the life of the
	// worker, and of each of its connections.
	Steps         []Step
	ConsumerSteps []Step
	// Health is where /livez and /readyz are served: host:port of the loopback
	// interface, unix:/path for a socket, or public:host:port where the whole
	// network may ask. Default worker_health.
	Health string
	// StateDB is a file that keeps over restarts what is revoked, and the logical
	// clock; %n, %h and %d as in Hostname. Each worker has its own. Default
	// worker_state_db.
	StateDB string
	// Commands are remote control commands of the program's own, beside Celery's.
	Commands []control.Command
	// Ready is called once, when the worker consumes; claims wait for its return.
	Ready func(Info)
}

// Info describes a worker that is ready.
type Info struct {
	Hostname    string
	PID         int
	Concurrency int
	Queues      []string
}

const (
	claimWait    = 5 * time.Second // a claim that finds nothing is a round trip too
	firstClaim   = 100 * time.Millisecond
	maxLookAhead = 400
	aheadWait    = time.Second // what waits longer is handed back
	aheadWork    = 75 * time.Millisecond
)

// settled fills in the defaults.
func (c Config) settled(s *lovage.Config, raw *lovage.Config) Config {
	if c.Hostname == "" {
		c.Hostname = "celery@%h"
	}
	c.Hostname = proc.NodeName(c.Hostname, "")
	c.StateDB = expand(or(c.StateDB, s.WorkerStateDB), c.Hostname)
	if c.Concurrency <= 0 {
		c.Concurrency = s.WorkerConcurrency
	}
	if name, err := PoolName(or(c.Pool, s.WorkerPool)); err == nil { // else prepare tells
		c.Pool = name
	}
	if c.Pool == poolSolo {
		c.Concurrency = 1
	}
	if c.Autoscale.Max > 0 {
		c.Autoscale.Min = max(c.Autoscale.Min, 1)
		c.Concurrency = c.Autoscale.Max
	}
	if c.Isolated <= 0 {
		c.Isolated = min(proc.CPUs(), c.Concurrency)
	}
	c.MaxTasksPerChild = max(or(c.MaxTasksPerChild, s.WorkerMaxTasksPerChild), 0)
	c.MaxMemoryPerChild = max(or(c.MaxMemoryPerChild, s.WorkerMaxMemoryPerChild), 0)
	switch {
	case c.LookAhead < 0, c.LookAhead == 0 && *s.WorkerDisablePrefetch:
		c.LookAhead = 0
	case c.LookAhead == 0 && raw.WorkerPrefetchMultiplier > 0:
		c.LookAhead = raw.WorkerPrefetchMultiplier * c.Concurrency
	case c.LookAhead == 0:
		c.LookAhead = maxLookAhead
	}
	c.TaskEvents = c.TaskEvents || *s.WorkerSendTaskEvents
	c.HeartbeatInterval = or(c.HeartbeatInterval, 2*time.Second)
	c.SoftShutdownTimeout = or(c.SoftShutdownTimeout, s.WorkerSoftShutdownTimeout)
	c.Grace = or(c.Grace, 5*time.Second)
	c.Health = or(c.Health, s.WorkerHealth)
	c.StallTimeout = max(or(c.StallTimeout, 30*time.Second), 2*claimWait)
	if c.StuckLimit == 0 {
		c.StuckLimit = 10 * c.Concurrency
	}
	return c
}

// expand replaces Celery's specifiers in a path.
func expand(path, node string) string {
	name, host, _ := strings.Cut(node, "@")
	return proc.Node{Name: name, Host: host}.Expand(path)
}

func or[T comparable](v, def T) T {
	var zero T
	if v == zero {
		return def
	}
	return v
}

const (
	poolGoroutine = "goroutine"
	poolPrefork   = "prefork"
	poolSolo      = "solo"
)

// PoolName is what the name of a pool, one of Celery's too, means here:
// goroutine, prefork or solo.
func PoolName(given string) (string, error) {
	switch given {
	case "", poolGoroutine, "threads", "gevent", "eventlet":
		return poolGoroutine, nil
	case poolPrefork, "processes":
		return poolPrefork, nil
	case poolSolo:
		return poolSolo, nil
	}
	return "", fmt.Errorf("there is no pool %q: use goroutine, prefork or solo", given)
}

// queues are those that the worker consumes.
func (w *Worker) queuesOf() ([]broker.Queue, error) {
	all, err := w.app.Queues(w.cfg.Queues...)
	if err != nil {
		return nil, err
	}
	all = slices.DeleteFunc(all, func(q broker.Queue) bool { return slices.Contains(w.cfg.ExcludeQueues, q.Name) })
	if *w.conf.WorkerDirect {
		all = append(all, broker.Direct(w.cfg.Hostname))
	}
	return all, nil
}
