package lovage

import (
	"errors"
	"time"

	"github.com/lovage-go/lovage/internal/backoff"
)

// Options say what they may be given to: a declaration, a call (or signature),
// or a retry. What is set later wins: app < base class < declaration <
// signature < call.
type (
	// TaskOption is legal in a declaration.
	TaskOption interface{ task(*options) }
	// CallOption is legal in a call and in a signature.
	CallOption interface{ call(*options) }
	// RetryOption is legal in Retry.
	RetryOption interface{ retry(*options) }
	// Option is legal everywhere.
	Option interface {
		TaskOption
		CallOption
		RetryOption
	}
	// TaskCallOption is legal in a declaration and in a call.
	TaskCallOption interface {
		TaskOption
		CallOption
	}
	// TaskRetryOption is legal in a declaration and in a retry.
	TaskRetryOption interface {
		TaskOption
		RetryOption
	}
	// CallRetryOption is legal in a call and in a retry.
	CallRetryOption interface {
		CallOption
		RetryOption
	}
)

type (
	anyOption       func(*options)
	taskOption      func(*options)
	callOption      func(*options)
	retryOption     func(*options)
	taskCallOption  func(*options)
	taskRetryOption func(*options)
	callRetryOption func(*options)
)

func (f anyOption) task(o *options)        { f(o) }
func (f anyOption) call(o *options)        { f(o) }
func (f anyOption) retry(o *options)       { f(o) }
func (f taskOption) task(o *options)       { f(o) }
func (f callOption) call(o *options)       { f(o) }
func (f retryOption) retry(o *options)     { f(o) }
func (f taskCallOption) task(o *options)   { f(o) }
func (f taskCallOption) call(o *options)   { f(o) }
func (f taskRetryOption) task(o *options)  { f(o) }
func (f taskRetryOption) retry(o *options) { f(o) }
func (f callRetryOption) call(o *options)  { f(o) }
func (f callRetryOption) retry(o *options) { f(o) }

// options are the merged options of a task or a call; nil means not given.
type options struct {
	// Where it goes.
	queue, exchange, routingKey *string
	priority                    *int
	deliveryMode                *int
	mandatory                   *bool

	// How it is written.
	serializer, compression, shadow *string
	argsRepr, kwargsRepr            *string
	headers                         map[string]any

	// When it runs, and for how long.
	countdown            *time.Duration
	eta                  *time.Time
	expires              *time.Duration
	expiresAt            *time.Time
	timeLimit, softLimit *time.Duration

	// Who it belongs to.
	taskID, rootID, parentID, groupID, replyTo *string
	addToParent                                *bool
	retries                                    *int
	links, linkErrors                          []Linkable

	// How it is published.
	publishRetry *backoff.Policy
	noRetry      bool

	// What becomes of it.
	ignoreResult, storeErrors, trackStarted *bool

	// The task alone.
	acksLate, acksOnFailure, acksOnTimeout, rejectOnWorkerLost *bool
	maxWorkerLosses                                            *int
	maxRetries                                                 *int
	retryDelay                                                 *time.Duration
	rateLimit                                                  *string
	sendEvents, typing, trail                                  *bool
	retryOn, dontRetryOn, throws                               []func(error) bool
	retryBackoff                                               *retryBackoff
	resultRepr                                                 *int
	isolated                                                   *bool
	base                                                       func() Base
	meta                                                       map[string]any

	// A retry alone.
	newArgs any
}

type retryBackoff struct {
	base   time.Duration
	max    time.Duration
	jitter bool
}

// Queue names the queue. An unknown name is a new queue unless
// task_create_missing_queues is off.
func Queue(name string) Option { return anyOption(func(o *options) { o.queue = &name }) }

// Exchange and RoutingKey address an exchange directly, past the queues.
func Exchange(name string) Option { return anyOption(func(o *options) { o.exchange = &name }) }

// RoutingKey is the key that the exchange routes by.
func RoutingKey(key string) Option { return anyOption(func(o *options) { o.routingKey = &key }) }

// Priority is the message priority, 0 to 255. The embedded store and RabbitMQ
// serve the highest number first, Redis the lowest.
func Priority(p int) Option { return anyOption(func(o *options) { o.priority = &p }) }

// Expires drops the task, as REVOKED, if it has not started by then. NoLimit
// lifts an expiry that the declaration or configuration gave.
func Expires(after time.Duration) Option {
	return anyOption(func(o *options) { o.expires, o.expiresAt = &after, nil })
}

// ExpiresAt is Expires with a point in time.
func ExpiresAt(t time.Time) Option {
	return anyOption(func(o *options) { o.expiresAt, o.expires = &t, nil })
}

// TimeLimit is the hard limit of one run: the task fails with
// TimeLimitExceeded and its slot is freed. NoLimit lifts an inherited one.
func TimeLimit(d time.Duration) Option { return anyOption(func(o *options) { o.timeLimit = &d }) }

// SoftTimeLimit cancels the run's context with cause ErrSoftTimeLimit.
func SoftTimeLimit(d time.Duration) Option { return anyOption(func(o *options) { o.softLimit = &d }) }

