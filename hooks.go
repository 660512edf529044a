package lovage

import (
	"context"
	"fmt"
	"maps"
	"reflect"
	"runtime"
	"slices"
	"strings"
	"time"
)

// Next runs the rest of what an Around hook wraps.
type Next func(ctx context.Context) (any, error)

// The hooks as the runtime calls them: the two accepted forms made one.
type hookSet struct {
	options     func() []TaskOption
	around      func(context.Context, *Request, Next) (any, error)
	beforeStart func(context.Context, *Request) error
	onSuccess   func(context.Context, *Request, any) error
	onFailure   func(context.Context, *Request, *ErrorInfo) error
	onRetry     func(context.Context, *Request, *ErrorInfo) error
	afterReturn func(context.Context, *Request, State, any, *ErrorInfo) error
	backoff     func(context.Context, *Request, error) time.Duration
}

// late reports whether anything is to run after the result is stored.
func (h *hookSet) late() bool { return h.onSuccess != nil || h.afterReturn != nil || h.around != nil }

// findHooks takes the hooks of an instance. It panics where a hook can only be
// a mistake: a wrong signature, or two embedded types that hide each other.
func findHooks(name string, instance Base) hookSet {
	var h hookSet
	checkEmbedding(name, reflect.TypeOf(instance))
	v := any(instance)
	if x, ok := v.(interface{ TaskOptions() []TaskOption }); ok {
		h.options = x.TaskOptions
	}
	if x, ok := v.(interface {
		Around(context.Context, *Request, Next) (any, error)
	}); ok {
		h.around = x.Around
	} else if x, ok := v.(interface {
		Around(context.Context, *Request, func(context.Context) (any, error)) (any, error)
	}); ok {
		h.around = func(ctx context.Context, r *Request, next Next) (any, error) { return x.Around(ctx, r, next) }
	}
	if x, ok := v.(interface {
		BeforeStart(context.Context, *Request) error
	}); ok {
		h.beforeStart = x.BeforeStart
	}
	switch x := v.(type) {
	case interface {
		OnSuccess(context.Context, *Request, any) error
	}:
		h.onSuccess = x.OnSuccess
	case interface {
		OnSuccess(context.Context, *Request, any)
	}:
		h.onSuccess = func(ctx context.Context, r *Request, res any) error { x.OnSuccess(ctx, r, res); return nil }
	}
	switch x := v.(type) {
	case interface {
		OnFailure(context.Context, *Request, *ErrorInfo) error
	}:
		h.onFailure = x.OnFailure
	case interface {
		OnFailure(context.Context, *Request, *ErrorInfo)
	}:
		h.onFailure = func(ctx context.Context, r *Request, i *ErrorInfo) error { x.OnFailure(ctx, r, i); return nil }
	}
	switch x := v.(type) {
	case interface {
		OnRetry(context.Context, *Request, *ErrorInfo) error
	}:
		h.onRetry = x.OnRetry
	case interface {
		OnRetry(context.Context, *Request, *ErrorInfo)
	}:
		h.onRetry = func(ctx context.Context, r *Request, i *ErrorInfo) error { x.OnRetry(ctx, r, i); return nil }
	}
	switch x := v.(type) {
	case interface {
		AfterReturn(context.Context, *Request, State, any, *ErrorInfo) error
	}:
		h.afterReturn = x.AfterReturn
	case interface {
		AfterReturn(context.Context, *Request, State, any, *ErrorInfo)
	}:
		h.afterReturn = func(ctx context.Context, r *Request, s State, res any, i *ErrorInfo) error {
			x.AfterReturn(ctx, r, s, res, i)
			return nil
		}
	}
	if x, ok := v.(interface {
		Backoff(context.Context, *Request, error) time.Duration
	}); ok {
		h.backoff = x.Backoff
	}
	return h
}

// hookForms are the accepted types of each hook, without the receiver.
var hookForms = map[string][]reflect.Type{
	"TaskOptions": {reflect.TypeFor[func() []TaskOption]()},
	"Init":        {reflect.TypeFor[func(context.Context) error]()},
	"Close":       {reflect.TypeFor[func(context.Context) error](), reflect.TypeFor[func() error]()},
	"Around": {
		reflect.TypeFor[func(context.Context, *Request, Next) (any, error)](),
		reflect.TypeFor[func(context.Context, *Request, func(context.Context) (any, error)) (any, error)](),
	},
	"BeforeStart": {reflect.TypeFor[func(context.Context, *Request) error]()},
	"OnSuccess": {
		reflect.TypeFor[func(context.Context, *Request, any)](),
		reflect.TypeFor[func(context.Context, *Request, any) error](),
	},
	"OnFailure": {
		reflect.TypeFor[func(context.Context, *Request, *ErrorInfo)](),
		reflect.TypeFor[func(context.Context, *Request, *ErrorInfo) error](),
	},
	"OnRetry": {
		reflect.TypeFor[func(context.Context, *Request, *ErrorInfo)](),
		reflect.TypeFor[func(context.Context, *Request, *ErrorInfo) error](),
	},
	"AfterReturn": {
		reflect.TypeFor[func(context.Context, *Request, State, any, *ErrorInfo)](),
		reflect.TypeFor[func(context.Context, *Request, State, any, *ErrorInfo) error](),
	},
	"Backoff": {reflect.TypeFor[func(context.Context, *Request, error) time.Duration]()},
}

