package bind

import (
	"encoding"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"reflect"
	"strconv"
	"unicode/utf8"

	"github.com/lovage-go/lovage/internal/jsontext"
	"github.com/lovage-go/lovage/internal/pyjson"
)

// value writes and reads the JSON of one Go type. Scalars, pointers to them and lists
// of them go straight between field and text; all else goes through the codec.
type value struct {
	encode func(dst []byte, v reflect.Value) ([]byte, error)
	decode func(dst reflect.Value, text []byte) error // text is checked JSON
	plain  bool                                       // a scalar, which refers to nothing
}

// valueFor is the value of type t. The error says why t cannot be an argument.
func valueFor(t reflect.Type, c Codec) (value, error) { return nestedValue(t, c, 0) }

// maxNesting bounds types that contain themselves without a struct between, such as
// type Tree []Tree: below it the codec is trusted.
const maxNesting = 16

// nestedValue is the value of t, which stands inside depth others.
func nestedValue(t reflect.Type, c Codec, depth int) (value, error) {
	if depth > maxNesting {
		return codecValue(t, c), nil
	}
	if marshalsItself(t) || t == reflect.TypeFor[json.Number]() {
		return codecValue(t, c), nil
	}
	switch t.Kind() {
	case reflect.Bool:
		return value{encodeBool, decodeBool, true}, nil
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		return value{encodeInt, decodeInt, true}, nil
	case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		return value{encodeUint, decodeUint, true}, nil
	case reflect.Float32, reflect.Float64:
		return value{encodeFloat, decodeFloat, true}, nil
	case reflect.String:
		return value{encodeString, decodeString, true}, nil
	case reflect.Pointer:
		elem, err := nestedValue(t.Elem(), c, depth+1)
		return pointerValue(elem), err
	case reflect.Slice:
		elem, err := nestedValue(t.Elem(), c, depth+1)
		if elem.plain && t.Elem().Kind() != reflect.Uint8 {
			return listValue(t, elem), err
		}
		return codecValue(t, c), err
	case reflect.Array, reflect.Map:
		_, err := nestedValue(t.Elem(), c, depth+1)
		return codecValue(t, c), err
	case reflect.Struct:
		return codecValue(t, c), nil
	case reflect.Interface:
		if t.NumMethod() == 0 {
			return codecValue(t, c), nil
		}
	}
	return value{}, fmt.Errorf("values of type %s cannot travel", t)
}

// marshalsItself reports whether t or *t has its own JSON or text form.
func marshalsItself(t reflect.Type) bool {
	if t.Kind() == reflect.Interface {
		return false
	}
	p := reflect.PointerTo(t)
	return p.Implements(reflect.TypeFor[json.Marshaler]()) || p.Implements(reflect.TypeFor[encoding.TextMarshaler]())
}

func encodeBool(dst []byte, v reflect.Value) ([]byte, error) {
	return strconv.AppendBool(dst, v.Bool()), nil
}

func decodeBool(dst reflect.Value, text []byte) error {
	if kind(text) != isBool {
		return mismatch(text, dst.Type())
	}
	dst.SetBool(text[0] == 't')
	return nil
}

func encodeInt(dst []byte, v reflect.Value) ([]byte, error) {
	return strconv.AppendInt(dst, v.Int(), 10), nil
}

func decodeInt(dst reflect.Value, text []byte) error {
	n, err := parseInt(text, dst.Type())
	if err != nil {
		return err
	}
	if dst.OverflowInt(n) {
		return overflow(text, dst.Type())
	}
	dst.SetInt(n)
	return nil
}

func encodeUint(dst []byte, v reflect.Value) ([]byte, error) {
	return strconv.AppendUint(dst, v.Uint(), 10), nil
}

func decodeUint(dst reflect.Value, text []byte) error {
	n, err := parseUint(text, dst.Type())
	if err != nil {
		return err
	}
	if dst.OverflowUint(n) {
		return overflow(text, dst.Type())
	}
	dst.SetUint(n)
	return nil
}

// parseInt reads an integer. Python sends 3.0 where a computation made it a float, so
// a float without a fraction is taken.
func parseInt(text []byte, t reflect.Type) (int64, error) {
	if kind(text) != isNumber {
		return 0, mismatch(text, t)
	}
	n, err := strconv.ParseInt(string(text), 10, 64)
	if err == nil {
		return n, nil
	}
	f, err := parseWhole(text, t)
	if err != nil {
		return 0, err
	}
	if f < math.MinInt64 || f >= -math.MinInt64 {
		return 0, overflow(text, t)
	}
	return int64(f), nil
}

func parseUint(text []byte, t reflect.Type) (uint64, error) {
	if kind(text) != isNumber {
		return 0, mismatch(text, t)
	}
	n, err := strconv.ParseUint(string(text), 10, 64)
	if err == nil {
		return n, nil
	}
	f, err := parseWhole(text, t)
	if err != nil {
		return 0, err
	}
	if f < 0 || f >= 2*-math.MinInt64 {
		return 0, overflow(text, t)
	}
	return uint64(f), nil
}

// parseWhole reads a number that is no plain integer of 64 bits.
func parseWhole(text []byte, t reflect.Type) (float64, error) {
	f, err := strconv.ParseFloat(string(text), 64)
	switch {
	case errors.Is(err, strconv.ErrRange):
		return 0, overflow(text, t)
	case err != nil || f != math.Trunc(f) || math.IsInf(f, 0):
		return 0, fmt.Errorf("got %s, want %s", clip(text), t)
	}
	return f, nil
}

