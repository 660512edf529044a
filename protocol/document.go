package protocol

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"

	"github.com/lovage-go/lovage/internal/pyjson"
)

// Limits on what the package parses. Text over them is an error, so that a
// hostile message costs no more than its own length.
const (
	MaxHeaderBytes = 1 << 20 // the headers of one message: 1 MiB
	MaxBodyBytes   = 1 << 30 // a decompressed body or a stored result: 1 GiB; task_max_message_size comes first
	MaxDepth       = 64      // arrays and objects inside one another
	MaxItems       = 1 << 20 // values in one text
)

// A document is a [pyjson.Scanner] over one text, with the package's limits,
// and the readers of typed values that headers, bodies and results share.
type document struct {
	pyjson.Scanner
	what string // "header", "body", "signature", "result": begins every error
	text string // the same bytes as a string, if set; strings are cut from it
}

func open(what string, raw []byte, limit int) (document, error) {
	d := document{what: what}
	d.Data, d.LimitDepth, d.LimitItems = raw, MaxDepth, MaxItems
	if len(raw) > limit {
		return d, fmt.Errorf("%s: got %d bytes, at most %d are read", what, len(raw), limit)
	}
	if err := d.ValidUTF8(); err != nil {
		return d, fmt.Errorf("%s: %w", what, err)
	}
	return d, nil
}

// wrong is the error for a known key with a value of another type.
func (d *document) wrong(key, want string) error {
	got := pyjson.Kind(d.Peek())
	if c := d.Peek(); c == 't' || c == 'f' || isNumber(c) {
		at := d.Pos
		if raw, err := d.Raw(); err == nil && len(raw) <= 32 {
			got += " (" + string(raw) + ")"
		}
		d.Pos = at
	}
	return &TypeError{What: d.what, Key: key, Got: got, Want: want}
}

// TypeError is a known key with a value of a type that it cannot have.
type TypeError struct{ What, Key, Got, Want string }

func (e *TypeError) Error() string {
	return fmt.Sprintf("%s %q: got %s, want %s", e.What, e.Key, e.Got, e.Want)
}

// null consumes a null, if that is what comes.
func (d *document) null() (bool, error) {
	if d.Peek() != 'n' {
		return false, nil
	}
	return true, d.Skip()
}

// str reads a string or null into dst.
func (d *document) str(key string, dst *string) error {
	*dst = ""
	if ok, err := d.null(); ok {
		return err
	}
	if d.Peek() != '"' {
		return d.wrong(key, "a string or null")
	}
	start, end, plain, err := d.String()
	switch {
	case err != nil:
	case !plain:
		*dst = pyjson.Unquote(d.Data[start:end])
	case d.text != "":
		*dst = d.text[start:end]
	default:
		*dst = string(d.Data[start:end])
	}
	return err
}

// whole reads an integer or null; null is 0 and reports false.
func (d *document) whole(key string, dst *int) (bool, error) {
	*dst = 0
	if ok, err := d.null(); ok {
		return false, err
	}
	if !isNumber(d.Peek()) {
		return false, d.wrong(key, "a number")
	}
	at := d.Pos
	raw, err := d.Raw()
	if err != nil {
		return false, err
	}
	if len(raw) == 1 { // the usual case
		*dst = int(raw[0] - '0')
		return true, nil
	}
	n, err := strconv.Atoi(string(raw))
	if err != nil {
		d.Pos = at
		return false, d.wrong(key, "a whole number")
	}
	*dst = n
	return true, nil
}

// float reads a finite number or null.
func (d *document) float(key string) (*float64, error) {
	if ok, err := d.null(); ok {
		return nil, err
	}
	if !isNumber(d.Peek()) {
		return nil, d.wrong(key, "a number or null")
	}
	at := d.Pos
	raw, err := d.Raw()
	if err != nil {
		return nil, err
	}
	f, err := strconv.ParseFloat(string(raw), 64)
	if err != nil || f-f != 0 { // NaN and Infinity
		d.Pos = at
		return nil, d.wrong(key, "a finite number or null")
	}
	return &f, nil
}

