package lovage

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/lovage-go/lovage/broker"
	"github.com/lovage-go/lovage/internal/backoff"
	"github.com/lovage-go/lovage/internal/saferepr"
	"github.com/lovage-go/lovage/protocol"
	"github.com/lovage-go/lovage/serializer"
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
	if err != nil {
		return "", fmt.Errorf("task %q: %w", c.name, err)
	}
	ctx, cancel := a.publishDeadline(ctx)
	defer cancel()
	ctx = context.WithValue(ctx, policyKey, a.policy(&o))
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

// publishDeadline bounds a publish whose caller set no deadline.
func (a *App) publishDeadline(ctx context.Context) (context.Context, context.CancelFunc) {
	limit := a.conf.BrokerPublishTimeout
	if _, ok := ctx.Deadline(); ok || limit <= 0 {
		return ctx, func() {}
	}
	return context.WithTimeoutCause(ctx, limit,
		fmt.Errorf("not published within broker_publish_timeout (%s): %w", limit, broker.ErrUnavailable))
}

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

// message builds the message of a call.
func (a *App) message(ctx context.Context, c *call, o *options) (*protocol.Message, error) {
	now := time.Now()
	a.router.route(c.name, o)
	id := or(o.taskID, "")
	if id == "" {
		id = a.rand.uuid()
	}
	h := protocol.Headers{
		Lang: "go", Task: c.name, ID: id, RootID: id, Origin: a.origin,
		Shadow:       or(o.shadow, ""),
		IgnoreResult: or(o.ignoreResult, a.conf.TaskIgnoreResult),
		Group:        or(o.groupID, ""), GroupIndex: c.groupIndex,
		Retries: max(or(o.retries, 0), 0),
		Stamps:  c.stamps, StampedHeaders: c.stampedHeaders,
	}
	c.ignored = h.IgnoreResult
	if r := runFrom(ctx); r != nil && r.ID != "" {
		h.RootID, h.ParentID = r.RootID, r.ID
		if h.RootID == "" {
			h.RootID = r.ID
		}
		if o.priority == nil && a.conf.TaskInheritParentPriority {
			o.priority = r.priority
		}
	}
	h.RootID = or(o.rootID, h.RootID)
	h.ParentID = or(o.parentID, h.ParentID)
	h.TimeLimit = protocol.TimeLimit{Hard: seconds(o.timeLimit), Soft: seconds(o.softLimit)}
	if hard, soft := h.TimeLimit.Hard, h.TimeLimit.Soft; hard != nil && soft != nil && *soft > *hard {
		return nil, fmt.Errorf("the soft time limit %gs is above the hard one %gs", *soft, *hard)
	}
	var err error
	if h.Extra, err = encodeHeaders(o.headers); err != nil {
		return nil, err
	}
	h.ArgsRepr = reprOf(o.argsRepr, saferepr.AppendArgs, c.args)
	h.KwargsRepr = reprOf(o.kwargsRepr, saferepr.AppendKwargs, c.kwargs)

	m := &protocol.Message{}
	switch {
	case o.countdown != nil && *o.countdown > 0:
		m.NotBefore = now.Add(*o.countdown)
	case o.eta != nil:
		m.NotBefore = *o.eta
	}
	if !m.NotBefore.IsZero() {
		h.ETA = a.wireTime(m.NotBefore)
	}
	body := protocol.Body{Args: c.args, Kwargs: c.kwargs, Embed: c.embed}
	if body.Embed.Callbacks, err = a.signatures(body.Embed.Callbacks, o.links); err != nil {
		return nil, fmt.Errorf("link: %w", err)
	}
	if body.Embed.Errbacks, err = a.signatures(body.Embed.Errbacks, o.linkErrors); err != nil {
		return nil, fmt.Errorf("link_error: %w", err)
	}
	m.Headers = h
	a.setExpiry(m, o.expiry(now), now)
	if err := a.encodeBody(m, &body, o); err != nil {
		return nil, err
	}
	m.Properties.CorrelationID = id
	m.Properties.ReplyTo = or(o.replyTo, "")
	m.Mandatory = or(o.mandatory, false)
	if err := a.router.address(m, o); err != nil {
		return nil, err
	}
	return m, nil
}

// expiry is the moment that the options name; zero is none.
func (o *options) expiry(now time.Time) time.Time {
	switch {
	case o.expires != nil && *o.expires != NoLimit:
		return now.Add(*o.expires)
	case o.expiresAt != nil:
		return *o.expiresAt
	}
	return time.Time{}
}

