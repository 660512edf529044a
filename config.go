package lovage

import (
	"regexp"
	"time"

	"github.com/lovage-go/lovage/broker"
)

// NoLimit stands for Celery's None where None is not the default: no expiry, no
// cap, no end of retries. It fits the numbers and the durations of [Config] and
// the options that take either.
const NoLimit = -1

// Config holds the settings of an app. The zero Config is complete: each field
// that is zero (nil for the pointers) has its default. Field names are Celery's
// setting names in Go's spelling: task_acks_late is TaskAcksLate. Durations are
// seconds in files and in the environment, where "1h30m" is taken too.
//
// Sources are applied in the order of the calls, a later one wins. The order
// meant is the literal, [Config.LoadFile], [Config.LoadEnv], the command line
// ([Config.LoadArgs]). [Config.Table] lists every setting with its value,
// default, source and meaning.
//
// A Config is plain data: copy it as you like, change it from one goroutine. An
// app takes its own copy when it is made.
type Config struct {
	// BrokerURL is where messages travel: one URL, or several with ; between
	// them, tried in turn. Default: none, unless package embedded is imported.
	BrokerURL string
	// BrokerFailoverStrategy is the order in which several URLs are tried:
	// "round-robin", as they are written, or "shuffle". One that works is kept
	// until it fails. Default round-robin.
	BrokerFailoverStrategy string
	// BrokerReadURL and BrokerWriteURL replace BrokerURL for consuming and for
	// publishing. Default: BrokerURL.
	BrokerReadURL  string
	BrokerWriteURL string
	// BrokerTransportOptions goes to the broker driver; see the driver's package.
	BrokerTransportOptions map[string]any
	// BrokerUseSSL is TLS to the broker, also where its URL does not say so: a map
	// of keyfile, certfile, ca_certs and cert_reqs, which may be empty. Default nil:
	// as the URL says.
	BrokerUseSSL map[string]any
	// BrokerLoginMethod is how to log in to RabbitMQ: PLAIN, AMQPLAIN or EXTERNAL.
	// Default PLAIN.
	BrokerLoginMethod string
	// BrokerHeartbeat is the pause between heartbeats to RabbitMQ. Default 10 s,
	// Celery's is 120; NoLimit: as often as the server asks.
	BrokerHeartbeat time.Duration
	// BrokerNativeDelayedDeliveryQueueType is the type of the queues on RabbitMQ in
	// which messages wait until they are due: quorum or classic. Default quorum.
	BrokerNativeDelayedDeliveryQueueType string
	// BrokerConnectionTimeout bounds one attempt to connect. Default 4 s.
	BrokerConnectionTimeout time.Duration
	// BrokerConnectionRetry connects again when a connection is lost. Default true.
	BrokerConnectionRetry *bool
	// BrokerConnectionRetryOnStartup tries again when the first connection
	// fails. Default: as BrokerConnectionRetry.
	BrokerConnectionRetryOnStartup *bool
	// BrokerConnectionIntervalMax is the longest pause between two attempts to
	// connect. Default 2 s. A setting of ours.
	BrokerConnectionIntervalMax time.Duration
	// BrokerConnectionMaxRetries is the number of attempts before a worker gives
	// up. Default NoLimit: it does not.
	BrokerConnectionMaxRetries int
	// BrokerPublishTimeout bounds a call whose context has no deadline. Default
	// 5 s; NoLimit: as long as it takes, which is Celery's way. A setting of ours.
	BrokerPublishTimeout time.Duration

	// ResultBackend is where results are stored: a URL. Default: none, results
	// are not kept, unless package embedded is imported.
	ResultBackend string
	// ResultBackendTransportOptions goes to the backend driver.
	ResultBackendTransportOptions map[string]any
	// RedisHost, RedisPort, RedisDB, RedisUsername and RedisPassword are what
	// ResultBackend, a URL of Redis, leaves out.
	RedisHost     string
	RedisPort     int
	RedisDB       int
	RedisUsername string
	RedisPassword string
	// RedisBackendUseSSL is TLS to Redis, also where ResultBackend does not say so,
	// as BrokerUseSSL.
	RedisBackendUseSSL map[string]any
	// RedisSocketTimeout and RedisSocketConnectTimeout bound the wait for an answer
	// and for a connection to results in Redis. Default 10 s and 5 s; Celery's are
	// 120 s and none.
	RedisSocketTimeout        time.Duration
	RedisSocketConnectTimeout time.Duration
	// RedisBackendHealthCheckInterval is how long a connection to results in Redis
	// may be silent before it is tried. Default 5 s.
	RedisBackendHealthCheckInterval time.Duration
	// RedisClientName is the name of those connections in CLIENT LIST. Default lovage.
	RedisClientName string
	// ResultExpires is how long a result is kept. Default 24 h; NoLimit: for ever.
	ResultExpires time.Duration
	// ResultExtended stores the task's name, arguments, worker, retries and queue
	// beside its result. Default false.
	ResultExtended *bool
	// ResultChordRetryInterval is how often a result store that does not count
	// chords is asked whether a header is complete. Default 1 s.
	ResultChordRetryInterval time.Duration
	// ResultPersistent lets results that travel as messages (rpc://) survive a
	// restart of the server. Default false.
	ResultPersistent *bool
	// ResultSerializer encodes results. Default json.
	ResultSerializer string
	// ResultAcceptContent lists the content types read from the result store.
	// Default: AcceptContent.
	ResultAcceptContent []string

	// AcceptContent lists the content types, or serializer names, that are
	// decoded; anything else is refused. Default json.
	AcceptContent []string
	// TaskSerializer encodes calls. Default json.
	TaskSerializer string
	// TaskCompression compresses calls: zlib, bzip2, ... Default: none.
	TaskCompression string
	// TaskProtocol is the message version sent, 1 or 2; both are read. Default 2.
	TaskProtocol int
	// TaskMaxMessageSize is the largest message read or sent, in bytes, also
	// after decompression. Default 16 MiB; NoLimit: none. A setting of ours.
	TaskMaxMessageSize int

	// TaskAcksLate acknowledges a message when its run has ended, not when it
	// starts, so that a run cut short is repeated. Default true; Celery's is false.
	TaskAcksLate *bool
	// TaskRejectOnWorkerLost runs a task again whose worker died under it.
	// Default true; Celery's is false.
	TaskRejectOnWorkerLost *bool
	// TaskMaxWorkerLosses is the number of workers that may die under one message
	// before it becomes a dead letter. Default 3; NoLimit: any number. A setting
	// of ours.
	TaskMaxWorkerLosses int
	// TaskAcksOnFailure and TaskAcksOnTimeout acknowledge late acks after an
	// error and after a time limit. Default: TaskAcksOnFailureOrTimeout, whose
	// default is true.
	TaskAcksOnFailure          *bool
	TaskAcksOnTimeout          *bool
	TaskAcksOnFailureOrTimeout *bool

	// TaskIgnoreResult stores no results unless a task says otherwise. Default false.
	TaskIgnoreResult *bool
	// TaskStoreErrorsEvenIfIgnored stores failures of tasks whose results are
	// ignored. Default false.
	TaskStoreErrorsEvenIfIgnored *bool
	// TaskTrackStarted stores the state STARTED when a run begins. Default false.
	TaskTrackStarted *bool
	// TaskTimeLimit fails a run that lasts longer. Default: no limit.
	TaskTimeLimit time.Duration
	// TaskSoftTimeLimit cancels the context of a run that lasts longer. Default:
	// no limit.
	TaskSoftTimeLimit time.Duration

	// TaskAlwaysEager runs each call at once, in the caller. Default false.
	TaskAlwaysEager *bool
	// TaskEagerPropagates returns a task's error from an eager call. Default false.
	TaskEagerPropagates *bool
	// TaskStoreEagerResult stores the results of eager runs. Default false.
	TaskStoreEagerResult *bool

	// TaskDefaultQueue receives calls that nothing routes. Default celery.
	TaskDefaultQueue string
	// TaskDefaultExchange and TaskDefaultRoutingKey belong to that queue.
	// Default: the queue's name.
	TaskDefaultExchange   string
	TaskDefaultRoutingKey string
	// TaskDefaultExchangeType is its exchange's type. Default direct.
	TaskDefaultExchangeType string
	// TaskDefaultQueueType is the type of that queue on RabbitMQ, classic or quorum.
	// Default classic.
	TaskDefaultQueueType string
	// TaskQueueMaxPriority is how many priorities queues on RabbitMQ have that do
	// not say. Default: none.
	TaskQueueMaxPriority int
	// TaskDefaultPriority is the priority of calls that have none. Default: none.
	TaskDefaultPriority *int
	// TaskDefaultDeliveryMode is 1 for messages that may be lost with the broker,
	// 2 for persistent ones. Default 2.
	TaskDefaultDeliveryMode int
	// TaskDefaultRateLimit limits tasks that have no limit of their own, for each
	// worker: "10/s", "100/m", "1000/h". Default: none.
	TaskDefaultRateLimit string
	// TaskCreateMissingQueues declares queues that TaskQueues does not name; when
	// false, using one is an error. Default true.
	TaskCreateMissingQueues *bool
	// TaskCreateMissingQueueType is the type of such queues on RabbitMQ, and
	// TaskCreateMissingQueueExchangeType that of their exchanges. Default classic
	// and direct.
	TaskCreateMissingQueueType         string
	TaskCreateMissingQueueExchangeType string
	// TaskQueues defines queues. Default: TaskDefaultQueue alone.
	TaskQueues []broker.Queue
	// TaskRoutes sends tasks to queues by name; the first match wins, an exact
	// name before a pattern or a regular expression. [WithRouter] adds functions.
	TaskRoutes []Route
	// TaskAnnotations overrides task options by task name, "*" for all tasks:
	// {"proj.add": {"rate_limit": "10/s"}}.
	TaskAnnotations map[string]map[string]any
	// TaskCls names the default class of the app's tasks, one of those given to
	// RegisterBase. Default: none.
	TaskCls string

	// TaskPublishRetry tries again when a call cannot be sent. Default true.
	TaskPublishRetry *bool
	// TaskPublishRetryPolicy says how often and how fast. Default: 3 retries,
	// at once, then 0.2 s more each time, up to 1 s.
	TaskPublishRetryPolicy *RetryPolicy
	// TaskSendSentEvent sends a task-sent event with each call. Default false.
	TaskSendSentEvent *bool
	// TaskInheritParentPriority gives a call made by a task its priority.
	// Default false.
	TaskInheritParentPriority *bool

	// Timezone is the zone of schedules and of times without one. Default UTC, or
	// the machine's zone if EnableUTC is false.
	Timezone string
	// EnableUTC writes times in UTC; when false they are written in Timezone.
	// Default true.
	EnableUTC *bool

	// EventExchange carries events. Default celeryev.
	EventExchange string
	// EventQueuePrefix begins the names of the queues on RabbitMQ by which events are
	// received. Default celeryev.
	EventQueuePrefix string
	// EventQueueExclusive queues belong to one connection and go with it, default
	// true; EventQueueDurable ones outlive the server, default false. They go when
	// unused for EventQueueExpires, default 60 s, and their messages when untaken for
	// EventQueueTTL, default 5 s; NoLimit: never.
	EventQueueExclusive *bool
	EventQueueDurable   *bool
	EventQueueExpires   time.Duration
	EventQueueTTL       time.Duration
	// EventSerializer encodes events. Default json.
	EventSerializer string
	// ControlExchange is the base name of the exchanges of remote control.
	// Default celery.
	ControlExchange string
	// ControlQueueExclusive, ControlQueueDurable, ControlQueueExpires and
	// ControlQueueTTL are the same for the queues of remote control. Default true,
	// false, 10 s, 300 s.
	ControlQueueExclusive *bool
	ControlQueueDurable   *bool
	ControlQueueExpires   time.Duration
	ControlQueueTTL       time.Duration

	// WorkerConcurrency is the number of runs at once. Default: the CPUs.
	WorkerConcurrency int
	// WorkerPrefetchMultiplier times the concurrency is the most a worker claims
	// ahead. As long as it is not set, and with NoLimit (Celery's 0), the
	// look-ahead adapts to how long runs take; Celery's default is 4.
	WorkerPrefetchMultiplier int
	// WorkerETATaskLimit is the number of messages that a worker holds until their
	// time, where the broker cannot park them. At the limit it claims no more.
	// Default 10,000; NoLimit: any number, as in Celery.
	WorkerETATaskLimit int
	// WorkerPool is how runs are carried out: goroutine, prefork or solo. Default
	// goroutine; Celery's is prefork.
	WorkerPool string
	// WorkerMaxTasksPerChild replaces a child of the prefork pool after that many
	// runs. Default: never.
	WorkerMaxTasksPerChild int
	// WorkerMaxMemoryPerChild replaces a child whose resident memory, in KiB, is
	// above it when a run has ended. Default: never.
	WorkerMaxMemoryPerChild int
	// WorkerDisablePrefetch lets a worker claim a message only when a slot is free.
	// Default false.
	WorkerDisablePrefetch *bool
	// WorkerDisableRateLimits ignores rate limits. Default false.
	WorkerDisableRateLimits *bool
	// WorkerDeduplicateSuccessfulTasks looks for the result of a task whose message
	// comes again, and does not run one that has succeeded: what follows it is sent
	// if it was not, and its part of a chord counted. Default true; Celery's is
	// false.
	WorkerDeduplicateSuccessfulTasks *bool
	// WorkerSendTaskEvents sends events about each run. Default false.
	WorkerSendTaskEvents *bool
	// WorkerEnableRemoteControl lets a worker obey remote control, which is
	// open to everyone who can publish to the broker. Default true.
	WorkerEnableRemoteControl *bool
	// WorkerUnknownTask is what becomes of a message for a task that the worker
	// does not know: "fail" rejects it, as Celery does; "dead" keeps it as a dead
	// letter; both store FAILURE(NotRegistered). "return" gives it back with a
	// pause as long as another worker of its queue knows the task, else it is as
	// "dead"; it needs remote control. Default dead.
	WorkerUnknownTask string
	// WorkerSoftShutdownTimeout is the time that runs get between a second signal
	// and the cold shutdown. Default 0: none.
	WorkerSoftShutdownTimeout time.Duration
	// WorkerEnableSoftShutdownOnIdle waits that time out even when nothing runs.
	// Default false.
	WorkerEnableSoftShutdownOnIdle *bool
	// WorkerCancelLongRunningTasksOnConnectionLoss cancels runs that ack late when
	// the connection that they came by is lost, since the broker may give their
	// messages to others. Default false: runs go on and are settled if they can be.
	WorkerCancelLongRunningTasksOnConnectionLoss *bool
	// WorkerDirect lets a worker consume a queue of its own, <node name>.dq2.
	// Default false.
	WorkerDirect *bool
	// WorkerHealth is where a worker serves /livez and /readyz; see
	// worker.Config. Default: nowhere. A setting of ours.
	WorkerHealth string
	// WorkerProcAliveTimeout is the time from the start of a child of the prefork
	// pool to its first word. Default 30 s.
	WorkerProcAliveTimeout time.Duration
	// WorkerStateDB is a file that keeps over restarts what a worker has been told
	// to revoke, and its logical clock; see worker.Config. Default: none.
	WorkerStateDB string
	// WorkerRevokesMax is the number of revoked ids that a worker remembers, and
	// WorkerRevokeExpires for how long. Default 50 000, for three hours.
	WorkerRevokesMax    int
	WorkerRevokeExpires time.Duration
	// WorkerPidfile and WorkerLogfile are files of the worker command. Default:
	// none, and standard error.
	WorkerPidfile string
	WorkerLogfile string
	// WorkerUID, WorkerGID and WorkerUmask are who the worker command runs as and
	// how it makes files. Default: as it was started.
	WorkerUID   string
	WorkerGID   string
	WorkerUmask string
	// WorkerHijackRootLogger makes the worker's log handler the process's
	// default. Default true.
	WorkerHijackRootLogger *bool
	// WorkerLogFormat and WorkerTaskLogFormat shape log lines, in Celery's
	// notation, outside and inside of runs.
	WorkerLogFormat     string
	WorkerTaskLogFormat string
	// WorkerLogColor colours log lines. Default: on a terminal.
	WorkerLogColor *bool

	// origin has the source of each setting that was not set by the literal. It
	// is replaced, never changed, so that copies of a Config share nothing.
	origin map[string]string
}

