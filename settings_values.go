package lovage

import (
	"fmt"
	"reflect"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/lovage-go/lovage/broker"
	"github.com/lovage-go/lovage/internal/proc"
	"github.com/lovage-go/lovage/internal/settings"
)

// set converts value and puts it into the row's field of c.
func (row *Setting) set(c *Config, value any) error {
	field := reflect.ValueOf(c).Elem().FieldByName(row.Field)
	if settings.None(value) {
		field.SetZero()
		if row.limit {
			field.SetInt(NoLimit)
		}
		return nil
	}
	var err error
	switch f := field.Addr().Interface().(type) {
	case **bool:
		err = put(f, value, pointer(settings.Bool))
	case **int:
		err = put(f, value, pointer(settings.Int))
	case *int:
		err = put(f, value, settings.Int)
	case *time.Duration:
		err = put(f, value, settings.Duration)
	case *string:
		err = put(f, value, row.text)
	case *[]string:
		err = put(f, value, settings.Strings)
	case *map[string]any:
		if strings.HasSuffix(row.Name, "_use_ssl") {
			err = put(f, value, readSSL)
		} else {
			err = put(f, value, settings.Map)
		}
	case *[]broker.Queue:
		err = put(f, value, readQueues)
	case *[]Route:
		err = put(f, value, readRoutes)
	case *map[string]map[string]any:
		err = put(f, value, readAnnotations)
	case **RetryPolicy:
		err = put(f, value, readRetryPolicy)
	default:
		err = fmt.Errorf("field %s has the type %s, which no source can hold", row.Field, field.Type())
	}
	if err != nil {
		return err
	}
	if field.CanInt() && field.Int() == 0 && row.limit && row.least == 0 {
		field.SetInt(NoLimit)
	}
	// A zero is the default in a Config, but the writer meant a zero.
	if field.CanInt() && field.Int() == 0 && row.least > 0 {
		return fmt.Errorf("got 0, want at least %d%s", row.least, row.orNone())
	}
	return row.check(field)
}

func put[T any](field *T, value any, convert func(any) (T, error)) error {
	v, err := convert(value)
	if err == nil {
		*field = v
	}
	return err
}

func pointer[T any](convert func(any) (T, error)) func(any) (*T, error) {
	return func(value any) (*T, error) {
		v, err := convert(value)
		return &v, err
	}
}

// text converts a string setting. A list of URLs is joined as Celery writes it.
func (row *Setting) text(value any) (string, error) {
	if strings.HasSuffix(row.Name, "_url") {
		if urls, err := settings.List(value); err == nil {
			words, err := settings.Strings(urls)
			return strings.Join(words, ";"), err
		}
	}
	return settings.String(value)
}

// readSSL reads a switch, true being TLS without further options, or a map.
func readSSL(value any) (map[string]any, error) {
	on, err := settings.Bool(value)
	switch {
	case err != nil:
		m, err := settings.Map(value)
		if err != nil {
			return nil, &settings.WantError{Got: "something else", Want: "true, false, or a map of keyfile, certfile, ca_certs and cert_reqs"}
		}
		return m, nil
	case on:
		return map[string]any{}, nil
	}
	return nil, nil
}

// check judges a value that is there, wherever it came from.
func (row *Setting) check(field reflect.Value) error {
	if field.Kind() == reflect.Pointer && !field.IsNil() {
		field = field.Elem()
	}
	if field.CanInt() {
		n := field.Int()
		if n == 0 || n == NoLimit && row.limit {
			return nil
		}
		if n < int64(row.least) || n < 0 {
			return fmt.Errorf("got %v, want at least %d%s", field.Interface(), row.least, row.orNone())
		}
		if len(row.choices) == 0 {
			return nil
		}
	}
	if text := fmt.Sprint(field.Interface()); len(row.choices) > 0 && text != "" && !slices.Contains(row.choices, text) {
		near := settings.Closest(text, row.choices)
		if near != "" {
			near = "; did you mean " + near + "?"
		}
		return fmt.Errorf("got %q, want one of %s%s", text, strings.Join(row.choices, ", "), near)
	}
	return nil
}

func (row *Setting) orNone() string {
	if row.limit {
		return ", or none for no limit"
	}
	return ""
}

