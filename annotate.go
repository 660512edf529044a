package lovage

import (
	"fmt"
	"sort"
	"time"

	"github.com/lovage-go/lovage/internal/settings"
)

// annotate applies task_annotations: the entry of the task's own name first,
// then "*" for what that leaves open, as Celery does.
func (a *App) annotate(d *Definition) error {
	done := map[string]bool{}
	for _, key := range []string{d.name, "*"} {
		attrs := a.conf.TaskAnnotations[key]
		names := make([]string, 0, len(attrs))
		for n := range attrs {
			names = append(names, n)
		}
		sort.Strings(names)
		for _, n := range names {
			if done[n] {
				continue
			}
			done[n] = true
			if err := d.opts.setAttr(n, attrs[n]); err != nil {
				return fmt.Errorf("task_annotations[%q][%q]: %w", key, n, err)
			}
		}
	}
	return nil
}

// setAttr sets an option under the name of Celery's task attribute.
func (o *options) setAttr(name string, v any) error {
	switch name {
	case "queue":
		return attr(v, &o.queue)
	case "exchange":
		return attr(v, &o.exchange)
	case "routing_key":
		return attr(v, &o.routingKey)
	case "serializer":
		return attr(v, &o.serializer)
	case "compression":
		return attr(v, &o.compression)
	case "rate_limit":
		if n, ok := settings.Number(v); ok {
			v = fmt.Sprint(n)
		} else if v == nil {
			v = "" // no limit, also where task_default_rate_limit has one
		}
		return attr(v, &o.rateLimit)
	case "priority":
		return attrInt(v, &o.priority)
	case "delivery_mode":
		return attrInt(v, &o.deliveryMode)
	case "max_retries":
		return attrInt(v, &o.maxRetries)
	case "max_worker_losses":
		return attrInt(v, &o.maxWorkerLosses)
	case "resultrepr_maxsize":
		return attrInt(v, &o.resultRepr)
	case "default_retry_delay":
		return attrSeconds(v, &o.retryDelay)
	case "time_limit":
		return attrSeconds(v, &o.timeLimit)
	case "soft_time_limit":
		return attrSeconds(v, &o.softLimit)
	case "expires":
		return attrSeconds(v, &o.expires)
	case "acks_late":
		return attr(v, &o.acksLate)
	case "acks_on_failure":
		return attr(v, &o.acksOnFailure)
	case "acks_on_timeout":
		return attr(v, &o.acksOnTimeout)
	case "acks_on_failure_or_timeout":
		if err := attr(v, &o.acksOnFailure); err != nil {
			return err
		}
		return attr(v, &o.acksOnTimeout)
	case "reject_on_worker_lost":
		return attr(v, &o.rejectOnWorkerLost)
	case "ignore_result":
		return attr(v, &o.ignoreResult)
	case "store_errors_even_if_ignored":
		return attr(v, &o.storeErrors)
	case "track_started":
		return attr(v, &o.trackStarted)
	case "send_events":
		return attr(v, &o.sendEvents)
	case "trail":
		return attr(v, &o.trail)
	case "typing":
		return attr(v, &o.typing)
	}
	if len(name) > 0 && name[0] == '@' {
		return fmt.Errorf("methods cannot come from configuration in Go: use WithDefaultTask or app.Use(interceptor)")
	}
	return fmt.Errorf("no such task attribute%s", suggest(name, taskAttrs))
}

var taskAttrs = []string{
	"acks_late", "acks_on_failure", "acks_on_failure_or_timeout", "acks_on_timeout", "compression", "default_retry_delay",
	"delivery_mode", "exchange", "expires", "ignore_result", "max_retries", "max_worker_losses", "priority", "queue",
	"rate_limit", "reject_on_worker_lost", "resultrepr_maxsize", "routing_key", "send_events", "serializer", "soft_time_limit",
	"store_errors_even_if_ignored", "time_limit", "track_started", "trail", "typing",
}

// attr takes a value of one type; nil is Celery's None, which leaves the option
// to the App's settings.
func attr[T any](v any, dst **T) error {
	if v == nil {
		*dst = nil
		return nil
	}
	t, ok := v.(T)
	if !ok {
		return fmt.Errorf("got a %T, want a %T", v, t)
	}
	*dst = &t
	return nil
}

// attrInt takes a number; nil is Celery's None, no limit.
func attrInt(v any, dst **int) error {
	n := NoLimit
	if v != nil {
		f, ok := settings.Number(v)
		if !ok {
			return fmt.Errorf("got a %T, want a number", v)
		}
		n = int(f)
	}
	*dst = &n
	return nil
}

func attrSeconds(v any, dst **time.Duration) error {
	var d time.Duration = NoLimit
	switch t := v.(type) {
	case nil:
	case time.Duration:
		d = t
	case string:
		parsed, err := time.ParseDuration(t)
		if err != nil {
			return err
		}
		d = parsed
	default:
		f, ok := settings.Number(v)
		if !ok {
			return fmt.Errorf("got a %T, want seconds", v)
		}
		d = time.Duration(f * float64(time.Second))
	}
	*dst = &d
	return nil
}
