package lovage

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"strconv"
	"time"

	"github.com/lovage-go/lovage/backend"
	"github.com/lovage-go/lovage/broker"
	"github.com/lovage-go/lovage/internal/backoff"
	"github.com/lovage-go/lovage/protocol"
)

// Args is a call without types: what Python would pass.
type Args struct {
	Positional []any
	Keyword    map[string]any
}

// RawArgs makes Args usable as the argument type of a task that takes its call raw.
func (a Args) RawArgs() (args, kwargs json.RawMessage, err error) { return a.encode() }

// BindRaw is the other direction.
func (a *Args) BindRaw(args, kwargs json.RawMessage) (err error) {
	if a.Positional, err = RawArgs(args).Values(); err != nil {
		return err
	}
	a.Keyword, err = RawKwargs(kwargs).Values()
	return err
}

func (a Args) encode() (args, kwargs json.RawMessage, err error) {
	args, kwargs = json.RawMessage("[]"), json.RawMessage("{}")
	if len(a.Positional) > 0 {
		if args, err = jsonCodec.Marshal(a.Positional); err != nil {
			return nil, nil, fmt.Errorf("encode the positional arguments: %w", err)
		}
	}
	if len(a.Keyword) > 0 {
		if kwargs, err = jsonCodec.Marshal(a.Keyword); err != nil {
			return nil, nil, fmt.Errorf("encode the keyword arguments: %w", err)
		}
	}
	return args, kwargs, nil
}

// call is one call on its way out.
type call struct {
	name    string
	def     *Definition // nil for a task known by name only
	args    json.RawMessage
	kwargs  json.RawMessage
	ignored bool

	// Of a call that follows a run.
	embed          protocol.Embed
	groupIndex     *int
	stamps         map[string]json.RawMessage
	stampedHeaders []string
}

// Send calls a task by name, registered here or not. The arguments of a task
// that is registered are checked before anything is sent. It never runs
// eagerly.
func (a *App) Send(ctx context.Context, name string, in Args, opts ...CallOption) (*Result[any], error) {
	if err := a.Freeze(); err != nil {
		return nil, err
	}
	args, kwargs, err := in.encode()
	if err != nil {
		return nil, fmt.Errorf("task %q: %w", name, err)
	}
	c := call{name: name, def: a.tasks[name], args: args, kwargs: kwargs}
	if c.def != nil && c.def.set.Typing {
		if err := c.def.plan.Check(name, args, kwargs); err != nil {
			return nil, argumentError(err)
		}
	}
	id, err := a.send(ctx, &c, opts)
	if err != nil {
		return nil, err
	}
	return &Result[any]{core: resultCore{app: a, id: id, ignored: c.ignored}}, nil
}

func (a *App) send(ctx context.Context, c *call, opts []CallOption) (string, error) {
	if err := a.Freeze(); err != nil {
		return "", err
	}
	var o options
	if c.def != nil {
		o = *c.def.callDefaults()
	}
	for _, opt := range opts {
		opt.call(&o)
	}
	m, err := a.message(ctx, c, &o)
	if err == nil {
		err = a.supported(c.name, &c.embed)
	}
	if err != nil {
		return "", fmt.Errorf("task %q: %w", c.name, err)
	}
	ctx, cancel := a.publishDeadline(ctx)
	defer cancel()
	policy := a.policy(&o)
	if err := a.expect(ctx, c, m, policy); err != nil {
		return "", fmt.Errorf("task %q: %w", c.name, err)
	}
	ctx = context.WithValue(ctx, policyKey, policy)
	a.beforePublish(ctx, c.name, m)
	if err := a.publish(ctx, m); err != nil {
		return "", fmt.Errorf("publish task %q: %w", c.name, err)
	}
	a.afterPublish(ctx, c.name, m)
	if r := runFrom(ctx); r != nil && or(o.addToParent, true) && (r.def == nil || r.def.set.Trail) {
		r.addChild(m.Headers.ID)
	}
	return m.Headers.ID, nil
}

// expect tells a store whose results come as messages that this call's are
// wanted, before it is sent, and where they go. It tries again as publishing does.
func (a *App) expect(ctx context.Context, c *call, m *protocol.Message, policy backoff.Policy) error {
	if c.ignored || m.Properties.ReplyTo != "" || !a.byReply() {
		return nil
	}
	return policy.Do(ctx, broker.Retryable, func(ctx context.Context) error {
		b, err := a.Backend(ctx)
		if err != nil {
			return err
		}
		if e, ok := b.(backend.Expecter); ok {
			m.Properties.ReplyTo, err = e.Expect(ctx, m.Headers.ID)
		}
		return err
	})
}

// publishDeadline bounds a publish whose caller set no deadline.
func (a *App) publishDeadline(ctx context.Context) (context.Context, context.CancelFunc) {
	limit := a.conf.BrokerPublishTimeout
	if _, ok := ctx.Deadline(); ok || limit <= 0 {
		return ctx, func() {}
	}
	return context.WithTimeoutCause(ctx, limit, notPublished(limit))
}

