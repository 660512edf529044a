package prefork

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"reflect"
	"sync"
	"time"
)

// A flat text is a value written field by field, with no names: parent and
// child are the same program, so both know the type. All exported fields are
// written, whatever the type; a type that cannot be written is a panic when it
// is first used, so that nothing is left out in silence. Numbers are varints, a
// pointer, slice or map is preceded by what tells nil from empty.

var errShort = errors.New("the frame is cut off")

// appendFlat writes *v.
func appendFlat[T any](b []byte, v *T) []byte {
	return planOf(reflect.TypeFor[T]()).write(b, reflect.ValueOf(v).Elem())
}

// readFlat reads a T. Byte slices share memory with b.
func readFlat[T any](b []byte) (v T, err error) {
	r := reader{b: b}
	planOf(reflect.TypeFor[T]()).read(&r, reflect.ValueOf(&v).Elem())
	if r.failed || len(r.b) > 0 {
		err = fmt.Errorf("read %T: %w", v, errShort)
	}
	return v, err
}

// plan writes and reads one type.
type plan struct {
	write func([]byte, reflect.Value) []byte
	read  func(*reader, reflect.Value)
}

var plans sync.Map // reflect.Type -> *plan

func planOf(t reflect.Type) *plan {
	if p, ok := plans.Load(t); ok {
		return p.(*plan)
	}
	p, _ := plans.LoadOrStore(t, newPlan(t))
	return p.(*plan)
}

func newPlan(t reflect.Type) *plan {
	if t == reflect.TypeFor[time.Time]() {
		return timePlan()
	}
	switch t.Kind() {
	case reflect.Bool:
		return &plan{
			func(b []byte, v reflect.Value) []byte { return appendBool(b, v.Bool()) },
			func(r *reader, v reflect.Value) { v.SetBool(r.bool()) },
		}
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		return &plan{
			func(b []byte, v reflect.Value) []byte { return binary.AppendVarint(b, v.Int()) },
			func(r *reader, v reflect.Value) { v.SetInt(r.varint()) },
		}
	case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		return &plan{
			func(b []byte, v reflect.Value) []byte { return binary.AppendUvarint(b, v.Uint()) },
			func(r *reader, v reflect.Value) { v.SetUint(r.uvarint()) },
		}
	case reflect.Float32, reflect.Float64:
		return &plan{
			func(b []byte, v reflect.Value) []byte { return binary.AppendUvarint(b, math.Float64bits(v.Float())) },
			func(r *reader, v reflect.Value) { v.SetFloat(math.Float64frombits(r.uvarint())) },
		}
	case reflect.String:
		return &plan{
			func(b []byte, v reflect.Value) []byte {
				s := v.String()
				return append(binary.AppendUvarint(b, uint64(len(s))), s...)
			},
			func(r *reader, v reflect.Value) { v.SetString(string(r.take(r.uvarint()))) },
		}
	case reflect.Pointer:
		return pointerPlan(t)
	case reflect.Slice:
		return slicePlan(t)
	case reflect.Map:
		return mapPlan(t)
	case reflect.Struct:
		return structPlan(t)
	}
	panic("prefork: a value of type " + t.String() + " cannot be sent between parent and child")
}

func timePlan() *plan {
	return &plan{
		func(b []byte, v reflect.Value) []byte {
			text, err := v.Interface().(time.Time).MarshalBinary()
			if err != nil { // a zone of odd seconds
				text, _ = v.Interface().(time.Time).UTC().MarshalBinary()
			}
			return append(binary.AppendUvarint(b, uint64(len(text))), text...)
		},
		func(r *reader, v reflect.Value) {
			if err := v.Addr().Interface().(*time.Time).UnmarshalBinary(r.take(r.uvarint())); err != nil {
				r.fail()
			}
		},
	}
}

func pointerPlan(t reflect.Type) *plan {
	inner := planOf(t.Elem())
	return &plan{
		func(b []byte, v reflect.Value) []byte {
			b = appendBool(b, !v.IsNil())
			if v.IsNil() {
				return b
			}
			return inner.write(b, v.Elem())
		},
		func(r *reader, v reflect.Value) {
			if r.bool() {
				v.Set(reflect.New(t.Elem()))
				inner.read(r, v.Elem())
			}
		},
	}
}

