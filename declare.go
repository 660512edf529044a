package lovage

import (
	"context"
	"encoding/json"
	"fmt"
	"reflect"
	"sort"

	"github.com/lovage-go/lovage/internal/bind"
)

// Definition is a registered task without its types: what the registry, the
// worker and monitors see. It does not change after the App's first use.
type Definition struct {
	name     string
	app      *App
	instance Base
	hooks    hookSet
	life     *lifecycle
	plan     *bind.Plan
	run      runFunc
	inType   reflect.Type
	outType  reflect.Type
	remote   bool
	builtin  bool // one of those that Celery has in every app
	where    string
	declared []TaskOption
	opts     options // merged at freeze, without the app's settings
	set      TaskSettings
}

// runFunc binds the arguments and calls the body.
type runFunc func(ctx context.Context, task string, args, kwargs json.RawMessage) (any, error)

// body is the runFunc of a task whose typed body is f.
func body[In, Out any](d *Definition, f func(context.Context, In) (Out, error)) runFunc {
	return func(ctx context.Context, task string, args, kwargs json.RawMessage) (any, error) {
		var in In
		if err := d.plan.Bind(task, args, kwargs, &in); err != nil {
			return nil, d.unbound(err)
		}
		return f(ctx, in)
	}
}

// Func declares a function as a task: Celery's @app.task.
// It panics if the name is taken, an option or the argument type is wrong.
func Func[In, Out any](app *App, name string, fn func(context.Context, In) (Out, error), opts ...TaskOption) *Handle[In, Out] {
	d := &Definition{name: name, where: funcWhere(reflect.ValueOf(fn))}
	d.run = body(d, fn)
	return declare[In, Out](app, d, opts)
}

// Proc is Func for a function without a result.
func Proc[In any](app *App, name string, fn func(context.Context, In) error, opts ...TaskOption) *Handle[In, None] {
	h := Func(app, name, func(ctx context.Context, in In) (None, error) { return None{}, fn(ctx, in) }, opts...)
	h.def.where = funcWhere(reflect.ValueOf(fn))
	return h
}

// Bound declares a function that gets the instance of its base class: Celery's
// bind=True with base=. self is used as it is, shared by all runs.
func Bound[T Base, In, Out any](app *App, name string, self T, fn func(context.Context, T, In) (Out, error), opts ...TaskOption) *Class[T, In, Out] {
	d := &Definition{name: name, instance: self, where: funcWhere(reflect.ValueOf(fn))}
	d.run = body(d, func(ctx context.Context, in In) (Out, error) { return fn(ctx, self, in) })
	return &Class[T, In, Out]{Handle: declare[In, Out](app, d, opts), Self: self}
}

// Runner is a task class with its body.
type Runner[In, Out any] interface {
	Base
	Run(ctx context.Context, in In) (Out, error)
}

// ProcRunner is a task class whose body returns no result.
type ProcRunner[In any] interface {
	Base
	Run(ctx context.Context, in In) error
}

// Register declares a task class. The pointer is the one instance of this
// process; registering it twice panics.
func Register[T Runner[In, Out], In, Out any](app *App, name string, self T, opts ...TaskOption) *Class[T, In, Out] {
	d := &Definition{name: name, instance: self, where: methodWhere(reflect.TypeOf(self))}
	d.run = body(d, self.Run)
	return &Class[T, In, Out]{Handle: declare[In, Out](app, d, opts), Self: self}
}

// RegisterProc is Register for a class whose Run returns only an error.
func RegisterProc[T ProcRunner[In], In any](app *App, name string, self T, opts ...TaskOption) *Class[T, In, None] {
	d := &Definition{name: name, instance: self, where: methodWhere(reflect.TypeOf(self))}
	d.run = body(d, func(ctx context.Context, in In) (None, error) { return None{}, self.Run(ctx, in) })
	return &Class[T, In, None]{Handle: declare[In, None](app, d, opts), Self: self}
}

// Remote is a typed handle of a task that lives elsewhere: in Python, or in
// another program. For a name that is also registered here it is a second
// handle; other types than the registration's panic. With a nil app the handle
// is bound later, by App.Bind.
func Remote[In, Out any](app *App, name string, opts ...TaskOption) *Handle[In, Out] {
	d := &Definition{name: name, remote: true}
	h := prepare[In, Out](d, opts)
	if app != nil {
		h.def = app.addRemote(d)
	}
	return h
}

// Bind binds handles made by Remote with a nil app: pointers to handles, or to
// structs whose fields are handles.
func (a *App) Bind(handles ...any) {
	for _, h := range handles {
		a.bindValue(reflect.ValueOf(h))
	}
}

type unbound interface{ bindTo(*App) }

func (a *App) bindValue(v reflect.Value) {
	if u, ok := v.Interface().(unbound); ok {
		u.bindTo(a)
		return
	}
	if v.Kind() == reflect.Pointer {
		v = v.Elem()
	}
	if v.Kind() == reflect.Pointer {
		a.bindValue(v)
		return
	}
	if v.Kind() != reflect.Struct {
		panic(fmt.Sprintf("lovage: Bind takes handles or structs of handles, not %s", v.Type()))
	}
	for i := range v.NumField() {
		if f := v.Type().Field(i); f.IsExported() && f.Type.Implements(reflect.TypeFor[unbound]()) && !v.Field(i).IsNil() {
			a.bindValue(v.Field(i))
		}
	}
}

func prepare[In, Out any](d *Definition, opts []TaskOption) *Handle[In, Out] {
	plan, err := planFor[In]()
	if err != nil {
		panic(fmt.Sprintf("lovage: task %q: %v", d.name, err))
	}
	d.plan = plan
	d.inType, d.outType = reflect.TypeFor[In](), reflect.TypeFor[Out]()
	d.declared = opts
	return &Handle[In, Out]{def: d}
}

