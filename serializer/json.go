package serializer

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"sync"

	"github.com/lovage-go/lovage/internal/pyjson"
)

// JSON is Celery's serializer json, under the default [Limits]. Its values are
// encoding/json's, by the same struct tags, but for these, at any depth:
//
//   - time.Time, [Date], [Time], [Decimal], uuid.UUID and []byte are kombu's
//     tagged objects; plain strings are read too (for []byte: as UTF-8 text);
//   - floats keep their point (1.0), and may be NaN and infinite;
//   - what is decoded into any is nil, bool, string, [Number], []any,
//     map[string]any or one of the types above;
//   - the output is ASCII and HTML is not escaped.
//
// A type with its own MarshalJSON or UnmarshalJSON rules its own text.
var JSON Serializer = NewJSON(Limits{})

// NewJSON returns a JSON serializer that reads within the given limits.
func NewJSON(limits Limits) Serializer { return &jsonCodec{limits: limits} }

type jsonCodec struct {
	limits Limits
	types  sync.Map // typeKey -> *typeInfo; as many as the program has types
}

func (*jsonCodec) Name() string        { return "json" }
func (*jsonCodec) ContentType() string { return contentJSON }
func (*jsonCodec) Encoding() string    { return "utf-8" }

// Marshal encodes v.
func (c *jsonCodec) Marshal(v any) ([]byte, error) {
	b, err := c.append(make([]byte, 0, 64), reflect.ValueOf(v), 0)
	if err != nil {
		return nil, fmt.Errorf("encode JSON: %w", err)
	}
	return b, nil
}

// Unmarshal decodes data into v, a pointer that is not nil.
func (c *jsonCodec) Unmarshal(data []byte, v any) error {
	dst := reflect.ValueOf(v)
	if dst.Kind() != reflect.Pointer || dst.IsNil() {
		return fmt.Errorf("decode JSON: got a %T, want a pointer that is not nil", v)
	}
	if err := c.limits.CheckJSON(data); err != nil {
		return fmt.Errorf("decode JSON: %w", err)
	}
	d := decoder{codec: c}
	d.Data = data
	if err := d.value(dst.Elem()); err != nil {
		return fmt.Errorf("decode JSON: %w", err)
	}
	return nil
}

// appendPlain encodes by encoding/json, with ASCII and no HTML escapes.
func appendPlain(dst []byte, v reflect.Value) ([]byte, error) {
	if v.CanAddr() && v.Kind() != reflect.Pointer {
		v = v.Addr() // for methods with a pointer receiver
	}
	var buf bytes.Buffer
	enc := json.NewEncoder(&buf)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v.Interface()); err != nil {
		return nil, err
	}
	return pyjson.AppendASCII(dst, bytes.TrimRight(buf.Bytes(), "\n")), nil
}

// decodePlain decodes by encoding/json. Raw is known to be JSON as Python
// writes it, so a syntax error can only be one of its three bare words.
func decodePlain(raw []byte, dst reflect.Value) error {
	err := json.Unmarshal(raw, dst.Addr().Interface())
	if _, ok := errors.AsType[*json.SyntaxError](err); ok {
		return fmt.Errorf("NaN and Infinity fit only a float or any, not %s", dst.Type())
	}
	return err
}
