package serializer

import (
	"encoding"
	"encoding/json"
	"fmt"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"github.com/lovage-go/lovage/internal/pyjson"
)

// decoder walks once over a text that is known to be within its limits.
type decoder struct {
	pyjson.Scanner
	codec *jsonCodec
}

func (d *decoder) value(dst reflect.Value) error {
	i := d.codec.info(dst.Type(), true)
	if i.class == classPlain {
		raw, err := d.Raw()
		if err == nil {
			err = decodePlain(raw, dst)
		}
		return err
	}
	if d.Peek() == 'n' && i.class != classRaw {
		switch i.class {
		case classInterface, classPointer, classMap, classSlice, classBytes:
			dst.SetZero()
		}
		return d.Skip()
	}
	switch i.class {
	case classPointer:
		if dst.IsNil() {
			dst.Set(reflect.New(dst.Type().Elem()))
		}
		return d.value(dst.Elem())
	case classInterface:
		if dst.NumMethod() > 0 {
			return &json.UnmarshalTypeError{Value: pyjson.Kind(d.Peek()), Type: dst.Type()}
		}
		v, err := d.any()
		if err == nil && v != nil {
			dst.Set(reflect.ValueOf(v))
		}
		return err
	case classStruct:
		return d.object(dst, i)
	case classMap:
		return d.mapping(dst)
	case classSlice, classArray:
		return d.list(dst)
	}
	raw, err := d.Raw()
	if err != nil {
		return err
	}
	return leaf(raw, dst, i.class)
}

// leaf decodes the types that have their own text.
func leaf(raw []byte, dst reflect.Value, c class) error {
	switch c {
	case classTime:
		s, err := textOf(raw, "datetime", "date")
		if err != nil {
			return err
		}
		t, err := parseTime(s)
		if err == nil {
			dst.Set(reflect.ValueOf(t))
		}
		return err
	case classUUID:
		id, err := readUUID(raw)
		if err == nil {
			dst.Set(reflect.ValueOf(id))
		}
		return err
	case classBytes:
		b, err := readBytes(raw)
		if err == nil {
			dst.SetBytes(b)
		}
		return err
	case classRaw:
		dst.SetBytes(slices.Clone(raw))
		return nil
	case classNumber:
		return dst.Addr().Interface().(*Number).UnmarshalJSON(raw)
	}
	if pyjson.Kind(raw[0]) != "a number" { // classFloat
		return fmt.Errorf("got %s, want a number for %s", pyjson.Kind(raw[0]), dst.Type())
	}
	f, err := Number(raw).Float64()
	if err != nil || dst.OverflowFloat(f) && f-f == 0 {
		return fmt.Errorf("number %s does not fit %s", raw, dst.Type())
	}
	dst.SetFloat(f)
	return nil
}

func (d *decoder) any() (any, error) {
	switch d.Peek() {
	case '{':
		return d.anyObject()
	case '[':
		list := []any{}
		more, err := d.Enter('[')
		for more && err == nil {
			var v any
			if v, err = d.any(); err == nil {
				list = append(list, v)
				more, err = d.More('[')
			}
		}
		return list, err
	case '"':
		from, to, _, err := d.String()
		return pyjson.Unquote(d.Data[from:max(from, to)]), err
	case 't', 'f':
		raw, err := d.Raw()
		return len(raw) == 4, err
	case 'n':
		return nil, d.Skip()
	}
	raw, err := d.Raw()
	return Number(raw), err
}

func (d *decoder) anyObject() (any, error) {
	begin := d.Pos
	m := map[string]any{}
	more, err := d.Enter('{')
	for more && err == nil {
		var key []byte
		if key, err = d.Key(); err != nil {
			break
		}
		if len(m) == 0 && (string(key) == "__type__" || string(key) == "__value__") {
			if v, ok, err := d.anyTagged(begin); ok || err != nil {
				return v, err
			}
		}
		var v any
		if v, err = d.any(); err != nil {
			return nil, at("."+string(key), err)
		}
		m[string(key)] = v
		more, err = d.More('{')
	}
	return m, err
}

// anyTagged reads the object that begins at begin as a tagged value. If it is
// none, or its tag is unknown, the decoder stays where it is.
func (d *decoder) anyTagged(begin int) (any, bool, error) {
	whole := pyjson.Scanner{Data: d.Data, Pos: begin}
	raw, err := whole.Raw()
	if err != nil {
		return nil, false, err
	}
	t, ok := readTag(raw)
	if !ok {
		return nil, false, nil
	}
	v, ok, err := fromTag(t)
	if ok && err == nil {
		d.Pos = whole.Pos
		d.Depth--
	}
	return v, ok, err
}