// Route sends tasks to a queue. It is data; see [Config.TaskRoutes], and
// [WithRouter] for what a function decides.
type Route struct {
	// Pattern is a task name, or a shell pattern: "proj.images.*".
	Pattern string
	// Regexp, in place of Pattern, matches from the start of a task's name, and
	// to its end if it says so.
	Regexp *regexp.Regexp
	// Queue, Exchange and RoutingKey say where to; empty ones follow the queue.
	Queue      string
	Exchange   string
	RoutingKey string
	// Priority of the messages; nil leaves it as it is.
	Priority *int
	// Options are further publishing options, under Celery's names.
	Options map[string]any
}

// RetryPolicy says how often and how fast something is tried again: at first
// after IntervalStart, then IntervalStep longer each time, up to IntervalMax.
type RetryPolicy struct {
	// MaxRetries counts the tries after the first; NoLimit: for ever.
	MaxRetries    int
	IntervalStart time.Duration
	IntervalStep  time.Duration
	IntervalMax   time.Duration
}

// Interval returns the pause before retry n, counted from 0.
func (p RetryPolicy) Interval(n int) time.Duration {
	if p.IntervalStep > 0 && time.Duration(n) > (p.IntervalMax-p.IntervalStart)/p.IntervalStep {
		return max(p.IntervalMax, 0)
	}
	return max(min(p.IntervalStart+time.Duration(n)*p.IntervalStep, p.IntervalMax), 0)
}