// setExpiry writes an expiry as Celery does: a header for the worker, and the
// time left for the broker, 0 for what has expired already.
func (a *App) setExpiry(m *protocol.Message, at, now time.Time) {
	if at.IsZero() {
		return
	}
	m.ExpiresAt = at
	m.Headers.Expires = a.wireTime(at)
	m.Properties.HasExpiration, m.Properties.Expiration = true, max(at.Sub(now), 0)
}

// wireTime writes a time for a header: in UTC, or in the App's zone if
// enable_utc is off.
func (a *App) wireTime(t time.Time) string {
	if a.conf.EnableUTC {
		return protocol.FormatTime(t.UTC())
	}
	return protocol.FormatTime(t.In(a.conf.Location))
}

// encodeBody writes the body as the options ask, protocol 2 or 1.
func (a *App) encodeBody(m *protocol.Message, body *protocol.Body, o *options) error {
	codec, err := a.codecs.Lookup(or(o.serializer, a.conf.TaskSerializer))
	if err != nil {
		return err
	}
	m.Properties.ContentType, m.Properties.ContentEncoding = codec.ContentType(), codec.Encoding()
	if a.conf.TaskProtocol == 1 {
		m.Body = protocol.AppendV1(nil, &m.Headers, body)
	} else {
		m.Body = body.AppendJSON(make([]byte, 0, len(body.Args)+len(body.Kwargs)+80))
	}
	if method := or(o.compression, a.conf.TaskCompression); method != "" {
		mime, err := serializer.Compression(method)
		if err != nil {
			return err
		}
		data, err := serializer.Compress(method, m.Body)
		if err != nil {
			return fmt.Errorf("compress the body: %w", err)
		}
		m.Body, m.Headers.Compression = data, mime
	}
	if limit := a.conf.TaskMaxMessageSize; limit > 0 && len(m.Body) > limit {
		return fmt.Errorf("the message body has %d bytes, more than task_max_message_size (%d): store the data elsewhere and send a reference to it", len(m.Body), limit)
	}
	return nil
}

// signatures adds links to those that a signature brought.
func (a *App) signatures(have []protocol.Signature, links []Linkable) ([]protocol.Signature, error) {
	if len(links) == 0 {
		return have, nil
	}
	out := append(make([]protocol.Signature, 0, len(have)+len(links)), have...)
	for _, l := range links {
		s, err := l.signature(a)
		if err != nil {
			return nil, err
		}
		out = append(out, s)
	}
	return out, nil
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

// onWire is the message as it is sent. Version 1 has everything in its body:
// headers that name a task would make the receiver take it for version 2.
func (a *App) onWire(m *protocol.Message) *protocol.Message {
	if a.conf.TaskProtocol != 1 || m.Headers.Task == "" {
		return m
	}
	w := *m
	w.Headers = protocol.Headers{Compression: m.Headers.Compression, Extra: m.Headers.Extra}
	return &w
}

// PublishMessages sends finished messages as they are: their queues are
// declared if need be, and nothing is signalled or tried again. It is for
// workers and tools; programs call tasks.
func (a *App) PublishMessages(ctx context.Context, msgs ...*protocol.Message) error {
	if err := a.DeclareFor(ctx, msgs...); err != nil {
		return err
	}
	conn, err := a.Broker(ctx)
	if err != nil {
		return err
	}
	err = conn.Publish(ctx, msgs...)
	var batch *broker.BatchError
	if len(msgs) == 1 && errors.As(err, &batch) {
		return batch.Errs[0]
	}
	return err
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
			return err
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

func encodeHeaders(h map[string]any) (map[string]json.RawMessage, error) {
	if len(h) == 0 {
		return nil, nil
	}
	out := make(map[string]json.RawMessage, len(h))
	for k, v := range h {
		if raw, ok := v.(json.RawMessage); ok {
			out[k] = raw
			continue
		}
		text, err := jsonCodec.Marshal(v)
		if err != nil {
			return nil, fmt.Errorf("header %q: %w", k, err)
		}
		out[k] = text
	}
	return out, nil
}

func reprOf(given *string, repr func([]byte, json.RawMessage, int) []byte, raw json.RawMessage) string {
	if given != nil {
		return *given
	}
	var buf [128]byte
	return string(repr(buf[:0], raw, defaultReprSize))
}

func seconds(d *time.Duration) *float64 {
	if d == nil || *d <= 0 {
		return nil
	}
	s := d.Seconds()
	return &s
}
