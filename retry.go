package lovage

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/lovage-go/lovage/internal/backoff"
	"github.com/lovage-go/lovage/internal/saferepr"
	"github.com/lovage-go/lovage/protocol"
)

// retry decides between another run and the end of the task.
func (d *Definition) retry(r *Request, given *RetryError) Outcome {
	c := *given // it may be shared by runs
	e := &c
	most := d.set.MaxRetries
	if e.opts.maxRetries != nil {
		most = *e.opts.maxRetries
	}
	cause := e.Cause
	if most >= 0 && r.Retries >= most {
		if cause == nil {
			args, kwargs := r.Describe()
			text := fmt.Sprintf("Can't retry %s[%s] args:%s kwargs:%s", r.Task, r.ID, args, kwargs)
			info := &ErrorInfo{
				Err:  fmt.Errorf("%w: %s", ErrMaxRetries, text),
				Type: "MaxRetriesExceededError", Module: moduleCelery, Args: []any{text},
			}
			info.Traceback = traceback(info.Err, info, d.where)
			return Outcome{State: Failure, Info: info}
		}
		info := newErrorInfo(cause, d.where)
		info.Expected = matchesAny(cause, d.opts.throws)
		return Outcome{State: Failure, Info: info}
	}
	e.When = d.delay(r, e)
	out := Outcome{State: StateRetry, Delay: e.When}
	if cause != nil {
		out.Info = newErrorInfo(cause, d.where)
	} else {
		text := retryText(&out)
		out.Info = &ErrorInfo{Type: "Retry", Module: moduleCelery, Args: []any{text}}
		out.Info.Traceback = traceback(e, out.Info, d.where)
	}
	out.Info.Err = e
	return out
}

// retryText is how Celery prints its Retry exception.
func retryText(out *Outcome) string {
	if out.Cancelled {
		return out.Info.Repr()
	}
	text := "Retry in " + secondsText(out.Delay) + "s"
	if out.Info != nil && out.Info.Type != "Retry" {
		text += ": " + out.Info.Repr()
	}
	return text
}

// delay is the wait before the next run: what the retry says, else the class's
// Backoff, else the task's default.
func (d *Definition) delay(r *Request, e *RetryError) time.Duration {
	switch {
	case e.opts.eta != nil:
		return max(time.Until(*e.opts.eta), 0)
	case e.opts.countdown != nil:
		return max(*e.opts.countdown, 0)
	case d.hooks.backoff != nil:
		var wait time.Duration
		ctx := context.WithValue(context.Background(), requestKey, r)
		if err := guard(func() error { wait = d.hooks.backoff(ctx, r, e.Cause); return nil }); err != nil {
			d.app.internalError(ctx, r, "Backoff", err)
			return d.set.DefaultRetryDelay
		}
		return max(wait, 0)
	}
	return d.set.DefaultRetryDelay
}

// autoDelay is the wait of an automatic retry with RetryBackoff; nil leaves it
// to the defaults.
func (d *Definition) autoDelay(r *Request) *time.Duration {
	b := d.opts.retryBackoff
	if b == nil {
		return nil
	}
	wait := backoff.Exponential(b.base, r.Retries, b.max, b.jitter, d.app.rand.int64n)
	return &wait
}

