package lovage

import (
	"time"
)

// TaskSettings are the options of a task as the runtime uses them: what the
// class and the declaration give, and the App's settings for the rest.
type TaskSettings struct {
	AcksLate           bool
	AcksOnFailure      bool
	AcksOnTimeout      bool
	RejectOnWorkerLost bool
	MaxWorkerLosses    int // NoLimit: never give up

	MaxRetries        int // NoLimit: for ever
	DefaultRetryDelay time.Duration

	TimeLimit     time.Duration // 0: none
	SoftTimeLimit time.Duration
	// OwnTimeLimit and OwnSoftTimeLimit: the limit is the task's own, none is one
	// too, and a worker's does not replace it.
	OwnTimeLimit     bool
	OwnSoftTimeLimit bool
	RateLimit        string // "" or "0": none

	IgnoreResult             bool
	StoreErrorsEvenIfIgnored bool
	TrackStarted             bool
	SendEvents               bool
	Typing                   bool
	Trail                    bool
	ResultReprMaxSize        int
	Isolated                 bool // in a child process, also in the goroutine pool
}

const (
	defaultMaxRetries = 3
	defaultRetryDelay = 3 * time.Minute
	defaultReprSize   = 1024
)

func (d *Definition) settings() TaskSettings {
	c, o := d.app.conf, &d.opts
	onFailure, onTimeout := c.TaskAcksOnFailure, c.TaskAcksOnTimeout
	return TaskSettings{
		AcksLate:                 or(o.acksLate, c.TaskAcksLate),
		AcksOnFailure:            or(o.acksOnFailure, onFailure),
		AcksOnTimeout:            or(o.acksOnTimeout, onTimeout),
		RejectOnWorkerLost:       or(o.rejectOnWorkerLost, c.TaskRejectOnWorkerLost),
		MaxWorkerLosses:          or(o.maxWorkerLosses, c.TaskMaxWorkerLosses),
		MaxRetries:               or(o.maxRetries, defaultMaxRetries),
		DefaultRetryDelay:        or(o.retryDelay, defaultRetryDelay),
		TimeLimit:                limit(or(o.timeLimit, c.TaskTimeLimit)),
		SoftTimeLimit:            limit(or(o.softLimit, c.TaskSoftTimeLimit)),
		OwnTimeLimit:             o.timeLimit != nil,
		OwnSoftTimeLimit:         o.softLimit != nil,
		RateLimit:                or(o.rateLimit, c.TaskDefaultRateLimit),
		IgnoreResult:             or(o.ignoreResult, c.TaskIgnoreResult),
		StoreErrorsEvenIfIgnored: or(o.storeErrors, c.TaskStoreErrorsEvenIfIgnored),
		TrackStarted:             or(o.trackStarted, c.TaskTrackStarted),
		SendEvents:               or(o.sendEvents, true),
		Typing:                   or(o.typing, true),
		Trail:                    or(o.trail, true),
		ResultReprMaxSize:        or(o.resultRepr, defaultReprSize),
		Isolated:                 or(o.isolated, false),
	}
}

// or is the value of an option, or the default where none was given.
func or[T any](p *T, def T) T {
	if p != nil {
		return *p
	}
	return def
}

// limit makes NoLimit, and anything below zero, no limit.
func limit(d time.Duration) time.Duration { return max(d, 0) }

// merge lays the options of over upon o.
func (o *options) merge(over *options) {
	set(&o.queue, over.queue)
	set(&o.exchange, over.exchange)
	set(&o.routingKey, over.routingKey)
	set(&o.priority, over.priority)
	set(&o.deliveryMode, over.deliveryMode)
	set(&o.mandatory, over.mandatory)
	set(&o.serializer, over.serializer)
	set(&o.compression, over.compression)
	set(&o.shadow, over.shadow)
	set(&o.argsRepr, over.argsRepr)
	set(&o.kwargsRepr, over.kwargsRepr)
	if over.headers != nil {
		Headers(over.headers).call(o)
	}
	if over.countdown != nil || over.eta != nil {
		o.countdown, o.eta = over.countdown, over.eta
	}
	if over.expires != nil || over.expiresAt != nil {
		o.expires, o.expiresAt = over.expires, over.expiresAt
	}
	set(&o.timeLimit, over.timeLimit)
	set(&o.softLimit, over.softLimit)
	set(&o.taskID, over.taskID)
	set(&o.rootID, over.rootID)
	set(&o.parentID, over.parentID)
	set(&o.groupID, over.groupID)
	set(&o.replyTo, over.replyTo)
	set(&o.addToParent, over.addToParent)
	set(&o.retries, over.retries)
	o.links = append(o.links[:len(o.links):len(o.links)], over.links...)
	o.linkErrors = append(o.linkErrors[:len(o.linkErrors):len(o.linkErrors)], over.linkErrors...)
	set(&o.publishRetry, over.publishRetry)
	o.noRetry = o.noRetry || over.noRetry
	set(&o.ignoreResult, over.ignoreResult)
	set(&o.maxRetries, over.maxRetries)
	if over.newArgs != nil {
		o.newArgs = over.newArgs
	}
}

func set[T any](dst **T, src *T) {
	if src != nil {
		*dst = src
	}
}
