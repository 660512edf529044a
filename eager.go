package lovage

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/lovage-go/lovage/broker"
	"github.com/lovage-go/lovage/internal/proc"
	"github.com/lovage-go/lovage/protocol"
	"github.com/lovage-go/lovage/serializer"
)

// apply runs a task in this goroutine through the whole of Execute. A retry
// runs at once, without its delay.
func (a *App) apply(ctx context.Context, d *Definition, args, kwargs json.RawMessage, opts []CallOption) (*resultCore, error) {
	if err := a.Freeze(); err != nil {
		return nil, err
	}
	local, ok := a.Lookup(d.name)
	if !ok {
		return nil, fmt.Errorf("%w: %q has no code in this program, so it cannot be applied here", ErrNotRegistered, d.name)
	}
	d = local
	if d.set.Typing {
		if err := d.plan.Check(d.name, args, kwargs); err != nil {
			return nil, argumentError(err)
		}
	}
	o := *d.callDefaults()
	for _, opt := range opts {
		opt.call(&o)
	}
	o.countdown, o.eta = nil, nil
	c := call{name: d.name, def: d, args: args, kwargs: kwargs}
	m, err := a.message(ctx, &c, &o)
	if err != nil {
		return nil, fmt.Errorf("task %q: %w", d.name, err)
	}
	if err := d.life.start(ctx); err != nil {
		return nil, err
	}
	for {
		r, err := a.eagerRequest(m)
		if err != nil {
			return nil, fmt.Errorf("task %q: %w", d.name, err)
		}
		var again *protocol.Message
		fin := FinisherFunc(func(ctx context.Context, e *Effects) error {
			for _, follow := range e.full {
				if follow.Headers.ID == r.ID && e.Outcome.State == StateRetry {
					again = follow
					continue
				}
				if err := a.eagerFollow(ctx, follow); err != nil {
					return err
				}
			}
			return a.storeEager(ctx, e)
		})
		out := a.Execute(ctx, r, fin)
		if again != nil && out.Fenced == nil {
			if ctx.Err() != nil { // nobody wants the endless retries any more
				return nil, fmt.Errorf("task %q: retry %d: %w", d.name, again.Headers.Retries, context.Cause(ctx))
			}
			m = again
			continue
		}
		return a.eagerResult(r, &out)
	}
}

// eagerRequest makes a request of a message that was never sent: the arguments
// have been through the serializer, so that its troubles show here too.
func (a *App) eagerRequest(m *protocol.Message) (*Request, error) {
	var body protocol.Body
	var err error
	raw := m.Body
	if m.Headers.Compression != "" {
		if raw, err = serializer.Decompress(m.Headers.Compression, raw, a.limits.MaxBytes); err != nil {
			return nil, err
		}
	}
	if a.conf.TaskProtocol == 1 {
		_, body, err = protocol.ParseV1(raw)
	} else {
		body, err = protocol.ParseBody(raw)
	}
	if err != nil {
		return nil, err
	}
	r, err := a.request(&m.Headers, &body)
	if err != nil {
		return nil, err
	}
	r.IsEager, r.Hostname = true, proc.Hostname()
	r.priority = m.Properties.Priority
	r.contentType, r.encoding = m.Properties.ContentType, m.Properties.ContentEncoding
	r.deliveryMode = m.Properties.DeliveryMode
	if r.compression = m.Headers.Compression; a.conf.TaskProtocol != 1 {
		r.body = m.Body
	}
	r.CorrelationID, r.ReplyTo = m.Properties.CorrelationID, m.Properties.ReplyTo
	r.Delivery = DeliveryInfo{Exchange: m.Exchange, RoutingKey: m.RoutingKey, Queue: m.Queue}
	return r, nil
}

// eagerFollow runs a follow-up here when everything is eager, else sends it.
func (a *App) eagerFollow(ctx context.Context, m *protocol.Message) error {
	d, ok := a.Lookup(m.Headers.Task)
	if !a.conf.TaskAlwaysEager || !ok {
		ctx, cancel := a.publishDeadline(ctx)
		defer cancel()
		return a.policy(&options{}).Do(ctx, broker.Retryable, func(ctx context.Context) error {
			return a.PublishMessages(ctx, a.onWire(m))
		})
	}
	r, err := a.eagerRequest(m)
	if err != nil {
		return err
	}
	if err := d.life.start(ctx); err != nil {
		return err
	}
	a.Execute(ctx, r, FinisherFunc(func(ctx context.Context, e *Effects) error {
		for _, next := range e.full {
			if err := a.eagerFollow(ctx, next); err != nil {
				return err
			}
		}
		return a.storeEager(ctx, e)
	}))
	return nil
}

func (a *App) storeEager(ctx context.Context, e *Effects) error {
	if len(e.Store) == 0 {
		return nil
	}
	b, err := a.Backend(ctx)
	if err != nil {
		return err
	}
	return b.Store(ctx, e.Store...)
}

func (a *App) eagerResult(r *Request, out *Outcome) (*resultCore, error) {
	meta, err := eagerMeta(r, out)
	if err != nil {
		return nil, err
	}
	core := &resultCore{app: a, id: r.ID, meta: meta}
	if out.Fenced != nil {
		return core, out.Fenced
	}
	if a.conf.TaskEagerPropagates && meta.Status.Propagate() {
		if out.Info != nil && out.Info.Err != nil {
			return core, out.Info.Err
		}
		return core, taskError(meta)
	}
	return core, nil
}
