package lovage

import (
	"context"
	"encoding/json"
	"fmt"
	"reflect"

	"github.com/lovage-go/lovage/internal/bind"
	"github.com/lovage-go/lovage/protocol"
)

// Handle calls a task whose argument type is In and whose result is Out. It is
// safe for concurrent use.
type Handle[In, Out any] struct{ def *Definition }

// Class is the handle of a task class, with its instance.
type Class[T Base, In, Out any] struct {
	*Handle[In, Out]
	// Self is the one instance of this process.
	Self T
}

// Name is the name of the task.
func (h *Handle[In, Out]) Name() string { return h.def.name }

// Definition is the task behind the handle.
func (h *Handle[In, Out]) Definition() *Definition { return h.def }

func (h *Handle[In, Out]) bindTo(a *App) {
	if h.def.app == nil {
		h.def = a.addRemote(h.def)
	}
}

// Delay sends the task and returns as soon as the broker has it. Without a
// deadline in ctx it gives up after broker_publish_timeout (5 s). With
// task_always_eager the task runs here and now.
func (h *Handle[In, Out]) Delay(ctx context.Context, in In, opts ...CallOption) (*Result[Out], error) {
	app, err := h.app()
	if err != nil {
		return nil, err
	}
	args, kwargs, err := h.def.plan.Encode(in)
	if err != nil {
		return nil, fmt.Errorf("task %q: encode the arguments: %w", h.def.name, err)
	}
	if app.conf.TaskAlwaysEager && !h.def.remote {
		return h.Apply(ctx, in, opts...)
	}
	c := call{name: h.def.name, def: h.def, args: args, kwargs: kwargs}
	id, err := app.send(ctx, &c, opts)
	if err != nil {
		return nil, err
	}
	return &Result[Out]{core: resultCore{app: app, id: id, ignored: c.ignored}}, nil
}

// Apply runs the task here and now through everything that a worker would do:
// signals, hooks, retries (at once, without their delay) and the classification
// of errors. Nothing is sent, and nothing stored unless task_store_eager_result
// is on. The error is only for a call that could not be made; that of the task
// comes out of Get, or here too with task_eager_propagates.
func (h *Handle[In, Out]) Apply(ctx context.Context, in In, opts ...CallOption) (*Result[Out], error) {
	app, err := h.app()
	if err != nil {
		return nil, err
	}
	args, kwargs, err := h.def.plan.Encode(in)
	if err != nil {
		return nil, fmt.Errorf("task %q: encode the arguments: %w", h.def.name, err)
	}
	core, err := app.apply(ctx, h.def, args, kwargs, opts)
	if err != nil {
		return nil, err
	}
	return &Result[Out]{core: *core}, nil
}

// Call is the bare function, as if Python's task object were called: no message,
// no hook, no signal, no stored result; what the body returns comes back as it
// is, a Retry too. Inside it Self works, and RequestFrom gives a request of the
// call; tasks that it sends belong to the run around it, if there is one.
func (h *Handle[In, Out]) Call(ctx context.Context, in In) (Out, error) {
	var zero Out
	app, err := h.app()
	if err != nil {
		return zero, err
	}
	d, ok := app.Lookup(h.def.name)
	if !ok {
		return zero, fmt.Errorf("%w: %q has no code in this program", ErrNotRegistered, h.def.name)
	}
	if err := d.life.start(ctx); err != nil {
		return zero, err
	}
	args, kwargs, err := d.plan.Encode(in)
	if err != nil {
		return zero, fmt.Errorf("task %q: encode the arguments: %w", d.name, err)
	}
	r := &Request{ID: app.rand.uuid(), Task: d.name, Args: RawArgs(args), Kwargs: RawKwargs(kwargs), def: d, app: app,
		direct: true, caller: runFrom(ctx)}
	v, err := d.run(context.WithValue(ctx, requestKey, r), d.name, args, kwargs)
	if err != nil {
		return zero, err
	}
	out, ok := v.(Out)
	if !ok && v != nil {
		return zero, fmt.Errorf("task %q returned a %T, want %s", d.name, v, reflect.TypeFor[Out]())
	}
	return out, nil
}

func (h *Handle[In, Out]) app() (*App, error) {
	if h.def.app == nil {
		return nil, fmt.Errorf("lovage: the handle of task %q is bound to no app: call app.Bind(&handle)", h.def.name)
	}
	return h.def.app, h.def.app.Freeze()
}

// Linkable is a call as data that Link and LinkError take.
type Linkable interface {
	signature(app *App) (protocol.Signature, error)
}

