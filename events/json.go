package events

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
	"strconv"

	"github.com/lovage-go/lovage/internal/pyjson"
)

// maxDepth bounds the nesting of a message that is read, maxFieldDepth that of a
// field that is sent, which has the event and the batch around it.
const (
	maxDepth      = 64
	maxFieldDepth = 60
)

// decodeJSON decodes one value with numbers as text. Python writes NaN and the
// infinities bare, which Go's decoder refuses; only then are they rewritten.
func decodeJSON(b []byte) (any, error) {
	if depth(b) > maxDepth {
		return nil, fmt.Errorf("nested deeper than %d", maxDepth)
	}
	v, err := decodeStrict(b)
	if err == nil {
		return v, nil
	}
	marked, found := markNonFinite(b)
	if !found {
		return nil, err
	}
	if v, err = decodeStrict(marked); err != nil {
		return nil, err
	}
	return unmark(v), nil
}

func decodeStrict(b []byte) (any, error) {
	d := json.NewDecoder(bytes.NewReader(b))
	d.UseNumber()
	var v any
	if err := d.Decode(&v); err != nil {
		return nil, err
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return nil, errors.New("more than one value")
	}
	return v, nil
}

// depth is the deepest nesting of arrays and objects in JSON text.
func depth(b []byte) int {
	deepest, now, quoted := 0, 0, false
	for i := 0; i < len(b); i++ {
		switch c := b[i]; {
		case quoted && c == '\\':
			i++
		case c == '"':
			quoted = !quoted
		case quoted:
		case c == '{' || c == '[':
			now++
			deepest = max(deepest, now)
		case c == '}' || c == ']':
			now--
		}
	}
	return deepest
}

// mark stands before a token that was rewritten as a string; a control character
// keeps it apart from text.
const mark = "\x00lovage:"

func markNonFinite(b []byte) (out []byte, found bool) {
	quoted := false
	for i := 0; i < len(b); i++ {
		c := b[i]
		if quoted || c == '"' {
			out = append(out, c)
			if quoted && c == '\\' && i+1 < len(b) {
				i++
				out = append(out, b[i])
			} else if c == '"' {
				quoted = !quoted
			}
			continue
		}
		tok := ""
		for _, t := range [...]string{"-Infinity", "Infinity", "NaN"} {
			if bytes.HasPrefix(b[i:], []byte(t)) {
				tok = t
				break
			}
		}
		if tok == "" {
			out = append(out, c)
			continue
		}
		found = true
		out = append(out, `"\u0000lovage:`...)
		out = append(append(out, tok...), '"')
		i += len(tok) - 1
	}
	return out, found
}

func unmark(v any) any {
	switch v := v.(type) {
	case string:
		if len(v) > len(mark) && v[:len(mark)] == mark {
			switch v[len(mark):] {
			case "NaN":
				return math.NaN()
			case "Infinity":
				return math.Inf(1)
			case "-Infinity":
				return math.Inf(-1)
			}
		}
	case []any:
		for i := range v {
			v[i] = unmark(v[i])
		}
	case map[string]any:
		for k := range v {
			v[k] = unmark(v[k])
		}
	}
	return v
}

func appendValue(b []byte, v any, level int) ([]byte, error) {
	if level > maxFieldDepth {
		return b, fmt.Errorf("nested deeper than %d", maxFieldDepth)
	}
	switch v := v.(type) {
	case nil:
		return append(b, "null"...), nil
	case bool:
		return strconv.AppendBool(b, v), nil
	case string:
		return pyjson.AppendString(b, v), nil
	case int:
		return strconv.AppendInt(b, int64(v), 10), nil
	case int64:
		return strconv.AppendInt(b, v, 10), nil
	case float64:
		return appendFloat(b, v), nil
	case json.Number:
		if v == "" {
			return append(b, '0'), nil
		}
	case []any:
		b = append(b, '[')
		for i, item := range v {
			if i > 0 {
				b = append(b, ',')
			}
			var err error
			if b, err = appendValue(b, item, level+1); err != nil {
				return b, err
			}
		}
		return append(b, ']'), nil
	case map[string]any:
		b = append(b, '{')
		for i, k := range sortedKeys(v) {
			if i > 0 {
				b = append(b, ',')
			}
			b = append(pyjson.AppendString(b, k), ':')
			var err error
			if b, err = appendValue(b, v[k], level+1); err != nil {
				return b, err
			}
		}
		return append(b, '}'), nil
	}
	text, err := json.Marshal(v)
	if err == nil && depth(text)+level > maxFieldDepth {
		err = fmt.Errorf("nested deeper than %d", maxFieldDepth)
	}
	return append(b, text...), err
}

// appendFloat writes what Python's repr would: 2.0 stays a float to a reader.
func appendFloat(b []byte, f float64) []byte {
	switch {
	case math.IsNaN(f):
		return append(b, "NaN"...)
	case math.IsInf(f, 1):
		return append(b, "Infinity"...)
	case math.IsInf(f, -1):
		return append(b, "-Infinity"...)
	}
	format := byte('f')
	if a := math.Abs(f); a != 0 && (a < 1e-4 || a >= 1e16) {
		format = 'e'
	}
	n := len(b)
	b = strconv.AppendFloat(b, f, format, -1, 64)
	if format == 'f' && bytes.IndexByte(b[n:], '.') < 0 {
		b = append(b, ".0"...)
	}
	return b
}

func sortedKeys(m map[string]any) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}