func (d *document) boolean(key string, dst *bool) error {
	*dst = false
	switch d.Peek() {
	case 't':
		*dst = true
	case 'f', 'n':
	default:
		return d.wrong(key, "true or false")
	}
	return d.Skip()
}

// strings reads a list of strings; null is nil and [] is empty, not nil.
func (d *document) strings(key string, dst *[]string) error {
	*dst = nil
	if ok, err := d.null(); ok {
		return err
	}
	if d.Peek() != '[' {
		return d.wrong(key, "a list of strings or null")
	}
	more, err := d.Enter('[')
	*dst = []string{}
	for more && err == nil {
		var s string
		if d.Peek() != '"' {
			return d.wrong(key, "a list of strings")
		}
		if err = d.str(key, &s); err == nil {
			*dst = append(*dst, s)
			more, err = d.More('[')
		}
	}
	return err
}

// object reads an object of raw values, which are copies; null and {} are nil.
func (d *document) object(key string, dst *map[string]json.RawMessage) error {
	*dst = nil
	if ok, err := d.null(); ok {
		return err
	}
	if d.Peek() != '{' {
		return d.wrong(key, "an object or null")
	}
	more, err := d.Enter('{')
	for more && err == nil {
		var k, raw []byte
		if k, err = d.Key(); err != nil {
			break
		}
		if raw, err = d.Raw(); err != nil {
			break
		}
		put(dst, string(k), raw)
		more, err = d.More('{')
	}
	return err
}

// list reads the text of an array; null is nil.
func (d *document) list(key string, open byte) (json.RawMessage, error) {
	if ok, err := d.null(); ok {
		return nil, err
	}
	if d.Peek() != open {
		return nil, d.wrong(key, pyjson.Kind(open)+" or null")
	}
	return d.Raw()
}

// at adds where the trouble is to errors that do not say so.
func (d *document) at(err error) error {
	if err == nil {
		return nil
	}
	if _, ok := errors.AsType[*TypeError](err); ok {
		return err
	}
	return fmt.Errorf("%s: %w", d.what, err)
}

func put(m *map[string]json.RawMessage, key string, raw []byte) {
	if *m == nil {
		*m = make(map[string]json.RawMessage, 4)
	}
	(*m)[key] = slices.Clone(raw)
}

func isNumber(c byte) bool { return pyjson.Kind(c) == "a number" }

// Writers.

func appendNullable(b []byte, s string) []byte {
	if s == "" {
		return append(b, "null"...)
	}
	return pyjson.AppendString(b, s)
}

func appendRaw(b []byte, raw json.RawMessage, empty string) []byte {
	if len(raw) == 0 {
		return append(b, empty...)
	}
	return pyjson.AppendASCII(b, raw)
}

func appendStrings(b []byte, list []string) []byte {
	if list == nil {
		return append(b, "null"...)
	}
	b = append(b, '[')
	for i, s := range list {
		if i > 0 {
			b = append(b, ", "...)
		}
		b = pyjson.AppendString(b, s)
	}
	return append(b, ']')
}

func appendFloat(b []byte, f *float64) []byte {
	if f == nil || *f-*f != 0 { // a limit that is not finite is none
		return append(b, "null"...)
	}
	if *f == float64(int64(*f)) {
		return strconv.AppendInt(b, int64(*f), 10)
	}
	return strconv.AppendFloat(b, *f, 'g', -1, 64)
}

func appendMap(b []byte, m map[string]json.RawMessage) []byte {
	b = append(b, '{')
	b = appendMembers(b, m)
	return append(b, '}')
}

// appendMembers appends the pairs in key order, each after a comma but for one
// that opens an object.
func appendMembers(b []byte, m map[string]json.RawMessage) []byte {
	if len(m) == 0 {
		return b
	}
	for _, k := range slices.Sorted(maps.Keys(m)) {
		if b[len(b)-1] != '{' {
			b = append(b, ", "...)
		}
		b = pyjson.AppendString(b, k)
		b = append(b, ": "...)
		b = appendRaw(b, m[k], "null")
	}
	return b
}