func declare[In, Out any](app *App, d *Definition, opts []TaskOption) *Handle[In, Out] {
	h := prepare[In, Out](d, opts)
	h.def = app.add(d)
	return h
}

func planFor[In any]() (*bind.Plan, error) { return bind.For(reflect.TypeFor[In]()) }

func (a *App) add(d *Definition) *Definition {
	if d.name == "" {
		panic("lovage: a task needs a name, such as \"proj.add\"")
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.frozen {
		panic(fmt.Sprintf("lovage: task %q is declared after the app's first use", d.name))
	}
	have, dup := a.tasks[d.name]
	if dup && !have.remote {
		panic(fmt.Sprintf("lovage: task %q is registered twice", d.name))
	}
	if dup {
		have.mustMatch(d)
	}
	if d.instance != nil {
		t, err := taskOf(d.instance)
		if err != nil {
			panic(fmt.Sprintf("lovage: task %q: %v", d.name, err))
		}
		if t.def != nil {
			panic(fmt.Sprintf("lovage: task %q: this instance is registered already, as %q; give each task its own and share resources by a pointer", d.name, t.def.name))
		}
		t.def = d
		d.hooks = findHooks(d.name, d.instance)
	}
	d.app = a
	if dup { // handles of the Remote keep pointing at their definition
		*have = *d
		if have.instance != nil {
			have.instance.lovageTask().def = have
		}
		return have
	}
	a.tasks[d.name] = d
	return d
}

// taskOf is the Task that an instance embeds, or why it has none to use.
func taskOf(instance Base) (t *Task, err error) {
	v := reflect.ValueOf(instance)
	if v.Kind() != reflect.Pointer || v.IsNil() {
		return nil, fmt.Errorf("the class must be given as a non-nil pointer, not as %T", instance)
	}
	defer func() {
		if recover() != nil {
			err = fmt.Errorf("the base that %T embeds by a pointer is nil: set it before the class is given", instance)
		}
	}()
	if t = instance.lovageTask(); t == nil {
		err = fmt.Errorf("the base that %T embeds by a pointer is nil: set it before the class is given", instance)
	}
	return t, err
}

func (a *App) addRemote(d *Definition) *Definition {
	a.mu.Lock()
	defer a.mu.Unlock()
	if have, ok := a.tasks[d.name]; ok {
		have.mustMatch(d)
		return have
	}
	if a.frozen { // a handle for a name only; nothing to resolve but its options
		d.app = a
		if a.freezeErr != nil { // each use of the handle reports it
			return d
		}
		if err := d.finalize(nil); err != nil {
			panic("lovage: " + err.Error())
		}
		return d
	}
	d.app = a
	a.tasks[d.name] = d
	return d
}

func (d *Definition) mustMatch(other *Definition) {
	if d.inType != other.inType || d.outType != other.outType {
		panic(fmt.Sprintf("lovage: task %q is declared with %s -> %s and with %s -> %s",
			d.name, d.inType, d.outType, other.inType, other.outType))
	}
}

// finalize gives a plain task its base class and merges its options.
func (d *Definition) finalize(base func() Base) error {
	var declared options
	for _, o := range d.declared {
		o.task(&declared)
	}
	if d.instance == nil && !d.remote {
		switch {
		case declared.base != nil:
			d.instance = declared.base()
		case base != nil:
			d.instance = base()
		default:
			d.instance = &plain{}
		}
		t, err := taskOf(d.instance)
		if err != nil {
			return fmt.Errorf("task %q: its base: %w", d.name, err)
		}
		if t.def != nil {
			return fmt.Errorf("task %q: a base class is a new instance for each task; this one belongs to %q already", d.name, t.def.name)
		}
		t.def = d
		d.hooks = findHooks(d.name, d.instance)
	}
	if d.instance != nil && d.life == nil {
		d.life = newLifecycle(d.name, d.instance)
	}
	if d.hooks.options != nil {
		for _, o := range d.hooks.options() {
			o.task(&d.opts)
		}
	}
	for _, o := range d.declared {
		o.task(&d.opts)
	}
	if err := d.app.annotate(d); err != nil {
		return err
	}
	d.set = d.settings()
	if d.set.SoftTimeLimit > 0 && d.set.TimeLimit > 0 && d.set.SoftTimeLimit > d.set.TimeLimit {
		return fmt.Errorf("task %q: its soft time limit %s is above its hard one %s", d.name, d.set.SoftTimeLimit, d.set.TimeLimit)
	}
	return nil
}

// Name is the name of the task.
func (d *Definition) Name() string { return d.name }

// App is the App the task belongs to.
func (d *Definition) App() *App { return d.app }

// Instance is the task's one instance in this process: the class it was
// registered with, or the base that a function was given. It is nil for a task
// that is only known by Remote.
func (d *Definition) Instance() Base {
	_ = d.app.Freeze()
	return d.instance
}

// Settings are the task's options with the App's defaults filled in.
func (d *Definition) Settings() TaskSettings {
	_ = d.app.Freeze()
	return d.set
}

// Params describes the arguments, for listings.
func (d *Definition) Params() []bind.Param { return d.plan.Params() }

// Attr returns the value that the Attr option attached under a key, or nil.
func (d *Definition) Attr(key string) any {
	_ = d.app.Freeze()
	return d.opts.meta[key]
}

// TaskNames lists the names of all tasks that can run here.
func (a *App) TaskNames() []string {
	names := []string{}
	for _, d := range a.Tasks() {
		names = append(names, d.name)
	}
	sort.Strings(names)
	return names
}
