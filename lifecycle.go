package lovage

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"runtime/debug"
	"sync"
)

// lifecycle runs Init and Close of one task instance, each level of the class
// once, and closes the Lazy fields that were opened.
type lifecycle struct {
	name   string
	levels []level // bases first

	once    sync.Mutex // held while Init runs
	started bool
	initErr error

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
	l.walk(reflect.ValueOf(instance), true)
	return l
}

// walk collects the levels of an addressable struct, embedded ones first.
// Close() error counts only on the class and on bases that embed Task: a method
// that comes with some embedded library type is no hook.
func (l *lifecycle) walk(v reflect.Value, embedded bool) {
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
	if t == reflect.TypeFor[Task]() {
		return
	}
	for i := range t.NumField() {
		f, fv := t.Field(i), v.Field(i)
		if lf, ok := lazyOf(fv); ok {
			lf.adopt(l)
			continue
		}
		if f.Anonymous && (f.IsExported() || f.Type.Kind() == reflect.Struct) {
			l.walk(fv, true)
		}
	}
	if !embedded {
		return
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
	for _, have := range l.lazies {
		if have == f {
			return
		}
	}
	l.lazies = append(l.lazies, f)
}

// start runs Init once per process; who comes later waits and gets its outcome.
func (l *lifecycle) start(ctx context.Context) error {
	l.once.Lock()
	defer l.once.Unlock()
	if l.started {
		return l.initErr
	}
	l.started = true
	for _, lv := range l.levels {
		if lv.init == nil {
			continue
		}
		if err := guard(func() error { return lv.init(ctx) }); err != nil {
			l.initErr = fmt.Errorf("task %q: Init of %s: %w", l.name, typeName(lv.typ), err)
			return l.initErr
		}
	}
	return nil
}

// stop runs Close of every level, the class first and bases last, if Init ran
// or was not needed and something was opened; then the opened Lazy fields.
func (l *lifecycle) stop(ctx context.Context) error {
	l.once.Lock()
	ran := l.started
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
		for i := len(l.levels) - 1; i >= 0; i-- {
			lv := l.levels[i]
			if lv.close == nil {
				continue
			}
			if err := guard(func() error { return lv.close(ctx) }); err != nil {
				errs = append(errs, fmt.Errorf("task %q: Close of %s: %w", l.name, typeName(lv.typ), err))
			}
		}
	}
	l.mu.Lock()
	lazies = l.lazies
	l.mu.Unlock()
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