// Serializer names how the message is encoded: json.
func Serializer(name string) Option { return anyOption(func(o *options) { o.serializer = &name }) }

// Compression names how the body is compressed: zlib, zstd ...
func Compression(name string) Option { return anyOption(func(o *options) { o.compression = &name }) }

// DeliveryMode is 2 for messages that outlive the broker, 1 for those that need not.
func DeliveryMode(mode int) Option { return anyOption(func(o *options) { o.deliveryMode = &mode }) }

// IgnoreResult stores neither states nor the return value.
func IgnoreResult(on bool) TaskCallOption {
	return taskCallOption(func(o *options) { o.ignoreResult = &on })
}

// PublishRetry is the policy of publishing: tries, and the waits between them.
// Its default is Celery's: 3 retries after 0, 0.2 and 0.4 s.
func PublishRetry(maxRetries int, start, step, max time.Duration) TaskCallOption {
	return taskCallOption(func(o *options) {
		o.noRetry = false
		o.publishRetry = &backoff.Policy{MaxRetries: maxRetries, IntervalStart: start, IntervalStep: step, IntervalMax: max}
	})
}

// NoPublishRetry makes the first failure to publish the last.
func NoPublishRetry() TaskCallOption { return taskCallOption(func(o *options) { o.noRetry = true }) }

// Countdown runs the task that much later.
func Countdown(d time.Duration) CallRetryOption {
	return callRetryOption(func(o *options) { o.countdown, o.eta = &d, nil })
}

// ETA runs the task not before t.
func ETA(t time.Time) CallRetryOption {
	return callRetryOption(func(o *options) { o.eta, o.countdown = &t, nil })
}

// Headers adds headers of the caller's own; they reach Request.Headers and are
// kept on a retry. Values must be what JSON can carry.
func Headers(h map[string]any) CallRetryOption {
	return callRetryOption(func(o *options) {
		merged := make(map[string]any, len(o.headers)+len(h))
		for k, v := range o.headers {
			merged[k] = v
		}
		for k, v := range h {
			merged[k] = v
		}
		o.headers = merged
	})
}

// TaskID sets the id instead of a random one.
func TaskID(id string) CallOption { return callOption(func(o *options) { o.taskID = &id }) }

// RootID and ParentID override what the running task would give.
func RootID(id string) CallOption { return callOption(func(o *options) { o.rootID = &id }) }

// ParentID overrides the id of the task that made the call.
func ParentID(id string) CallOption { return callOption(func(o *options) { o.parentID = &id }) }

// ReplyTo names the queue for results that travel as messages.
func ReplyTo(queue string) CallOption { return callOption(func(o *options) { o.replyTo = &queue }) }

// Retries is the number of retries that the call counts as behind it already.
func Retries(n int) CallOption { return callOption(func(o *options) { o.retries = &n }) }

// Shadow is the name that monitors show instead of the task's.
func Shadow(name string) CallOption { return callOption(func(o *options) { o.shadow = &name }) }

// ArgsRepr replaces the text that logs and monitors show for the positional arguments.
func ArgsRepr(text string) CallOption { return callOption(func(o *options) { o.argsRepr = &text }) }

// KwargsRepr replaces the text shown for the keyword arguments.
func KwargsRepr(text string) CallOption { return callOption(func(o *options) { o.kwargsRepr = &text }) }

// AddToParent off keeps the call out of the running task's children.
func AddToParent(on bool) CallOption { return callOption(func(o *options) { o.addToParent = &on }) }

// Mandatory makes a message that no queue takes an error.
func Mandatory(on bool) CallOption { return callOption(func(o *options) { o.mandatory = &on }) }

// Link adds calls that are made when the task succeeds.
func Link(sigs ...Linkable) CallOption {
	return callOption(func(o *options) { o.links = append(o.links[:len(o.links):len(o.links)], sigs...) })
}

// LinkError adds calls that are made when the task fails. They get the id of
// the failed task as their argument, unless they are complete.
func LinkError(sigs ...Linkable) CallOption {
	return callOption(func(o *options) { o.linkErrors = append(o.linkErrors[:len(o.linkErrors):len(o.linkErrors)], sigs...) })
}

// AcksLate acknowledges the message after the run, with its result, instead of
// before it: a worker that dies loses nothing. Lovage's default is true.
func AcksLate(on bool) TaskOption { return taskOption(func(o *options) { o.acksLate = &on }) }

// AcksOnFailure off makes a late-acknowledged task that fails a dead letter.
func AcksOnFailure(on bool) TaskOption { return taskOption(func(o *options) { o.acksOnFailure = &on }) }

// AcksOnTimeout off gives a late-acknowledged task that runs into its hard
// limit back to the queue.
func AcksOnTimeout(on bool) TaskOption { return taskOption(func(o *options) { o.acksOnTimeout = &on }) }

// RejectOnWorkerLost runs a task again whose worker died, up to MaxWorkerLosses
// times. Off, a task that is known to have run in a worker that died fails with
// WorkerLostError; one that comes back for the first time may only have waited
// there, and runs. Lovage's default is true.
func RejectOnWorkerLost(on bool) TaskOption {
	return taskOption(func(o *options) { o.rejectOnWorkerLost = &on })
}

