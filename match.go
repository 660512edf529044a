package lovage

import (
	"errors"
	"reflect"
)

func matchers(option string, errs []error) []func(error) bool {
	out := make([]func(error) bool, 0, len(errs))
	for _, target := range errs {
		if target == nil {
			panic("lovage: " + option + ": an error is nil")
		}
		if t := reflect.TypeOf(target); standsForType(target) {
			out = append(out, func(err error) bool {
				return walkErrors(err, func(e error) bool { return reflect.TypeOf(e) == t })
			})
			continue
		}
		out = append(out, func(err error) bool { return errors.Is(err, target) })
	}
	return out
}

// standsForType reports whether an error is the zero value of its struct type,
// or a nil pointer to one.
func standsForType(target error) bool {
	v := reflect.ValueOf(target)
	if v.Kind() == reflect.Pointer {
		if v.IsNil() {
			return true
		}
		v = v.Elem()
	}
	return v.Kind() == reflect.Struct && v.IsZero()
}

// walkErrors visits err and what it wraps until visit returns true.
func walkErrors(err error, visit func(error) bool) bool {
	for err != nil {
		if visit(err) {
			return true
		}
		switch x := err.(type) {
		case interface{ Unwrap() error }:
			err = x.Unwrap()
		case interface{ Unwrap() []error }:
			for _, e := range x.Unwrap() {
				if walkErrors(e, visit) {
					return true
				}
			}
			return false
		default:
			return false
		}
	}
	return false
}

func matchesAny(err error, fs []func(error) bool) bool {
	for _, f := range fs {
		if f(err) {
			return true
		}
	}
	return false
}
