// Package saferepr writes arguments the way Celery's saferepr does: Python
// notation, three levels deep, cut at a number of characters. It works straight
// on JSON text, since it runs once per message sent.
package saferepr

import (
	"encoding/json"
	"fmt"
	"strconv"
	"time"
	"unicode/utf8"

	"github.com/google/uuid"

	"github.com/lovage-go/lovage/internal/pyjson"
	"github.com/lovage-go/lovage/serializer"
)

const (
	// Max is Celery's argsrepr_maxsize: the characters before the cut.
	Max       = 1024
	maxLevels = 3
)

// AppendArgs appends a JSON array as a Python tuple: (1, 'a', None). A max of 0
// or less means [Max]. What is no JSON becomes <not JSON>.
func AppendArgs(dst []byte, args json.RawMessage, max int) []byte {
	if len(args) == 0 {
		return append(dst, "()"...)
	}
	return run(dst, args, max, func(w *writer) {
		if w.Peek() == '[' {
			w.list(true)
		} else {
			w.value()
		}
	})
}

// AppendKwargs appends a JSON object as a Python dict: {'a': 1}.
func AppendKwargs(dst []byte, kwargs json.RawMessage, max int) []byte {
	if len(kwargs) == 0 || string(kwargs) == "{}" {
		return append(dst, "{}"...)
	}
	return Append(dst, kwargs, max)
}

// Append appends any JSON value in Python notation.
func Append(dst []byte, raw json.RawMessage, max int) []byte {
	return run(dst, raw, max, (*writer).value)
}

// Repr is the notation of a Go value by way of its JSON. A value that has none
// is written as Go's %v.
func Repr(v any, max int) string {
	raw, err := serializer.JSON.Marshal(v)
	if err != nil {
		raw, err = serializer.JSON.Marshal(fmt.Sprintf("%v", v))
	}
	if err != nil {
		return "<not JSON>"
	}
	return string(Append(nil, raw, max))
}

func run(dst, raw []byte, max int, do func(*writer)) []byte {
	if max <= 0 {
		max = Max
	}
	w := writer{dst: dst, left: max}
	w.Data = raw
	do(&w)
	if w.err != nil {
		return append(dst, "<not JSON>"...)
	}
	return w.dst
}

// A writer emits Celery's tokens. Once the text is full, the token at hand is
// replaced by ", ..." and only the ends of what is still open follow. If that
// token is itself an end it is lost, as it is in Celery.
type writer struct {
	pyjson.Scanner
	dst   []byte
	left  int // characters
	level int
	full  bool
	err   error
}

// room reports whether a further token fits.
func (w *writer) room() bool {
	if w.left <= 0 && !w.full {
		w.dst = append(w.dst, ", ..."...)
		w.full = true
	}
	return !w.full
}

func (w *writer) literal(s string) bool {
	if !w.room() {
		return false
	}
	w.dst = append(w.dst, s...)
	w.left -= len(s)
	return true
}

// text emits a number, a word or a call, which may be cut.
func (w *writer) text(s string) {
	if !w.room() {
		return
	}
	start := len(w.dst)
	w.dst = appendCut(w.dst, s, w.left)
	w.left -= utf8.RuneCount(w.dst[start:])
}

// quoted emits a string; only ' is escaped, as in Celery.
func (w *writer) quoted(prefix, s string) {
	if !w.room() {
		return
	}
	start := len(w.dst)
	w.dst = append(append(w.dst, prefix...), '\'')
	begin := len(w.dst)
	w.dst = appendCut(w.dst, s, w.left)
	for i := begin; i < len(w.dst); i++ {
		if w.dst[i] == '\'' {
			w.dst = append(w.dst, 0)
			copy(w.dst[i+1:], w.dst[i:])
			w.dst[i] = '\\'
			i++
		}
	}
	w.dst = append(w.dst, '\'')
	w.left -= utf8.RuneCount(w.dst[start:])
}

// appendCut is Celery's truncate: a text of max characters or more is cut there
// and then at its last space.
func appendCut(dst []byte, s string, max int) []byte {
	if len(s) < max {
		return append(dst, s...)
	}
	n := 0
	for i := range s {
		if n == max {
			s = s[:i]
			break
		}
		n++
	}
	if n < max && utf8.RuneCountInString(s) < max {
		return append(dst, s...)
	}
	for i := len(s) - 1; i >= 0; i-- {
		if s[i] == ' ' {
			s = s[:i]
			break
		}
	}
	return append(append(dst, s...), "..."...)
}

func (w *writer) value() {
	switch w.Peek() {
	case '[':
		w.list(false)
	case '{':
		if !w.tagged() {
			w.dict()
		}
	case '"':
		if s, ok := w.str(); ok {
			w.quoted("", s)
		}
	default:
		raw, err := w.Raw()
		if err != nil {
			w.err = err
			return
		}
		w.scalar(raw)
	}
}

