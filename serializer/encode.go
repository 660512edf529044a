package serializer

import (
	"bytes"
	"encoding"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strconv"
	"time"

	"github.com/google/uuid"

	"github.com/lovage-go/lovage/internal/pyjson"
)

// maxEncodeDepth ends the walk over values that hold themselves.
const maxEncodeDepth = 1000

func (c *jsonCodec) append(dst []byte, v reflect.Value, depth int) ([]byte, error) {
	if !v.IsValid() {
		return append(dst, "null"...), nil
	}
	if depth > maxEncodeDepth {
		return nil, fmt.Errorf("%s is nested deeper than %d levels; does it hold itself?", v.Type(), maxEncodeDepth)
	}
	i := c.info(v.Type(), false)
	switch i.class {
	case classPlain:
		return appendScalar(dst, v)
	case classTime:
		return appendTime(dst, v.Interface().(time.Time))
	case classUUID:
		return appendUUID(dst, v.Interface().(uuid.UUID)), nil
	case classBytes:
		if v.IsNil() {
			return append(dst, "null"...), nil
		}
		return appendBytes(dst, v.Bytes()), nil
	case classRaw:
		return appendRaw(dst, v.Bytes())
	case classNumber:
		return v.Interface().(Number).append(dst)
	case classFloat:
		return appendFloat(dst, v.Float(), v.Type().Bits()), nil
	case classInterface, classPointer:
		if v.IsNil() {
			return append(dst, "null"...), nil
		}
		return c.append(dst, v.Elem(), depth+1)
	case classStruct:
		return c.appendStruct(dst, v, i, depth)
	case classMap:
		if v.IsNil() {
			return append(dst, "null"...), nil
		}
		return c.appendMap(dst, v, depth)
	case classSlice:
		if v.IsNil() {
			return append(dst, "null"...), nil
		}
	}
	return c.appendList(dst, v, depth)
}

// appendScalar is appendPlain with a short way for what needs no encoding/json.
func appendScalar(dst []byte, v reflect.Value) ([]byte, error) {
	if v.Type().PkgPath() == "" { // a type without methods
		switch v.Kind() {
		case reflect.Bool:
			return strconv.AppendBool(dst, v.Bool()), nil
		case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
			return strconv.AppendInt(dst, v.Int(), 10), nil
		case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
			return strconv.AppendUint(dst, v.Uint(), 10), nil
		case reflect.String:
			return pyjson.AppendString(dst, v.String()), nil
		}
	}
	return appendPlain(dst, v)
}

func appendRaw(dst, raw []byte) ([]byte, error) {
	if raw == nil {
		return append(dst, "null"...), nil
	}
	s := pyjson.Scanner{Data: raw}
	err := s.ValidUTF8()
	if err == nil {
		err = s.Skip()
	}
	if err == nil {
		err = s.End()
	}
	if err != nil {
		return nil, fmt.Errorf("json.RawMessage: %w", err)
	}
	return pyjson.AppendASCII(dst, bytes.TrimSpace(raw)), nil
}

func (c *jsonCodec) appendList(dst []byte, v reflect.Value, depth int) (_ []byte, err error) {
	dst = append(dst, '[')
	for n := range v.Len() {
		if n > 0 {
			dst = append(dst, ", "...)
		}
		if dst, err = c.append(dst, v.Index(n), depth+1); err != nil {
			return nil, at("["+strconv.Itoa(n)+"]", err)
		}
	}
	return append(dst, ']'), nil
}

func (c *jsonCodec) appendMap(dst []byte, v reflect.Value, depth int) (_ []byte, err error) {
	type entry struct {
		key   string
		value reflect.Value
	}
	entries := make([]entry, 0, v.Len())
	for it := v.MapRange(); it.Next(); {
		key, err := keyText(it.Key())
		if err != nil {
			return nil, err
		}
		entries = append(entries, entry{key, it.Value()})
	}
	slices.SortFunc(entries, func(a, b entry) int { return bytes.Compare([]byte(a.key), []byte(b.key)) })
	dst = append(dst, '{')
	for n, e := range entries {
		if n > 0 {
			dst = append(dst, ", "...)
		}
		dst = append(pyjson.AppendString(dst, e.key), ": "...)
		if dst, err = c.append(dst, e.value, depth+1); err != nil {
			return nil, at("."+e.key, err)
		}
	}
	return append(dst, '}'), nil
}

func (c *jsonCodec) appendStruct(dst []byte, v reflect.Value, i *typeInfo, depth int) (_ []byte, err error) {
	dst = append(dst, '{')
	start := len(dst)
	for n := range i.fields {
		f := &i.fields[n]
		fv, ok := reach(v, f.index)
		if !ok || f.omitEmpty && isEmpty(fv) || f.omitZero && f.zero(fv) {
			continue
		}
		if len(dst) > start {
			dst = append(dst, ", "...)
		}
		dst = append(pyjson.AppendString(dst, f.name), ": "...)
		if f.quoted {
			inner, err := c.append(nil, fv, depth+1)
			if err != nil {
				return nil, at("."+f.name, err)
			}
			dst = pyjson.AppendString(dst, string(inner))
			continue
		}
		if dst, err = c.append(dst, fv, depth+1); err != nil {
			return nil, at("."+f.name, err)
		}
	}
	return append(dst, '}'), nil
}

// reach walks to a field; it reports false behind a nil embedded pointer.
func reach(v reflect.Value, index []int) (reflect.Value, bool) {
	for n, i := range index {
		if n > 0 && v.Kind() == reflect.Pointer {
			if v.IsNil() {
				return v, false
			}
			v = v.Elem()
		}
		v = v.Field(i)
	}
	return v, true
}

func (f *field) zero(v reflect.Value) bool {
	if f.isZero && !(v.Kind() == reflect.Pointer && v.IsNil()) {
		return v.Interface().(interface{ IsZero() bool }).IsZero()
	}
	return v.IsZero()
}

func isEmpty(v reflect.Value) bool {
	switch v.Kind() {
	case reflect.Array, reflect.Map, reflect.Slice, reflect.String:
		return v.Len() == 0
	case reflect.Struct:
		return false
	}
	return v.IsZero()
}

func keyText(k reflect.Value) (string, error) {
	if k.Kind() == reflect.String {
		return k.String(), nil
	}
	if m, ok := k.Interface().(encoding.TextMarshaler); ok {
		b, err := m.MarshalText()
		return string(b), err
	}
	switch k.Kind() {
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		return strconv.FormatInt(k.Int(), 10), nil
	case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64, reflect.Uintptr:
		return strconv.FormatUint(k.Uint(), 10), nil
	}
	return "", &json.UnsupportedTypeError{Type: k.Type()}
}

// pathError says where in a value the trouble is.
type pathError struct {
	path string
	err  error
}

func (e *pathError) Error() string { return "at " + e.path + ": " + e.err.Error() }
func (e *pathError) Unwrap() error { return e.err }

func at(step string, err error) error {
	if p, ok := errors.AsType[*pathError](err); ok {
		p.path = step + p.path
		return err
	}
	return &pathError{step, err}
}