// retryMessage is the same message once more: same id and address, one retry
// more, the task as its own parent, and a time. The body is the one received,
// byte for byte, unless the arguments change.
func (a *App) retryMessage(r *Request, out *Outcome) (*protocol.Message, error) {
	e := out.Info.Err.(*RetryError)
	o := &e.opts
	argsRepr, kwargsRepr := r.Describe()
	h := protocol.Headers{
		Lang: "go", Task: r.Task, ID: r.ID, Shadow: r.Shadow,
		Group: r.Group, GroupIndex: r.GroupIndex, Retries: r.Retries + 1,
		RootID: r.RootID, ParentID: r.ID,
		ArgsRepr: argsRepr, KwargsRepr: kwargsRepr, Origin: a.origin,
		IgnoreResult: r.IgnoreResult, ReplacedTaskNesting: r.ReplacedTaskNesting,
		StampedHeaders: r.StampedHeaders, Stamps: r.Stamps, Compression: r.compression,
	}
	limits := r.limits(o)
	h.TimeLimit = protocol.TimeLimit{Hard: seconds(&limits.hard), Soft: seconds(&limits.soft)}
	h.Extra = keptHeaders(r.Headers)
	if len(o.headers) > 0 {
		more, err := encodeHeaders(o.headers)
		if err != nil {
			return nil, err
		}
		merged := make(map[string]json.RawMessage, len(more)+len(h.Extra))
		for k, v := range h.Extra {
			merged[k] = v
		}
		for k, v := range more {
			merged[k] = v
		}
		h.Extra = merged
	}
	if err := checkPriority(o.priority); err != nil {
		return nil, err
	}
	m := &protocol.Message{Headers: h, Body: r.body}
	if out.Delay > 0 {
		m.NotBefore = time.Now().Add(out.Delay)
		m.Headers.ETA = a.wireTime(m.NotBefore)
	}
	expires := r.Expires
	if o.expires != nil || o.expiresAt != nil {
		expires = o.expiry(time.Now())
	}
	a.setExpiry(m, expires, time.Now())
	m.Properties.ContentType, m.Properties.ContentEncoding = r.contentType, r.encoding
	m.Properties.CorrelationID, m.Properties.ReplyTo = r.ID, r.ReplyTo
	m.Properties.Priority = r.priority
	set(&m.Properties.Priority, o.priority)
	m.Properties.DeliveryMode = or(o.deliveryMode, cmp.Or(r.deliveryMode, a.conf.TaskDefaultDeliveryMode))
	m.Exchange, m.RoutingKey, m.Queue = r.Delivery.Exchange, r.Delivery.RoutingKey, r.Delivery.Queue
	if m.Exchange == "" && m.Queue == "" {
		m.Queue = m.RoutingKey
	}
	if o.queue != nil || o.exchange != nil || o.routingKey != nil {
		to := options{queue: o.queue, exchange: o.exchange, routingKey: o.routingKey, priority: m.Properties.Priority, deliveryMode: &m.Properties.DeliveryMode}
		if err := a.router.address(m, &to); err != nil {
			return nil, err
		}
	}
	if o.newArgs != nil || o.serializer != nil || o.compression != nil || m.Body == nil {
		if err := a.newBody(r, m, o); err != nil {
			return nil, err
		}
	}
	return m, nil
}

// newBody writes the body anew: with other arguments, or for a run that came
// without a message.
func (a *App) newBody(r *Request, m *protocol.Message, o *options) error {
	args, kwargs := json.RawMessage(r.Args), json.RawMessage(r.Kwargs)
	if o.newArgs != nil {
		var err error
		if raw, ok := o.newArgs.(Args); ok {
			args, kwargs, err = raw.encode()
		} else {
			args, kwargs, err = r.def.plan.Encode(o.newArgs)
		}
		if err != nil {
			return fmt.Errorf("retry of task %q with new arguments: %w", r.Task, err)
		}
		m.Headers.ArgsRepr = reprOf(nil, saferepr.AppendArgs, args)
		m.Headers.KwargsRepr = reprOf(nil, saferepr.AppendKwargs, kwargs)
	}
	body := protocol.Body{Args: args, Kwargs: kwargs, Embed: r.embed}
	m.Headers.Compression = ""
	return a.encodeBody(m, &body, &options{serializer: o.serializer, compression: o.compression})
}

type runLimits struct{ hard, soft time.Duration }

// limits are the time limits that travel with a retry.
func (r *Request) limits(o *options) runLimits {
	return runLimits{hard: limit(or(o.timeLimit, r.TimeLimit)), soft: limit(or(o.softLimit, r.SoftLimit))}
}

// keptHeaders are the caller's own headers without those a broker added.
func keptHeaders(h map[string]json.RawMessage) map[string]json.RawMessage {
	kept := h
	for _, k := range []string{"x-death", "x-delivery-count", "x-first-death-queue", "x-first-death-reason", "x-first-death-exchange", "redelivered"} {
		if _, ok := kept[k]; !ok {
			continue
		}
		c := make(map[string]json.RawMessage, len(kept))
		for key, v := range kept {
			if key != k {
				c[key] = v
			}
		}
		kept = c
	}
	return kept
}