func slicePlan(t reflect.Type) *plan {
	if t.Elem().Kind() == reflect.Uint8 {
		return &plan{
			func(b []byte, v reflect.Value) []byte {
				if v.IsNil() {
					return append(b, 0)
				}
				return append(binary.AppendUvarint(b, uint64(v.Len())+1), v.Bytes()...)
			},
			func(r *reader, v reflect.Value) {
				if n := r.uvarint(); n > 0 {
					v.SetBytes(r.take(n - 1))
				}
			},
		}
	}
	inner := planOf(t.Elem())
	return &plan{
		func(b []byte, v reflect.Value) []byte {
			if v.IsNil() {
				return append(b, 0)
			}
			b = binary.AppendUvarint(b, uint64(v.Len())+1)
			for i := range v.Len() {
				b = inner.write(b, v.Index(i))
			}
			return b
		},
		func(r *reader, v reflect.Value) {
			n := r.count()
			if n < 0 {
				return
			}
			v.Set(reflect.MakeSlice(t, 0, min(n, 64))) // grown by what is really there
			for range n {
				if r.failed {
					return
				}
				elem := reflect.New(t.Elem()).Elem()
				inner.read(r, elem)
				v.Set(reflect.Append(v, elem))
			}
		},
	}
}

func mapPlan(t reflect.Type) *plan {
	key, elem := planOf(t.Key()), planOf(t.Elem())
	return &plan{
		func(b []byte, v reflect.Value) []byte {
			if v.IsNil() {
				return append(b, 0)
			}
			b = binary.AppendUvarint(b, uint64(v.Len())+1)
			for it := v.MapRange(); it.Next(); {
				b = elem.write(key.write(b, it.Key()), it.Value())
			}
			return b
		},
		func(r *reader, v reflect.Value) {
			n := r.count()
			if n < 0 {
				return
			}
			v.Set(reflect.MakeMap(t))
			for range n {
				if r.failed {
					return
				}
				k, e := reflect.New(t.Key()).Elem(), reflect.New(t.Elem()).Elem()
				key.read(r, k)
				elem.read(r, e)
				v.SetMapIndex(k, e)
			}
		},
	}
}

func structPlan(t reflect.Type) *plan {
	var at []int
	var inner []*plan
	for i := range t.NumField() {
		f := t.Field(i)
		if f.Type == requestType || f.Type == outcomeType { // see effects.go
			continue
		}
		if f.IsExported() {
			at, inner = append(at, i), append(inner, planOf(f.Type))
		}
	}
	return &plan{
		func(b []byte, v reflect.Value) []byte {
			for n, i := range at {
				b = inner[n].write(b, v.Field(i))
			}
			return b
		},
		func(r *reader, v reflect.Value) {
			for n, i := range at {
				inner[n].read(r, v.Field(i))
			}
		},
	}
}

func appendBool(b []byte, on bool) []byte {
	if on {
		return append(b, 1)
	}
	return append(b, 0)
}

// reader reads a flat text; after a failure all that it gives is zero.
type reader struct {
	b      []byte
	failed bool
}

func (r *reader) fail() { r.failed, r.b = true, nil }

func (r *reader) bool() bool {
	t := r.take(1)
	return len(t) == 1 && t[0] == 1
}

func (r *reader) uvarint() uint64 {
	n, size := binary.Uvarint(r.b)
	if size <= 0 {
		r.fail()
		return 0
	}
	r.b = r.b[size:]
	return n
}

func (r *reader) varint() int64 {
	n, size := binary.Varint(r.b)
	if size <= 0 {
		r.fail()
		return 0
	}
	r.b = r.b[size:]
	return n
}

// count is the length of a slice or map, -1 for a nil one. An element takes a
// byte at least, unless it is an empty struct, of which nobody sends many.
func (r *reader) count() int {
	n := r.uvarint()
	if n == 0 {
		return -1
	}
	if n-1 > uint64(len(r.b))+1 {
		r.fail()
		return -1
	}
	return int(n - 1)
}

func (r *reader) take(n uint64) []byte {
	if n > uint64(len(r.b)) {
		r.fail()
		return nil
	}
	t := r.b[:n:n]
	r.b = r.b[n:]
	return t
}