func (w *writer) str() (string, bool) {
	from, to, _, err := w.String()
	if err != nil {
		w.err = err
		return "", false
	}
	return pyjson.Unquote(w.Data[from:to]), true
}

func (w *writer) scalar(raw []byte) {
	switch string(raw) {
	case "null":
		w.text("None")
	case "true":
		w.text("True")
	case "false":
		w.text("False")
	case "NaN":
		w.text("nan")
	case "Infinity":
		w.text("inf")
	case "-Infinity":
		w.text("-inf")
	default:
		for _, c := range raw {
			if c == '.' || c == 'e' || c == 'E' {
				w.float(raw)
				return
			}
		}
		if len(raw) < w.left { // an integer that needs no cut
			w.dst = append(w.dst, raw...)
			w.left -= len(raw)
			return
		}
		w.text(string(raw))
	}
}

func (w *writer) float(raw []byte) {
	f, err := strconv.ParseFloat(string(raw), 64)
	switch {
	case err == nil:
		var buf [32]byte
		w.text(string(pyjson.AppendFloat(buf[:0], f, 64)))
	case raw[0] == '-': // out of range, as Python reads it
		w.text("-inf")
	default:
		w.text("inf")
	}
}

func (w *writer) list(tuple bool) {
	if w.tooDeep("[...]") {
		return
	}
	open, end := "[", "]"
	if tuple {
		open, end = "(", ")"
	}
	begin, n := w.Pos, 0
	more, err := w.Enter('[')
	if w.literal(open) {
		w.level++
		for more && err == nil {
			if w.value(); w.full || w.err != nil {
				break
			}
			n++
			if more, err = w.More('['); more && !w.literal(", ") {
				break
			}
		}
		w.level--
	}
	if err != nil {
		w.err = err
	}
	if w.err != nil {
		return
	}
	if tuple && (n == 1 && !more || w.full && isSingle(w.Data[begin:])) {
		end = ",)"
	}
	w.end(end)
}

// end closes a container: always, if the text got full inside it.
func (w *writer) end(s string) {
	if w.full {
		w.dst = append(w.dst, s...)
		return
	}
	w.literal(s)
}

// isSingle reports whether raw begins with an array of one element.
func isSingle(raw []byte) bool {
	s := pyjson.Scanner{Data: raw}
	if more, err := s.Enter('['); !more || err != nil || s.Skip() != nil {
		return false
	}
	more, err := s.More('[')
	return !more && err == nil
}

func (w *writer) dict() {
	if w.tooDeep("{...}") {
		return
	}
	more, err := w.Enter('{')
	if w.literal("{") {
		w.level++
		for more && err == nil {
			var key []byte
			if key, err = w.Key(); err != nil {
				break
			}
			if w.quoted("", string(key)); !w.literal(": ") {
				break
			}
			if w.value(); w.full || w.err != nil {
				break
			}
			if more, err = w.More('{'); more && !w.literal(", ") {
				break
			}
		}
		w.level--
	}
	if err != nil {
		w.err = err
	}
	if w.err == nil {
		w.end("}")
	}
}

// tooDeep emits what stands for a container under three others.
func (w *writer) tooDeep(short string) bool {
	if w.level < maxLevels {
		return false
	}
	if w.err = w.Skip(); w.err == nil {
		w.text(short)
	}
	return true
}

// tagged emits kombu's typed values as Python's constructors.
func (w *writer) tagged() bool {
	probe := w.Scanner
	if more, err := probe.Enter('{'); !more || err != nil {
		return false
	}
	if key, err := probe.Key(); err != nil || string(key) != "__type__" {
		return false
	}
	probe = w.Scanner
	raw, err := probe.Raw()
	if err != nil {
		return false
	}
	var v any
	if err := serializer.JSON.Unmarshal(raw, &v); err != nil {
		return false
	}
	switch v := v.(type) {
	case time.Time:
		w.text(datetime(v, string(raw)))
	case serializer.Date:
		w.text(fmt.Sprintf("datetime.date(%d, %d, %d)", v.Year, int(v.Month), v.Day))
	case serializer.Time:
		w.text("datetime.time(" + clock(v.Hour, v.Minute, v.Second, v.Nanosecond) + zone(v.Zone) + ")")
	case serializer.Decimal:
		w.text("Decimal('" + string(v) + "')")
	case uuid.UUID:
		w.text("UUID('" + v.String() + "')")
	case []byte:
		w.bytes(v)
	default:
		return false
	}
	w.Scanner = probe
	return true
}

func (w *writer) bytes(b []byte) {
	if !w.room() {
		return
	}
	tail := "'"
	if len(b) > w.left {
		b, tail = b[:w.left], "...'"
	}
	start := len(w.dst)
	w.dst = append(w.dst, "b'"...)
	if utf8.Valid(b) {
		w.dst = append(w.dst, b...)
	} else {
		w.dst = fmt.Appendf(w.dst, "%x", b)
	}
	w.dst = append(w.dst, tail...)
	w.left -= utf8.RuneCount(w.dst[start:])
}
