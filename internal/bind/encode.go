package bind

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"reflect"
	"slices"

	"github.com/lovage-go/lovage/internal/pyjson"
)

// Encode turns in, a value of the plan's type or a pointer to one, into the texts of
// a JSON array and a JSON object.
//
// Required fields travel by position. Optional ones travel by keyword, and only if
// they differ from what the receiver assumes: the declared default or, without one,
// the zero value. A nil pointer is always left to the receiver. A rest field that is
// not empty forces the positional fields before it into positions too.
func (p *Plan) Encode(in any) (args, kwargs json.RawMessage, err error) {
	if p.raw {
		return p.encodeRaw(in)
	}
	v, err := p.source(in)
	if err != nil {
		return nil, nil, err
	}
	byPosition := p.nreq
	var rest reflect.Value
	if p.rest != nil {
		if rest = v.FieldByIndex(p.rest.index); rest.Len() > 0 {
			byPosition = p.npos
		}
	}
	buf := append(make([]byte, 0, 64), '[')
	for i := range byPosition {
		f := &p.fields[i]
		fv := f.in(v)
		if f.def.IsValid() && unset(fv) {
			fv = f.def
		}
		if buf, err = f.append(comma(buf), fv); err != nil {
			return nil, nil, err
		}
	}
	if rest.IsValid() {
		for i := range rest.Len() {
			if buf, err = p.rest.append(comma(buf), rest.Index(i)); err != nil {
				return nil, nil, err
			}
		}
	}
	buf = append(buf, ']')
	cut := len(buf)
	buf = append(buf, '{')
	for i := byPosition; i < len(p.fields); i++ {
		f := &p.fields[i]
		fv := f.in(v)
		if f.omitted(fv) {
			continue
		}
		buf = append(pyjson.AppendString(comma(buf), f.Name), ':')
		if buf, err = f.append(buf, fv); err != nil {
			return nil, nil, err
		}
	}
	if p.extra != nil {
		if buf, err = p.appendExtra(buf, v.FieldByIndex(p.extra.index)); err != nil {
			return nil, nil, err
		}
	}
	buf = append(buf, '}')
	return buf[:cut:cut], buf[cut:], nil
}

// source is in as a value of the plan's struct or single type.
func (p *Plan) source(in any) (reflect.Value, error) {
	v := reflect.ValueOf(in)
	if p.typ.Kind() == reflect.Interface {
		box := reflect.New(p.typ).Elem()
		if v.IsValid() {
			box.Set(v)
		}
		return box, nil
	}
	if v.IsValid() && v.Type() != p.typ && v.Kind() == reflect.Pointer {
		if v.IsNil() {
			return v, fmt.Errorf("arguments: got a nil %s, want a value", v.Type())
		}
		v = v.Elem()
	}
	if !v.IsValid() || v.Type() != p.typ {
		return v, fmt.Errorf("arguments: got %T, want %s", in, p.typ)
	}
	return v, nil
}

func (p *Plan) encodeRaw(in any) (args, kwargs json.RawMessage, err error) {
	raw, ok := in.(RawArgs)
	if v := reflect.ValueOf(in); !ok && v.IsValid() && v.Type() == p.typ {
		box := reflect.New(p.typ)
		box.Elem().Set(v)
		raw, ok = box.Interface().(RawArgs)
	}
	if !ok {
		return nil, nil, fmt.Errorf("arguments: got %T, want %s", in, p.typ)
	}
	if args, kwargs, err = raw.RawArgs(); err != nil {
		return nil, nil, err
	}
	args, kwargs = orEmpty(args, "[]"), orEmpty(kwargs, "{}")
	return args, kwargs, checkRaw("", args, kwargs)
}

// appendExtra appends the members of the extra map in the order of their keys.
func (p *Plan) appendExtra(buf []byte, m reflect.Value) ([]byte, error) {
	keys := m.MapKeys()
	slices.SortFunc(keys, func(a, b reflect.Value) int {
		if a.String() < b.String() {
			return -1
		}
		return 1
	})
	for _, k := range keys {
		name := k.String()
		if _, ok := p.slots[name]; ok {
			return nil, &ArgumentError{Param: p.extra.Name, Err: fmt.Errorf("the key %q is a parameter of its own; set that field", name)}
		}
		buf = append(pyjson.AppendString(comma(buf), name), ':')
		var err error
		if buf, err = p.extra.val.encode(buf, m.MapIndex(k)); err != nil {
			return nil, &ArgumentError{Param: name, Err: err}
		}
	}
	return buf, nil
}

// in is the field's place in the argument value v.
func (f *field) in(v reflect.Value) reflect.Value {
	switch len(f.index) {
	case 0:
		return v
	case 1:
		return v.Field(f.index[0])
	}
	return v.FieldByIndex(f.index)
}

func (f *field) append(buf []byte, v reflect.Value) ([]byte, error) {
	buf, err := f.val.encode(buf, v)
	if err != nil {
		return nil, &ArgumentError{Param: f.Name, Err: err}
	}
	return buf, nil
}

// omitted reports whether the receiver assumes v if nothing is sent.
func (f *field) omitted(v reflect.Value) bool {
	switch {
	case f.Required:
		return false
	case unset(v):
		return true
	case f.def.IsValid():
		return equal(v, f.def)
	case f.isZero:
		return v.Interface().(interface{ IsZero() bool }).IsZero()
	}
	return v.IsZero()
}

// unset reports whether v is a nil pointer, Go's way to leave a value open.
func unset(v reflect.Value) bool { return v.Kind() == reflect.Pointer && v.IsNil() }

func equal(a, b reflect.Value) bool {
	switch a.Kind() {
	case reflect.Float32, reflect.Float64:
		return math.Float64bits(a.Float()) == math.Float64bits(b.Float())
	case reflect.Interface, reflect.Pointer, reflect.Slice, reflect.Map, reflect.Struct, reflect.Array:
		return reflect.DeepEqual(a.Interface(), b.Interface())
	}
	return a.Equal(b)
}

// comma appends a comma unless buf ends with an opening bracket.
func comma(buf []byte) []byte {
	if c := buf[len(buf)-1]; c == '[' || c == '{' {
		return buf
	}
	return append(buf, ',')
}

var errNotUTF8 = errors.New("the string is not UTF-8; use []byte for bytes")