// configDefaults is the Config with every default written out.
var configDefaults = sync.OnceValue(func() Config {
	var c Config
	for i := range settingRows {
		if row := &settingRows[i]; row.Field != "" {
			if err := row.set(&c, row.Default); err != nil {
				panic("lovage: table of settings, default of " + row.Name + ": " + err.Error())
			}
		}
	}
	return c
})

// withDefaults returns c with its zero fields filled in. Maps and slices are
// shared with c.
func (c Config) withDefaults() Config {
	full := configDefaults()
	to, from := reflect.ValueOf(&full).Elem(), reflect.ValueOf(c)
	for i := range settingRows {
		if name := settingRows[i].Field; name != "" {
			if v := from.FieldByName(name); !v.IsZero() {
				to.FieldByName(name).Set(v)
			}
		}
	}
	full.origin = c.origin
	return full
}

// resolve returns c's values with defaults and fallbacks applied, or what is
// wrong with a value in it. Call it once and keep the result.
func (c Config) resolve() (*resolved, error) {
	full := c.withDefaults()
	out := &resolved{}
	to, from := reflect.ValueOf(out).Elem(), reflect.ValueOf(full)
	for i := range settingRows {
		row := &settingRows[i]
		if row.Field == "" {
			continue
		}
		v := from.FieldByName(row.Field)
		if err := row.check(v); err != nil {
			return nil, fmt.Errorf("setting %s (Config.%s): %w", row.Name, row.Field, err)
		}
		dst := to.FieldByName(row.Field)
		if v.Kind() == reflect.Pointer && dst.Kind() != reflect.Pointer {
			if v.IsNil() {
				continue
			}
			v = v.Elem()
		}
		dst.Set(v)
	}
	return out, out.fallbacks(full)
}

// fallbacks fills settings whose default is the value of another.
func (r *resolved) fallbacks(c Config) (err error) {
	r.BrokerReadURL = first(r.BrokerReadURL, r.BrokerURL)
	r.BrokerWriteURL = first(r.BrokerWriteURL, r.BrokerURL)
	r.TaskDefaultExchange = first(r.TaskDefaultExchange, r.TaskDefaultQueue)
	r.TaskDefaultRoutingKey = first(r.TaskDefaultRoutingKey, r.TaskDefaultQueue)
	if c.BrokerConnectionRetryOnStartup == nil {
		r.BrokerConnectionRetryOnStartup = r.BrokerConnectionRetry
	}
	if c.TaskAcksOnFailure == nil {
		r.TaskAcksOnFailure = r.TaskAcksOnFailureOrTimeout
	}
	if c.TaskAcksOnTimeout == nil {
		r.TaskAcksOnTimeout = r.TaskAcksOnFailureOrTimeout
	}
	if r.ResultAcceptContent == nil {
		r.ResultAcceptContent = r.AcceptContent
	}
	if r.WorkerConcurrency == 0 {
		r.WorkerConcurrency = proc.CPUs()
	}
	if err := r.forDrivers(); err != nil {
		return err
	}
	switch r.WorkerPool { // Celery's words
	case "threads", "gevent", "eventlet":
		r.WorkerPool = "goroutine"
	case "processes":
		r.WorkerPool = "prefork"
	}
	if r.TaskSoftTimeLimit > 0 && r.TaskTimeLimit > 0 && r.TaskSoftTimeLimit > r.TaskTimeLimit {
		return fmt.Errorf("setting task_soft_time_limit is %v and task_time_limit %v: make the soft limit the shorter one", r.TaskSoftTimeLimit, r.TaskTimeLimit)
	}
	switch {
	case r.Timezone != "":
		if r.Location, err = time.LoadLocation(r.Timezone); err != nil {
			return fmt.Errorf("setting timezone: %q is no time zone known here; write it like Europe/Prague, or import time/tzdata where the system has no zones: %w", r.Timezone, err)
		}
	case r.EnableUTC:
		r.Location = time.UTC
	default:
		r.Location = time.Local
	}
	return nil
}

func first(a, b string) string {
	if a != "" {
		return a
	}
	return b
}

