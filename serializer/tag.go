package serializer

import (
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"time"
	"unicode/utf8"

	"github.com/google/uuid"

	"github.com/lovage-go/lovage/internal/isotime"
	"github.com/lovage-go/lovage/internal/pyjson"
)

func appendTagged(dst []byte, kind, value string) []byte {
	dst = append(append(append(dst, `{"__type__": "`...), kind...), `", "__value__": `...)
	return append(pyjson.AppendString(dst, value), '}')
}

func appendTime(dst []byte, t time.Time) ([]byte, error) {
	if y := t.Year(); y < 1 || y > 9999 {
		return nil, fmt.Errorf("time in the year %d: Python's datetime has the years 1 to 9999", y)
	}
	return appendTagged(dst, "datetime", isotime.Format(t)), nil
}

func appendUUID(dst []byte, id uuid.UUID) []byte {
	dst = append(dst, `{"__type__": "uuid", "__value__": {"hex": "`...)
	dst = hex.AppendEncode(dst, id[:])
	return append(dst, `"}}`...)
}

// appendBytes writes bytes as kombu does: as text where they are UTF-8.
func appendBytes(dst, b []byte) []byte {
	if utf8.Valid(b) {
		return appendTagged(dst, "bytes", string(b))
	}
	return appendTagged(dst, "base64", base64.StdEncoding.EncodeToString(b))
}

// A tagged value is what stands in {"__type__": kind, "__value__": value}.
type tagged struct {
	kind  string
	value []byte // raw JSON
}

// readTag reads raw as a tagged value: an object of just these two keys.
func readTag(raw []byte) (t tagged, ok bool) {
	s := pyjson.Scanner{Data: raw}
	if s.Peek() != '{' {
		return t, false
	}
	more, err := s.Enter('{')
	for more && err == nil {
		var key, value []byte
		if key, err = s.Key(); err != nil {
			return t, false
		}
		if value, err = s.Raw(); err != nil {
			return t, false
		}
		switch string(key) { // of a key that comes twice the last counts
		case "__type__":
			t.kind = ""
			if value[0] == '"' {
				t.kind = pyjson.Unquote(value[1 : len(value)-1])
			}
		case "__value__":
			t.value = value
		default:
			return t, false
		}
		more, err = s.More('{')
	}
	return t, err == nil && t.kind != "" && t.value != nil
}

// textOf gives the text of a plain string, or of a tagged value of one of kinds.
func textOf(raw []byte, kinds ...string) (string, error) {
	if t, ok := readTag(raw); ok {
		if !slices.Contains(kinds, t.kind) {
			return "", fmt.Errorf("got a value tagged %q, want %s", t.kind, kinds[0])
		}
		raw = t.value
	}
	s := pyjson.Scanner{Data: raw}
	if c := s.Peek(); c != '"' {
		return "", fmt.Errorf("got %s, want %s", pyjson.Kind(c), kinds[0])
	}
	from, to, _, err := s.String()
	if err == nil {
		err = s.End()
	}
	if err != nil {
		return "", err
	}
	return pyjson.Unquote(raw[from:to]), nil
}

// unmarshalText reads a string, plain or tagged, with parse. Null changes nothing.
func unmarshalText[T any](raw []byte, dst *T, parse func(string) (T, error), kinds ...string) error {
	if string(raw) == "null" {
		return nil
	}
	s, err := textOf(raw, kinds...)
	if err != nil {
		return err
	}
	v, err := parse(s)
	if err == nil {
		*dst = v
	}
	return err
}

func parseTime(s string) (time.Time, error) { return isotime.Parse(s, time.UTC) }

// readUUID reads {"hex": ...} under its tag or alone, or a plain string.
func readUUID(raw []byte) (id uuid.UUID, err error) {
	if t, ok := readTag(raw); ok {
		if t.kind != "uuid" {
			return id, fmt.Errorf("got a value tagged %q, want uuid", t.kind)
		}
		raw = t.value
	}
	s := pyjson.Scanner{Data: raw}
	if s.Peek() == '{' {
		more, err := s.Enter('{')
		if err != nil || !more {
			return id, errors.New("got an empty object, want uuid")
		}
		if key, err := s.Key(); err != nil || string(key) != "hex" {
			return id, errors.New("got an object without hex, want uuid")
		}
		if raw, err = s.Raw(); err != nil {
			return id, err
		}
	}
	text, err := textOf(raw, "uuid")
	if err != nil {
		return id, err
	}
	if id, err = uuid.Parse(text); err != nil {
		return id, fmt.Errorf("uuid: want 32 hexadecimal digits: %w", err)
	}
	return id, nil
}

// readBytes reads bytes under one of their two tags. A plain string is its
// UTF-8 text: a str sent by Python where bytes are wanted.
func readBytes(raw []byte) ([]byte, error) {
	t, ok := readTag(raw)
	text, err := textOf(raw, "bytes", "base64")
	if err != nil {
		return nil, err
	}
	if !ok || t.kind == "bytes" {
		return []byte(text), nil
	}
	b, err := base64.StdEncoding.DecodeString(text)
	if err != nil {
		return nil, fmt.Errorf("bytes: %w", err)
	}
	return b, nil
}

// fromTag gives the Go value of a tagged one met as any. Unknown tags are none.
func fromTag(t tagged) (v any, ok bool, err error) {
	text := func(parse func(string) (any, error)) (any, bool, error) {
		s, err := textOf(t.value, t.kind)
		if err == nil {
			v, err = parse(s)
		}
		return v, true, err
	}
	switch t.kind {
	case "datetime":
		return text(func(s string) (any, error) { return parseTime(s) })
	case "date":
		return text(func(s string) (any, error) { return ParseDate(s) })
	case "time":
		return text(func(s string) (any, error) { return ParseTime(s) })
	case "decimal":
		return text(func(s string) (any, error) { return ParseDecimal(s) })
	case "bytes":
		return text(func(s string) (any, error) { return []byte(s), nil })
	case "base64":
		return text(func(s string) (any, error) { return base64.StdEncoding.DecodeString(s) })
	case "uuid":
		id, err := readUUID(t.value)
		return id, true, err
	}
	return nil, false, nil
}