// encodeFloat writes a float so that Python reads a float: 3 as 3.0.
func encodeFloat(dst []byte, v reflect.Value) ([]byte, error) {
	switch f := v.Float(); {
	case math.IsNaN(f):
		return append(dst, "NaN"...), nil
	case math.IsInf(f, 1):
		return append(dst, "Infinity"...), nil
	case math.IsInf(f, -1):
		return append(dst, "-Infinity"...), nil
	default:
		return pyjson.AppendFloat(dst, f, v.Type().Bits()), nil
	}
}

func decodeFloat(dst reflect.Value, text []byte) error {
	if kind(text) != isNumber {
		return mismatch(text, dst.Type())
	}
	f, err := strconv.ParseFloat(string(text), dst.Type().Bits())
	if err != nil {
		return overflow(text, dst.Type())
	}
	dst.SetFloat(f)
	return nil
}

func encodeString(dst []byte, v reflect.Value) ([]byte, error) {
	s := v.String()
	if !utf8.ValidString(s) {
		return nil, errNotUTF8
	}
	return pyjson.AppendString(dst, s), nil
}

func decodeString(dst reflect.Value, text []byte) error {
	if kind(text) != isString {
		return mismatch(text, dst.Type())
	}
	dst.SetString(pyjson.Unquote(text[1 : len(text)-1]))
	return nil
}

// pointerValue is a pointer to elem; nil is null.
func pointerValue(elem value) value {
	return value{
		encode: func(dst []byte, v reflect.Value) ([]byte, error) {
			if v.IsNil() {
				return append(dst, "null"...), nil
			}
			return elem.encode(dst, v.Elem())
		},
		decode: func(dst reflect.Value, text []byte) error {
			if kind(text) == isNull {
				dst.SetZero()
				return nil
			}
			box := reflect.New(dst.Type().Elem())
			if err := elem.decode(box.Elem(), text); err != nil {
				return err
			}
			dst.Set(box)
			return nil
		},
	}
}

// listValue is a slice of scalars.
func listValue(t reflect.Type, elem value) value {
	return value{
		encode: func(dst []byte, v reflect.Value) ([]byte, error) {
			dst = append(dst, '[')
			for i := range v.Len() {
				if i > 0 {
					dst = append(dst, ',')
				}
				var err error
				if dst, err = elem.encode(dst, v.Index(i)); err != nil {
					return nil, fmt.Errorf("element %d: %w", i, err)
				}
			}
			return append(dst, ']'), nil
		},
		decode: func(dst reflect.Value, text []byte) error {
			if kind(text) == isNull {
				dst.SetZero()
				return nil
			}
			if kind(text) != isArray {
				return mismatch(text, t)
			}
			n := 0
			for w := jsontext.Array(text); w.Next(); {
				n++
			}
			s := reflect.MakeSlice(t, n, n)
			w := jsontext.Array(text)
			for i := 0; w.Next(); i++ {
				if err := elem.decode(s.Index(i), w.Value()); err != nil {
					return fmt.Errorf("element %d: %w", i, err)
				}
			}
			dst.Set(s)
			return nil
		},
	}
}

// codecValue leaves values of type t to the codec. A nil slice or map travels as an
// empty one: a Python function that takes a list rarely takes None.
func codecValue(t reflect.Type, c Codec) value {
	itself := marshalsItself(t)
	var nothing string
	switch {
	case itself:
	case t.Kind() == reflect.Map:
		nothing = "{}"
	case t.Kind() == reflect.Slice && t.Elem().Kind() != reflect.Uint8:
		nothing = "[]"
	}
	var nullable bool
	switch t.Kind() {
	case reflect.Pointer, reflect.Interface, reflect.Slice, reflect.Map:
		nullable = true
	}
	return value{
		encode: func(dst []byte, v reflect.Value) ([]byte, error) {
			if nothing != "" && v.IsNil() {
				return append(dst, nothing...), nil
			}
			if nullable {
				return marshal(dst, c, v.Interface())
			}
			// Through a pointer, so that methods with pointer receivers are seen.
			box := reflect.New(t)
			box.Elem().Set(v)
			return marshal(dst, c, box.Interface())
		},
		decode: func(dst reflect.Value, text []byte) error {
			if kind(text) == isNull {
				if !nullable {
					return mismatch(text, t)
				}
				dst.SetZero()
				return nil
			}
			dst.SetZero()
			return explain(c.Unmarshal(text, dst.Addr().Interface()), text, t)
		},
	}
}

func marshal(dst []byte, c Codec, v any) ([]byte, error) {
	text, err := c.Marshal(v)
	if err != nil {
		return nil, err
	}
	return append(dst, text...), nil
}

// explain says got and want of a value that the codec did not read.
func explain(err error, text []byte, t reflect.Type) error {
	if err == nil {
		return nil
	}
	if te, ok := errors.AsType[*json.UnmarshalTypeError](err); ok && te.Type == t {
		return mismatch(text, t)
	}
	return fmt.Errorf("want %s: %w", t, err)
}

// What pyjson.Kind says of the values that are read here.
const (
	isNull   = "null"
	isBool   = "a boolean"
	isNumber = "a number"
	isString = "a string"
	isArray  = "an array"
)

// kind names the kind of value that text is.
func kind(text []byte) string { return pyjson.Kind(text[0]) }

func mismatch(text []byte, t reflect.Type) error {
	return fmt.Errorf("got %s, want %s", kind(text), t)
}

func overflow(text []byte, t reflect.Type) error {
	return fmt.Errorf("got %s, which overflows %s", clip(text), t)
}

// clip is text short enough for a log line.
func clip(text []byte) string {
	const most = 40
	if len(text) > most {
		return string(text[:most]) + "..."
	}
	return string(text)
}