// resolved is a Config whose every value is in place, for reading without
// thought: booleans are plain, numbers and durations below 1 have no limit where
// a limit is what they are. Nil pointers are those that Celery leaves open.
type resolved struct {
	BrokerURL, BrokerReadURL, BrokerWriteURL string
	BrokerFailoverStrategy                   string
	BrokerTransportOptions                   map[string]any // with those that have a setting of their own
	BrokerUseSSL                             map[string]any
	BrokerLoginMethod                        string
	BrokerHeartbeat                          time.Duration
	BrokerNativeDelayedDeliveryQueueType     string
	BrokerConnectionTimeout                  time.Duration
	BrokerConnectionRetry                    bool
	BrokerConnectionRetryOnStartup           bool
	BrokerConnectionIntervalMax              time.Duration
	BrokerConnectionMaxRetries               int
	BrokerPublishTimeout                     time.Duration

	ResultBackend                 string
	ResultBackendTransportOptions map[string]any // with those that have a setting of their own
	ResultExpires                 time.Duration
	ResultExtended                bool
	ResultChordRetryInterval      time.Duration
	ResultPersistent              bool
	ResultSerializer              string
	ResultAcceptContent           []string

	RedisHost, RedisUsername, RedisPassword, RedisClientName string
	RedisPort, RedisDB                                       int
	RedisBackendUseSSL                                       map[string]any
	RedisSocketTimeout, RedisSocketConnectTimeout            time.Duration
	RedisBackendHealthCheckInterval                          time.Duration

	AcceptContent      []string
	TaskSerializer     string
	TaskCompression    string
	TaskProtocol       int
	TaskMaxMessageSize int

	TaskAcksLate               bool
	TaskRejectOnWorkerLost     bool
	TaskMaxWorkerLosses        int
	TaskAcksOnFailure          bool
	TaskAcksOnTimeout          bool
	TaskAcksOnFailureOrTimeout bool

	TaskIgnoreResult             bool
	TaskStoreErrorsEvenIfIgnored bool
	TaskTrackStarted             bool
	TaskTimeLimit                time.Duration
	TaskSoftTimeLimit            time.Duration
	TaskAlwaysEager              bool
	TaskEagerPropagates          bool
	TaskStoreEagerResult         bool

	TaskDefaultQueue        string
	TaskDefaultExchange     string
	TaskDefaultRoutingKey   string
	TaskDefaultExchangeType string
	TaskDefaultPriority     *int
	TaskDefaultDeliveryMode int
	TaskDefaultRateLimit    string
	TaskDefaultQueueType    string
	TaskQueueMaxPriority    int
	TaskCreateMissingQueues bool

	TaskCreateMissingQueueType, TaskCreateMissingQueueExchangeType string

	TaskQueues      []broker.Queue
	TaskRoutes      []Route
	TaskAnnotations map[string]map[string]any
	TaskCls         string

	TaskPublishRetry          bool
	TaskPublishRetryPolicy    RetryPolicy
	TaskSendSentEvent         bool
	TaskInheritParentPriority bool

	Timezone        string
	EnableUTC       bool
	Location        *time.Location // of Timezone
	EventExchange   string
	EventSerializer string
	ControlExchange string

	EventQueuePrefix                           string
	EventQueueExclusive, EventQueueDurable     bool
	EventQueueExpires, EventQueueTTL           time.Duration
	ControlQueueExclusive, ControlQueueDurable bool
	ControlQueueExpires, ControlQueueTTL       time.Duration

	WorkerConcurrency         int // never 0
	WorkerPrefetchMultiplier  int
	WorkerETATaskLimit        int // NoLimit: any number
	WorkerPool                string
	WorkerUnknownTask         string
	WorkerMaxTasksPerChild    int
	WorkerMaxMemoryPerChild   int
	WorkerDisablePrefetch     bool
	WorkerDisableRateLimits   bool
	WorkerSendTaskEvents      bool
	WorkerEnableRemoteControl bool
	WorkerSoftShutdownTimeout time.Duration

	WorkerDeduplicateSuccessfulTasks bool

	WorkerEnableSoftShutdownOnIdle               bool
	WorkerCancelLongRunningTasksOnConnectionLoss bool
	WorkerDirect                                 bool
	WorkerHealth                                 string
	WorkerStateDB                                string
	WorkerRevokesMax                             int
	WorkerRevokeExpires                          time.Duration
	WorkerProcAliveTimeout                       time.Duration
	WorkerPidfile                                string
	WorkerLogfile                                string
	WorkerUID                                    string
	WorkerGID                                    string
	WorkerUmask                                  string
	WorkerHijackRootLogger                       bool
	WorkerLogFormat                              string
	WorkerTaskLogFormat                          string
	WorkerLogColor                               *bool // nil: on a terminal
}