func (d *decoder) list(dst reflect.Value) error {
	if c := d.Peek(); c != '[' {
		return &json.UnmarshalTypeError{Value: pyjson.Kind(c), Type: dst.Type()}
	}
	isSlice := dst.Kind() == reflect.Slice
	if isSlice {
		dst.Set(reflect.MakeSlice(dst.Type(), 0, 4))
	}
	n := 0
	more, err := d.Enter('[')
	for more && err == nil {
		switch {
		case isSlice:
			dst.Grow(1)
			dst.SetLen(n + 1)
			dst.Index(n).SetZero()
			err = d.value(dst.Index(n))
		case n < dst.Len():
			err = d.value(dst.Index(n))
		default:
			err = d.Skip()
		}
		if err != nil {
			return at("["+strconv.Itoa(n)+"]", err)
		}
		n++
		more, err = d.More('[')
	}
	for ; !isSlice && n < dst.Len(); n++ {
		dst.Index(n).SetZero()
	}
	return err
}

func (d *decoder) mapping(dst reflect.Value) error {
	if c := d.Peek(); c != '{' {
		return &json.UnmarshalTypeError{Value: pyjson.Kind(c), Type: dst.Type()}
	}
	t := dst.Type()
	if dst.IsNil() {
		dst.Set(reflect.MakeMap(t))
	}
	more, err := d.Enter('{')
	for more && err == nil {
		var name []byte
		if name, err = d.Key(); err != nil {
			return err
		}
		key, err2 := keyOf(string(name), t.Key())
		elem := reflect.New(t.Elem()).Elem()
		if err2 == nil {
			err2 = d.value(elem)
		}
		if err2 != nil {
			return at("."+string(name), err2)
		}
		dst.SetMapIndex(key, elem)
		more, err = d.More('{')
	}
	return err
}

// keyOf reads a map key: a string, a type that unmarshals text, or an integer.
func keyOf(s string, t reflect.Type) (reflect.Value, error) {
	k := reflect.New(t).Elem()
	if u, ok := k.Addr().Interface().(encoding.TextUnmarshaler); ok {
		return k, u.UnmarshalText([]byte(s))
	}
	bad := &json.UnmarshalTypeError{Value: "key " + strconv.Quote(s), Type: t}
	switch {
	case t.Kind() == reflect.String:
		k.SetString(s)
	case k.CanInt():
		n, err := strconv.ParseInt(s, 10, 64)
		if err != nil || k.OverflowInt(n) {
			return k, bad
		}
		k.SetInt(n)
	case k.CanUint():
		n, err := strconv.ParseUint(s, 10, 64)
		if err != nil || k.OverflowUint(n) {
			return k, bad
		}
		k.SetUint(n)
	default:
		return k, bad
	}
	return k, nil
}

func (d *decoder) object(dst reflect.Value, i *typeInfo) error {
	if c := d.Peek(); c != '{' {
		return &json.UnmarshalTypeError{Value: pyjson.Kind(c), Type: dst.Type()}
	}
	more, err := d.Enter('{')
	for more && err == nil {
		var name []byte
		if name, err = d.Key(); err != nil {
			return err
		}
		if f := i.field(string(name)); f == nil {
			err = d.Skip()
		} else if err = d.field(dst, f); err != nil {
			return at("."+f.name, err)
		}
		if err == nil {
			more, err = d.More('{')
		}
	}
	return err
}

func (i *typeInfo) field(name string) *field {
	if n, ok := i.byName[name]; ok {
		return &i.fields[n]
	}
	for n := range i.fields {
		if strings.EqualFold(i.fields[n].name, name) {
			return &i.fields[n]
		}
	}
	return nil
}

func (d *decoder) field(dst reflect.Value, f *field) error {
	if f.unexported {
		return fmt.Errorf("cannot set a field behind an unexported embedded pointer in %s", dst.Type())
	}
	for n, i := range f.index {
		if n > 0 && dst.Kind() == reflect.Pointer {
			if dst.IsNil() {
				dst.Set(reflect.New(dst.Type().Elem()))
			}
			dst = dst.Elem()
		}
		dst = dst.Field(i)
	}
	if !f.quoted || d.Peek() != '"' {
		return d.value(dst)
	}
	from, to, _, err := d.String()
	if err != nil {
		return err
	}
	inner := decoder{codec: d.codec}
	inner.Data = []byte(pyjson.Unquote(d.Data[from:to]))
	if err = inner.Skip(); err == nil {
		err = inner.End()
	}
	if err != nil {
		return fmt.Errorf("field with the option string: %w", err)
	}
	inner.Pos = 0
	return inner.value(dst)
}