// MaxWorkerLosses is how many workers may die on one message before it becomes
// a dead letter. Default 3; NoLimit never gives up.
func MaxWorkerLosses(n int) TaskOption {
	return taskOption(func(o *options) { o.maxWorkerLosses = &n })
}

// MaxRetries bounds Retry. Default 3; 0 is none, NoLimit for ever.
func MaxRetries(n int) TaskRetryOption {
	return taskRetryOption(func(o *options) { o.maxRetries = &n })
}

// DefaultRetryDelay is the wait before a retry that names none. Default 3 min.
func DefaultRetryDelay(d time.Duration) TaskOption {
	return taskOption(func(o *options) { o.retryDelay = &d })
}

// RateLimit bounds the starts of this task in one worker: "10/s", "100/m",
// "5/h", or a number per second.
func RateLimit(text string) TaskOption { return taskOption(func(o *options) { o.rateLimit = &text }) }

// StoreErrorsEvenIfIgnored keeps failures of a task whose results are ignored.
func StoreErrorsEvenIfIgnored(on bool) TaskOption {
	return taskOption(func(o *options) { o.storeErrors = &on })
}

// TrackStarted stores STARTED, with the worker's pid and name, before the run.
func TrackStarted(on bool) TaskOption { return taskOption(func(o *options) { o.trackStarted = &on }) }

// SendEvents off silences the task's monitoring events.
func SendEvents(on bool) TaskOption { return taskOption(func(o *options) { o.sendEvents = &on }) }

// Typing off skips the check of the arguments before publishing.
func Typing(on bool) TaskOption { return taskOption(func(o *options) { o.typing = &on }) }

// Trail off records no children.
func Trail(on bool) TaskOption { return taskOption(func(o *options) { o.trail = &on }) }

// ResultReprMaxSize bounds the text of the result in logs and events. Default 1024.
func ResultReprMaxSize(n int) TaskOption { return taskOption(func(o *options) { o.resultRepr = &n }) }

// Isolated runs the task in a child process also in a worker whose pool is
// goroutine: a hard time limit kills it, and what it does to its process happens
// to nobody else. The worker keeps a small pool for such tasks, in which their
// Init runs. In the pools prefork and solo it changes nothing.
func Isolated() TaskOption {
	on := true
	return taskOption(func(o *options) { o.isolated = &on })
}

// WithBase gives a plain function a base class: a fresh instance from new
// carries its hooks and resources, reachable by [Self].
func WithBase(new func() Base) TaskOption { return taskOption(func(o *options) { o.base = new }) }

// Attr attaches a value of the caller's own to the task, which its hooks and
// interceptors read by Definition.Attr.
func Attr(key string, value any) TaskOption {
	return taskOption(func(o *options) {
		m := map[string]any{key: value}
		for k, v := range o.meta {
			if k != key {
				m[k] = v
			}
		}
		o.meta = m
	})
}

// RetryOn retries the task when Run returns one of these errors, by errors.Is;
// a zero value, such as &NetError{} or (*NetError)(nil), stands for every error
// of its type (autoretry_for). Ignore, Retry, Reject and what DontRetryOn names
// pass through.
func RetryOn(errs ...error) TaskOption {
	match := matchers("RetryOn", errs)
	return RetryIf(func(err error) bool {
		var reject *RejectError // its reason is not what was returned
		return !errors.As(err, &reject) && matchesAny(err, match)
	})
}

// RetryIf is RetryOn with a predicate, which is asked about a Reject too.
func RetryIf(match func(error) bool) TaskOption {
	return taskOption(func(o *options) { o.retryOn = append(o.retryOn, match) })
}

// RetryOnAny retries on every error, a Reject and a panic included, as Celery
// does for autoretry_for=(Exception,).
func RetryOnAny() TaskOption { return RetryIf(func(error) bool { return true }) }

// DontRetryOn exempts errors from RetryOn.
func DontRetryOn(errs ...error) TaskOption {
	match := matchers("DontRetryOn", errs)
	return taskOption(func(o *options) { o.dontRetryOn = append(o.dontRetryOn, match...) })
}

// RetryBackoff makes automatic retries wait base, 2*base, 4*base ... up to max
// (0 is Celery's 600 s). With jitter the wait is uniform between 0 and that.
func RetryBackoff(base, max time.Duration, jitter bool) TaskOption {
	if base <= 0 {
		base = time.Second
	}
	if max <= 0 {
		max = 600 * time.Second
	}
	return taskOption(func(o *options) { o.retryBackoff = &retryBackoff{base, max, jitter} })
}

// Throws names errors that are expected: FAILURE, but logged without a
// traceback at INFO.
func Throws(errs ...error) TaskOption {
	match := matchers("Throws", errs)
	return taskOption(func(o *options) { o.throws = append(o.throws, match...) })
}

// NewArgs retries with other arguments: a value of the task's argument type.
func NewArgs(in any) RetryOption { return retryOption(func(o *options) { o.newArgs = in }) }
