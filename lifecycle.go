package lovage

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"runtime/debug"
	"slices"
	"sync"
	"sync/atomic"
)

// lifecycle runs Init and Close of one task instance, each level of the class
// once, and closes the Lazy fields that were opened.
type lifecycle struct {
	name   string
	levels []level // bases first

	fields []lazyField // every Lazy of the class, set while it is registered

	once    sync.Mutex // held while Init runs
	started bool
	done    int // levels whose Init, if any, has succeeded
	initErr error
	ready   atomic.Bool // Init has succeeded: the fast path

	mu     sync.Mutex
	lazies []lazyField // in order of opening
	closed bool
}

type level struct {
	typ   reflect.Type
	init  func(context.Context) error
	close func(context.Context) error
}

func newLifecycle(name string, instance Base) *lifecycle {
	l := &lifecycle{name: name}
	l.walk(reflect.ValueOf(instance), map[any]bool{})
	return l
}

// walk collects the levels of an addressable struct, embedded ones first.
// Close() error counts only on the class and on bases that embed Task: a method
// that comes with some embedded library type is no hook.
func (l *lifecycle) walk(v reflect.Value, seen map[any]bool) {
	if v.Kind() == reflect.Pointer {
		if v.IsNil() {
			return
		}
		v = v.Elem()
	}
	if v.Kind() != reflect.Struct || !v.CanAddr() {
		return
	}
	t := v.Type()
	if t == reflect.TypeFor[Task]() || seen[exposed(v)] {
		return
	}
	seen[exposed(v)] = true
	for i := range t.NumField() {
		f, fv := t.Field(i), v.Field(i)
		if lf, ok := lazyOf(fv); ok {
			lf.adopt(l)
			continue
		}
		if f.Anonymous {
			l.walk(fv, seen)
		}
	}
	ptr := exposed(v)
	isBase := reflect.PointerTo(t).Implements(reflect.TypeFor[Base]())
	lv := level{typ: t}
	if declares(t, "Init") {
		if x, ok := ptr.(interface{ Init(context.Context) error }); ok {
			lv.init = x.Init
		}
	}
	if declares(t, "Close") {
		switch x := ptr.(type) {
		case interface{ Close(context.Context) error }:
			lv.close = x.Close
		case interface{ Close() error }:
			if isBase {
				lv.close = func(context.Context) error { return x.Close() }
			}
		}
	}
	if lv.init != nil || lv.close != nil {
		l.levels = append(l.levels, lv)
	}
}

// exposed returns a pointer to the struct as an any, also where the embedded
// type is unexported and reflect would refuse.
func exposed(v reflect.Value) any {
	return reflect.NewAt(v.Type(), v.Addr().UnsafePointer()).Interface()
}

func lazyOf(v reflect.Value) (lazyField, bool) {
	if v.Kind() != reflect.Struct || !v.CanAddr() || !reflect.PointerTo(v.Type()).Implements(reflect.TypeFor[lazyField]()) {
		return nil, false
	}
	return exposed(v).(lazyField), true
}

func (l *lifecycle) opened(f lazyField) {
	l.mu.Lock()
	defer l.mu.Unlock()
	// One that was reset and opened again counts from its last opening.
	l.lazies = append(slices.DeleteFunc(l.lazies, func(have lazyField) bool { return have == f }), f)
}

// start runs Init once per process; who comes later waits and gets its outcome.
// The run that happens to be first must not end it: Init has that run's values,
// but neither its cancellation nor its Request.
func (l *lifecycle) start(ctx context.Context) error {
	if l.ready.Load() {
		return nil
	}
	return l.init(context.WithValue(context.WithoutCancel(ctx), requestKey, (*Request)(nil)))
}

// init is start under a context that may end it.
func (l *lifecycle) init(ctx context.Context) error {
	l.once.Lock()
	defer l.once.Unlock()
	if l.started {
		return l.initErr
	}
	l.started = true
	for _, lv := range l.levels {
		if lv.init == nil {
			l.done++
			continue
		}
		if err := guard(func() error { return lv.init(ctx) }); err != nil {
			l.initErr = fmt.Errorf("task %q: Init of %s: %w", l.name, typeName(lv.typ), err)
			return l.initErr
		}
		l.done++
	}
	l.ready.Store(true)
	return nil
}

// stop runs Close of every level, the class first and bases last, in a process
// that ran Init or opened something; then it closes the opened Lazy fields, the
// last one first, and shuts those that never were. A level whose Init failed is
// not closed: it never came to be.
func (l *lifecycle) stop(ctx context.Context) error {
	l.once.Lock()
	levels := l.levels
	ran := l.started
	if ran {
		levels = levels[:l.done]
	}
	l.once.Unlock()
	l.mu.Lock()
	if l.closed {
		l.mu.Unlock()
		return nil
	}
	l.closed = true
	lazies := l.lazies
	l.mu.Unlock()

	var errs []error
	if ran || len(lazies) > 0 {
		for i := len(levels) - 1; i >= 0; i-- {
			lv := levels[i]
			if lv.close == nil {
				continue
			}
			if err := guard(func() error { return lv.close(ctx) }); err != nil {
				errs = append(errs, fmt.Errorf("task %q: Close of %s: %w", l.name, typeName(lv.typ), err))
			}
		}
	}
	l.mu.Lock()
	lazies = slices.Clone(l.lazies)
	l.mu.Unlock()
	for _, f := range l.fields {
		if !slices.Contains(lazies, f) { // never opened, or being opened now
			lazies = slices.Insert(lazies, 0, f)
		}
	}
	for i := len(lazies) - 1; i >= 0; i-- {
		if err := guard(func() error { return lazies[i].Close(ctx) }); err != nil {
			errs = append(errs, fmt.Errorf("task %q: close its resource: %w", l.name, err))
		}
	}
	return errors.Join(errs...)
}

// guard calls f and turns a panic into a *PanicError.
func guard(f func() error) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = &PanicError{Value: p, Stack: debug.Stack()}
		}
	}()
	return f()
}