// checkEmbedding walks the class and its embedded types, as Go promotes methods.
// What is neither a base nor the class is no concern of ours: a mixin whose
// method has another signature just has a method of that name.
func checkEmbedding(name string, t reflect.Type) {
	for _, hook := range slices.Sorted(maps.Keys(hookForms)) {
		forms := hookForms[hook]
		for _, st := range basesOf(t) {
			m, ok := reflect.PointerTo(st).MethodByName(hook)
			if ok && declares(st, hook) && !hasForm(m.Type, forms) {
				panic(fmt.Sprintf("lovage: task %q: hook %s of %s has the wrong signature %s; want %s",
					name, hook, typeName(st), methodForm(m.Type), formsText(forms)))
			}
		}
		// Init and Close chain level by level: no promotion is needed for them.
		if _, ok := t.MethodByName(hook); ok || hook == "Init" || hook == "Close" {
			continue
		}
		if offers := promoters(t, hook, forms); len(offers) > 1 {
			names := make([]string, len(offers))
			for i, o := range offers {
				names[i] = typeName(o)
			}
			panic(fmt.Sprintf("lovage: task %q: hook %s is offered by %s at one depth, so Go promotes neither; declare %s on %s and call the ones you want",
				name, hook, strings.Join(names, " and "), hook, typeName(t)))
		}
	}
}

func hasForm(method reflect.Type, forms []reflect.Type) bool {
	for _, f := range forms {
		if sameForm(method, f) {
			return true
		}
	}
	return false
}

// sameForm compares a method type, whose first input is the receiver, with f.
func sameForm(m, f reflect.Type) bool {
	if m.NumIn() != f.NumIn()+1 || m.NumOut() != f.NumOut() || m.IsVariadic() {
		return false
	}
	for i := range f.NumIn() {
		if m.In(i+1) != f.In(i) {
			return false
		}
	}
	for i := range f.NumOut() {
		if m.Out(i) != f.Out(i) {
			return false
		}
	}
	return true
}

func methodForm(m reflect.Type) string {
	in := make([]reflect.Type, 0, m.NumIn())
	for i := 1; i < m.NumIn(); i++ {
		in = append(in, m.In(i))
	}
	out := make([]reflect.Type, 0, m.NumOut())
	for i := range m.NumOut() {
		out = append(out, m.Out(i))
	}
	return reflect.FuncOf(in, out, m.IsVariadic()).String()
}

func formsText(forms []reflect.Type) string {
	s := make([]string, len(forms))
	for i, f := range forms {
		s[i] = f.String()
	}
	return strings.Join(s, " or ")
}

// basesOf lists the class and the embedded structs that are bases themselves.
func basesOf(t reflect.Type) []reflect.Type {
	st := structOf(t)
	if st == nil || st == reflect.TypeFor[Task]() || !reflect.PointerTo(st).Implements(reflect.TypeFor[Base]()) {
		return nil
	}
	list := []reflect.Type{st}
	for i := range st.NumField() {
		if f := st.Field(i); f.Anonymous {
			list = append(list, basesOf(f.Type)...)
		}
	}
	return list
}

// declares reports whether the struct type has the method itself, not by
// promotion. The compiler marks the wrappers of promoted methods as generated.
func declares(st reflect.Type, method string) bool {
	for _, t := range []reflect.Type{reflect.PointerTo(st), st} {
		if m, ok := t.MethodByName(method); ok {
			pc := m.Func.Pointer()
			if f := runtime.FuncForPC(pc); f != nil {
				if file, _ := f.FileLine(pc); file != "<autogenerated>" {
					return true
				}
			}
		}
	}
	return false
}

// promoters are the embedded types that offer the method as a hook at the
// shallowest depth.
func promoters(t reflect.Type, method string, forms []reflect.Type) []reflect.Type {
	level := []reflect.Type{structOf(t)}
	for len(level) > 0 {
		var found, next []reflect.Type
		for _, st := range level {
			if st == nil {
				continue
			}
			for i := range st.NumField() {
				f := st.Field(i)
				if !f.Anonymous || structOf(f.Type) == nil {
					continue
				}
				e := structOf(f.Type)
				if !declares(e, method) {
					next = append(next, e)
				} else if m, ok := reflect.PointerTo(e).MethodByName(method); ok && hasForm(m.Type, forms) {
					found = append(found, e)
				}
			}
		}
		if len(found) > 0 {
			return found
		}
		level = next
	}
	return nil
}

func structOf(t reflect.Type) reflect.Type {
	if t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	if t.Kind() != reflect.Struct {
		return nil
	}
	return t
}

func typeName(t reflect.Type) string {
	if t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	return t.String()
}

func selfMismatch[T any](d *Definition) string {
	return fmt.Sprintf("lovage: task %q: Self wants a %s, but the task's instance is a %T; declare the task with that base, or as the app's default class",
		d.name, reflect.TypeFor[T](), d.instance)
}