// notPublished is the end of a publish that took as long as this. Each publish has
// one ready: its text is written when it is read.
type notPublished time.Duration

func (d notPublished) Error() string {
	return fmt.Sprintf("not published within broker_publish_timeout (%s): %s", time.Duration(d), broker.ErrUnavailable)
}

func (notPublished) Unwrap() error { return broker.ErrUnavailable }

// callDefaults are what the class and the declaration give to every call.
func (d *Definition) callDefaults() *options {
	o := d.opts
	return &o
}

func (a *App) policy(o *options) backoff.Policy {
	switch {
	case o.noRetry || !a.conf.TaskPublishRetry && o.publishRetry == nil:
		return backoff.Policy{}
	case o.publishRetry != nil:
		return *o.publishRetry
	}
	p := a.conf.TaskPublishRetryPolicy
	return backoff.Policy{MaxRetries: p.MaxRetries, IntervalStart: p.IntervalStart, IntervalStep: p.IntervalStep, IntervalMax: p.IntervalMax}
}

func (a *App) beforePublish(ctx context.Context, task string, m *protocol.Message) {
	if a.Signals.BeforeTaskPublish.Connected() {
		a.Signals.BeforeTaskPublish.Send(ctx, BeforeTaskPublish{Task: task, Message: m})
	}
}

func (a *App) afterPublish(ctx context.Context, task string, m *protocol.Message) {
	if a.Signals.AfterTaskPublish.Connected() {
		a.Signals.AfterTaskPublish.Send(ctx, AfterTaskPublish{Task: task, Message: m})
	}
	if a.conf.TaskSendSentEvent {
		a.sentEvent(ctx, m)
	}
}

const (
	policyKey  ctxKey = iota + 100
	collectKey        // *Effects: interceptors run, the message is kept
)

// publishNow is the end of the publish chain: it sends, or, where a run's
// effects are being built, keeps the message for the finisher.
func (a *App) publishNow(ctx context.Context, m *protocol.Message) error {
	wire := a.onWire(m)
	if e, ok := ctx.Value(collectKey).(*Effects); ok {
		e.full, e.Publish = append(e.full, m), append(e.Publish, wire)
		return nil
	}
	policy, _ := ctx.Value(policyKey).(backoff.Policy)
	err := policy.Do(ctx, broker.Retryable, func(ctx context.Context) error { return a.PublishMessages(ctx, wire) })
	if err != nil && errors.Is(err, context.DeadlineExceeded) {
		if cause := context.Cause(ctx); cause != nil && !errors.Is(err, cause) {
			err = fmt.Errorf("%w (%w)", cause, err)
		}
	}
	return err
}

// PublishMessages sends finished messages as they are: their queues are
// declared if need be, and nothing is signalled or tried again. It is for
// workers and tools; programs call tasks.
func (a *App) PublishMessages(ctx context.Context, msgs ...*protocol.Message) error {
	if err := a.DeclareFor(ctx, msgs...); err != nil {
		return err
	}
	for _, m := range msgs {
		if m.Once {
			a.markCopy(m)
		}
	}
	conn, err := a.Broker(ctx)
	if err != nil {
		return err
	}
	if err = conn.Publish(ctx, msgs...); err != nil {
		err = a.failed(ctx, conn, err)
	}
	var batch *broker.BatchError
	if len(msgs) == 1 && errors.As(err, &batch) {
		return batch.Errs[0]
	}
	return err
}

// markCopy gives a message that may be sent twice a mark of this copy.
func (a *App) markCopy(m *protocol.Message) {
	extra := make(map[string]json.RawMessage, len(m.Headers.Extra)+1)
	maps.Copy(extra, m.Headers.Extra)
	extra[protocol.OnceHeader] = json.RawMessage(strconv.Quote(a.rand.uuid()))
	m.Headers.Extra = extra
}

// DeclareFor makes the queues exist that messages are addressed to, each once in
// the App's life. It is for workers, which may publish inside a settlement.
func (a *App) DeclareFor(ctx context.Context, msgs ...*protocol.Message) error {
	for _, m := range msgs {
		if m.Queue == "" {
			continue
		}
		if _, done := a.declared.Load(m.Queue); done {
			continue
		}
		conn, err := a.Broker(ctx)
		if err != nil {
			return err
		}
		if err := a.declare(ctx, conn, m.Queue); err != nil {
			return a.failed(ctx, conn, err)
		}
	}
	return nil
}

func (a *App) declare(ctx context.Context, conn broker.Conn, name string) error {
	if name == "" {
		return nil
	}
	if _, done := a.declared.Load(name); done {
		return nil
	}
	q, err := a.router.queue(name)
	if err != nil {
		return err
	}
	if !q.NoDeclare {
		if err := conn.Declare(ctx, q); err != nil {
			return fmt.Errorf("declare queue %q: %w", name, err)
		}
	}
	a.declared.Store(name, struct{}{})
	return nil
}