// Signature is a call of one task as data: complete, with all its arguments, or
// open, its first parameter supplied by the task before it.
type Signature[Out any] struct {
	def  *Definition
	name string
	args json.RawMessage
	kw   json.RawMessage
	open bool
	opts []CallOption
	err  error
}

// S is a complete signature: the result of the task before it is not passed on
// (Celery's si).
func (h *Handle[In, Out]) S(in In, opts ...CallOption) *Signature[Out] {
	s := &Signature[Out]{def: h.def, name: h.def.name, opts: opts}
	s.args, s.kw, s.err = h.def.plan.Encode(in)
	return s
}

// After is an open signature (Celery's s): the task before it supplies the
// first parameter. rest gives the others by name; its first parameter is ignored.
func (h *Handle[In, Out]) After(rest ...In) *Signature[Out] {
	s := &Signature[Out]{def: h.def, name: h.def.name, open: true, args: json.RawMessage("[]"), kw: json.RawMessage("{}")}
	if !h.def.plan.TakesPositional() {
		s.err = fmt.Errorf("task %q takes no positional argument that the result before it could fill", h.def.name)
		return s
	}
	if len(rest) > 0 {
		s.kw, s.err = h.def.encodeRest(rest[0])
	}
	return s
}

// With adds options to the signature.
func (s *Signature[Out]) With(opts ...CallOption) *Signature[Out] {
	c := *s
	c.opts = append(c.opts[:len(c.opts):len(c.opts)], opts...)
	return &c
}

func (s *Signature[Out]) signature(app *App) (protocol.Signature, error) {
	if s.err != nil {
		return protocol.Signature{}, s.err
	}
	var o options
	if s.def.app != nil {
		if err := app.Freeze(); err != nil {
			return protocol.Signature{}, err
		}
		o.merge(s.def.callDefaults())
	}
	for _, opt := range s.opts {
		opt.call(&o)
	}
	opts, err := o.wire(app)
	if err != nil {
		return protocol.Signature{}, err
	}
	return protocol.Signature{Task: s.name, Args: s.args, Kwargs: s.kw, Options: opts, Immutable: !s.open}, nil
}

// AnyHandle is the untyped handle of a task, from the registry.
type AnyHandle struct{ def *Definition }

// Task finds a registered task by name. The error is ErrNotRegistered, with the
// closest names.
func (a *App) Task(name string) (*AnyHandle, error) {
	if err := a.Freeze(); err != nil {
		return nil, err
	}
	d, ok := a.tasks[name]
	if !ok {
		return nil, fmt.Errorf("%w: %q%s", ErrNotRegistered, name, suggest(name, a.TaskNames()))
	}
	return &AnyHandle{d}, nil
}

// Name is the name of the task.
func (h *AnyHandle) Name() string { return h.def.name }

// Definition is the task behind the handle.
func (h *AnyHandle) Definition() *Definition { return h.def }

// Instance is the task's one instance in this process, nil for a remote task.
func (h *AnyHandle) Instance() Base { return h.def.Instance() }

// Delay sends the task with raw arguments; they are checked against its parameters.
func (h *AnyHandle) Delay(ctx context.Context, in Args, opts ...CallOption) (*Result[any], error) {
	return h.def.app.Send(ctx, h.def.name, in, opts...)
}

// Apply runs the task here and now; see Handle.Apply.
func (h *AnyHandle) Apply(ctx context.Context, in Args, opts ...CallOption) (*Result[any], error) {
	args, kwargs, err := in.encode()
	if err != nil {
		return nil, err
	}
	core, err := h.def.app.apply(ctx, h.def, args, kwargs, opts)
	if err != nil {
		return nil, err
	}
	return &Result[any]{core: *core}, nil
}

// encodeRest writes all parameters but the first by name: what an open
// signature says itself.
func (d *Definition) encodeRest(in any) (json.RawMessage, error) {
	args, kwargs, err := d.plan.Encode(in)
	if err != nil {
		return nil, err
	}
	members := map[string]json.RawMessage{}
	if err := eachMember(kwargs, func(k string, v []byte) error { members[k] = v; return nil }); err != nil {
		return nil, err
	}
	params := d.plan.Params()
	err = eachElement(args, func(i int, v []byte) error {
		if i == 0 {
			return nil
		}
		if i >= len(params) || params[i].Kind != bind.Positional {
			return fmt.Errorf("task %q: argument %d of an open signature has no name to travel by", d.name, i+1)
		}
		members[params[i].Name] = v
		return nil
	})
	if err != nil {
		return nil, err
	}
	return json.Marshal(members)
}
