package control

import (
	"context"
	"errors"
	"math"
	"time"

	"github.com/lovage-go/lovage/broker"
)

func rateLimit(_ context.Context, n Node, a Args) (any, error) {
	task, err := a.Text("task_name")
	if err != nil {
		return nil, err
	}
	text, every, limited, err := parseRate(a["rate_limit"])
	if err != nil {
		var bad *Exception
		if errors.As(err, &bad) && bad.Type == "ValueError" {
			return Refused("Invalid rate limit string: %v", bad), nil
		}
		return nil, err
	}
	if err := n.SetRate(task, text, every); err != nil {
		return unknownTask(err)
	}
	if !limited {
		return OK("rate limit disabled successfully"), nil
	}
	return OK("new rate limit set successfully"), nil
}

func unknownTask(err error) (any, error) {
	if errors.Is(err, ErrUnknownTask) {
		return Refused("unknown task"), nil
	}
	return nil, err
}

func timeLimit(_ context.Context, n Node, a Args) (any, error) {
	task, err := a.Text("task_name")
	if err != nil {
		return nil, err
	}
	var limits [2]*time.Duration
	for i, name := range [...]string{"soft", "hard"} {
		var seconds *float64
		if err := a.Decode(name, &seconds); err != nil {
			return nil, err
		}
		if seconds == nil {
			continue
		}
		if *seconds < 0 || *seconds > math.MaxInt64/float64(time.Second)/2 {
			return nil, exception("ValueError", "%s: %v: want seconds, 0 for no limit", name, *seconds)
		}
		d := time.Duration(*seconds * float64(time.Second))
		limits[i] = &d
	}
	if soft, hard := limits[0], limits[1]; soft != nil && hard != nil && *hard > 0 && *soft > *hard {
		return nil, exception("ValueError", "the soft time limit (%s) is above the hard one (%s)", *soft, *hard)
	}
	if err := n.SetTimeLimits(task, limits[0], limits[1]); err != nil {
		return unknownTask(err)
	}
	return OK("time limits set successfully"), nil
}

// maxResize bounds one change of a pool: more is a slip of the finger.
const maxResize = 100_000

func resize(n Node, a Args, sign int, verb string) (any, error) {
	by := 1
	if err := a.Decode("n", &by); err != nil {
		return nil, err
	}
	if by < 0 || by > maxResize {
		return nil, exception("ValueError", "pool_%s: n is %d: want 0 to %d", verb, by, maxResize)
	}
	switch err := n.ResizePool(sign * by); {
	case errors.Is(err, ErrAutoscaled):
		return Refused("pool_%s is not supported with autoscale. Adjust autoscale range instead.", verb), nil
	case err != nil:
		return nil, exception("ValueError", "%v", err)
	}
	return OK("pool will %s", verb), nil
}

func autoscale(_ context.Context, n Node, a Args) (any, error) {
	var bounds [2]*int
	for i, name := range [...]string{"max", "min"} {
		if err := a.Decode(name, &bounds[i]); err != nil {
			return nil, err
		}
		if b := bounds[i]; b != nil && (*b < 0 || *b > maxResize) {
			return nil, exception("ValueError", "autoscale: %s is %d: want 0 to %d", name, *b, maxResize)
		}
	}
	most, least, err := n.Autoscale(bounds[0], bounds[1])
	switch {
	case errors.Is(err, ErrNoAutoscaler):
		return nil, exception("ValueError", "Autoscale not enabled")
	case err != nil:
		return nil, exception("ValueError", "%v", err)
	}
	return OK("autoscale now max=%d min=%d", most, least), nil
}

func addConsumer(ctx context.Context, n Node, a Args) (any, error) {
	var name, exchange, kind, key string
	for arg, dst := range map[string]*string{"queue": &name, "exchange": &exchange, "exchange_type": &kind, "routing_key": &key} {
		if err := a.Decode(arg, dst); err != nil {
			return nil, err
		}
	}
	if name == "" {
		return nil, exception("ValueError", "add_consumer: queue has no name")
	}
	q := broker.Queue{Name: name}
	if exchange != "" || key != "" || kind != "" && kind != "direct" {
		q = broker.Named(name)
		if exchange != "" {
			q.Exchange.Name = exchange
		}
		if kind != "" {
			q.Exchange.Type = kind
		}
		if key != "" {
			q.RoutingKey = key
		}
	}
	if err := n.AddConsumer(ctx, q); err != nil {
		return nil, err
	}
	return OK("add consumer %s", name), nil
}

func cancelConsumer(ctx context.Context, n Node, a Args) (any, error) {
	name, err := a.Text("queue")
	if err != nil {
		return nil, err
	}
	if err := n.CancelConsumer(ctx, name); err != nil {
		return nil, err
	}
	return OK("no longer consuming from %s", name), nil
}
