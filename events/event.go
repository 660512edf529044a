package events

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"time"

	"github.com/lovage-go/lovage/internal/pyjson"
)

// Event is one monitoring event. The named fields are those that Celery's
// dispatcher adds to every event; all others are in Fields.
//
// An event that was parsed has numbers in Fields as [json.Number], their text as
// sent, but NaN and the infinities, which Python may write, as float64.
type Event struct {
	Type      string
	Hostname  string
	PID       int
	UTCOffset int     // the sender's zone in whole hours west of UTC
	Clock     int64   // the sender's [Clock]; 0 if it sent none
	Timestamp float64 // seconds since 1970 UTC, on the sender's wall clock
	UUID      string  // the task, for task events; else empty
	Fields    map[string]any

	// LocalReceived is when a [Receiver] got the event; it is not sent.
	LocalReceived time.Time
}

// Time is the Timestamp as a time, to the microsecond.
func (e *Event) Time() time.Time {
	if math.IsNaN(e.Timestamp) || math.Abs(e.Timestamp) > 1<<40 {
		return time.Time{}
	}
	return time.UnixMicro(int64(math.Round(e.Timestamp * 1e6))).UTC()
}

// Text returns a text field, or "" if it is absent or no text.
func (e *Event) Text(field string) string {
	s, _ := e.Fields[field].(string)
	return s
}

// AppendJSON appends the event as Celery sends it. Fields may hold what JSON
// has, or anything that [json.Marshal] takes; a field named like one of the
// struct's is an error.
func (e *Event) AppendJSON(b []byte) ([]byte, error) {
	if e.Type == "" {
		return b, errors.New("event has no type: give it one like task-progress")
	}
	n := len(b)
	b = append(b, `{"hostname":`...)
	b = pyjson.AppendString(b, e.Hostname)
	b = fmt.Appendf(b, `,"utcoffset":%d,"pid":%d,"clock":%d`, e.UTCOffset, e.PID, e.Clock)
	if e.UUID != "" {
		b = pyjson.AppendString(append(b, `,"uuid":`...), e.UUID)
	}
	for _, k := range sortedKeys(e.Fields) {
		if reserved(k) && (k != "uuid" || e.UUID != "") {
			return b[:n], fmt.Errorf("event %s: field %q is set by the dispatcher: choose another name", e.Type, k)
		}
		b = append(pyjson.AppendString(append(b, ','), k), ':')
		var err error
		if b, err = appendValue(b, e.Fields[k], 0); err != nil {
			return b[:n], fmt.Errorf("event %s: field %q: %w", e.Type, k, err)
		}
	}
	b = appendFloat(append(b, `,"timestamp":`...), e.Timestamp)
	b = pyjson.AppendString(append(b, `,"type":`...), e.Type)
	return append(b, '}'), nil
}

func reserved(key string) bool {
	switch key {
	case "type", "hostname", "pid", "utcoffset", "clock", "timestamp", "uuid":
		return true
	}
	return false
}

// Parse reads the body of an event message: one object, or an array of them.
// Events that are whole are returned even if others of the batch are not; the
// error then tells which and why. An event is whole if it is an object with a
// type; a common field of the wrong kind counts as absent.
func Parse(body []byte) ([]Event, error) {
	body = bytes.TrimSpace(body)
	v, err := decodeJSON(body)
	if err != nil {
		return nil, fmt.Errorf("event body is no JSON: %w", err)
	}
	items, batch := v.([]any)
	if !batch {
		e, err := fromValue(v)
		if err != nil {
			return nil, err
		}
		return []Event{e}, nil
	}
	var bad error
	list := make([]Event, 0, len(items))
	for i, item := range items {
		e, err := fromValue(item)
		if err == nil {
			list = append(list, e)
		} else if bad == nil {
			bad = fmt.Errorf("event %d of a batch of %d: %w", i, len(items), err)
		}
	}
	return list, bad
}

func fromValue(v any) (Event, error) {
	m, ok := v.(map[string]any)
	if !ok {
		return Event{}, fmt.Errorf("event is %s, not an object", kind(v))
	}
	e := Event{}
	if e.Type, _ = m["type"].(string); e.Type == "" {
		return Event{}, errors.New("event has no type")
	}
	e.Hostname, _ = m["hostname"].(string)
	e.UUID, _ = m["uuid"].(string)
	e.PID = int(integer(m["pid"]))
	e.UTCOffset = int(integer(m["utcoffset"]))
	e.Clock = integer(m["clock"])
	if n, ok := m["timestamp"].(json.Number); ok {
		if f, err := n.Float64(); err == nil {
			e.Timestamp = f
		}
	}
	for _, k := range [...]string{"type", "hostname", "pid", "utcoffset", "clock", "timestamp", "uuid"} {
		delete(m, k)
	}
	e.Fields = m
	return e, nil
}

func integer(v any) int64 {
	n, _ := v.(json.Number)
	i, err := n.Int64()
	if err != nil {
		return 0
	}
	return i
}

func kind(v any) string {
	switch v.(type) {
	case nil:
		return "null"
	case string:
		return "a string"
	case bool:
		return "a boolean"
	case json.Number, float64:
		return "a number"
	case []any:
		return "an array"
	}
	return fmt.Sprintf("%T", v)
}
