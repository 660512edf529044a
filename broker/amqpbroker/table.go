package amqpbroker

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/lovage-go/lovage/internal/pyjson"
	"github.com/lovage-go/lovage/protocol"
	amqp "github.com/rabbitmq/amqp091-go"
)

// celeryHeaders are the headers of a task in Celery's order.
var celeryHeaders = []string{"lang", "task", "id", "shadow", "eta", "expires", "group", "group_index", "retries", "timelimit",
	"root_id", "parent_id", "argsrepr", "kwargsrepr", "origin", "ignore_result", "replaced_task_nesting", "stamped_headers", "stamps", "compression"}

// table writes headers with the types that Python's client would give them.
func table(h *protocol.Headers) (amqp.Table, error) {
	size := len(h.Extra)
	if h.Task != "" {
		size += len(celeryHeaders)
	}
	t := make(amqp.Table, size)
	if h.Task != "" {
		t["lang"], t["task"], t["id"] = orNull(h.Lang), h.Task, orNull(h.ID)
		t["shadow"], t["eta"], t["expires"], t["group"] = orNull(h.Shadow), orNull(h.ETA), orNull(h.Expires), orNull(h.Group)
		t["group_index"] = nil
		if h.GroupIndex != nil {
			t["group_index"] = whole(int64(*h.GroupIndex))
		}
		t["retries"] = whole(int64(h.Retries))
		t["timelimit"] = []any{limit(h.TimeLimit.Hard), limit(h.TimeLimit.Soft)}
		t["root_id"], t["parent_id"], t["argsrepr"], t["kwargsrepr"] = orNull(h.RootID), orNull(h.ParentID), orNull(h.ArgsRepr), orNull(h.KwargsRepr)
		t["origin"], t["ignore_result"] = orNull(h.Origin), h.IgnoreResult
		t["replaced_task_nesting"] = whole(int64(h.ReplacedTaskNesting))
		t["stamped_headers"] = nil
		if h.StampedHeaders != nil {
			list := make([]any, len(h.StampedHeaders))
			for i, s := range h.StampedHeaders {
				list[i] = s
			}
			t["stamped_headers"] = list
		}
		stamps, err := members(h.Stamps)
		if err != nil {
			return nil, err
		}
		t["stamps"] = stamps
	}
	if h.Compression != "" {
		t["compression"] = h.Compression
	}
	for k, raw := range h.Extra {
		v, err := fromJSON(k, raw)
		if err != nil {
			return nil, err
		}
		t[k] = v
	}
	return t, nil
}

func members(m map[string]json.RawMessage) (amqp.Table, error) {
	t := make(amqp.Table, len(m))
	for k, raw := range m {
		v, err := fromJSON(k, raw)
		if err != nil {
			return nil, err
		}
		t[k] = v
	}
	return t, nil
}

func orNull(s string) any {
	if s == "" {
		return nil
	}
	return s
}

// whole is a number as Python's client types it: 32 bits if they do.
func whole(n int64) any {
	if n == int64(int32(n)) {
		return int32(n)
	}
	return n
}

// limit is a time limit, whole where it is.
func limit(f *float64) any {
	switch {
	case f == nil:
		return nil
	case *f == math.Trunc(*f) && math.Abs(*f) < 1<<31:
		return int32(*f)
	}
	return *f
}

func fromJSON(key string, raw json.RawMessage) (any, error) {
	d := json.NewDecoder(strings.NewReader(string(raw)))
	d.UseNumber()
	var v any
	if err := d.Decode(&v); err != nil {
		return nil, fmt.Errorf("header %q: %w", key, err)
	}
	v, err := fieldOf(v)
	if err != nil {
		return nil, fmt.Errorf("header %q: %w", key, err)
	}
	return v, nil
}

// fieldOf turns a decoded value into one of a table.
func fieldOf(v any) (any, error) {
	switch v := v.(type) {
	case json.Number:
		if n, err := v.Int64(); err == nil {
			return whole(n), nil
		}
		f, err := v.Float64()
		if err != nil || !strings.ContainsAny(v.String(), ".eE") {
			return nil, fmt.Errorf("the number %s does not fit into a message header of AMQP: send it as a text", v)
		}
		return f, nil
	case []any:
		for i, x := range v {
			var err error
			if v[i], err = fieldOf(x); err != nil {
				return nil, err
			}
		}
		return v, nil
	case map[string]any:
		t := make(amqp.Table, len(v))
		for k, x := range v {
			f, err := fieldOf(x)
			if err != nil {
				return nil, err
			}
			t[k] = f
		}
		return t, nil
	}
	return v, nil
}

// appendTable writes headers as JSON: Celery's in their order, then the others by
// name, without those of the driver and of RabbitMQ's own work.
func appendTable(b []byte, t amqp.Table) []byte {
	b = append(b, '{')
	first, known := true, 0
	member := func(k string, v any) {
		if !first {
			b = append(b, ", "...)
		}
		first = false
		b = append(pyjson.AppendString(b, k), ": "...)
		b = appendField(b, v)
	}
	for _, k := range celeryHeaders {
		if v, ok := t[k]; ok {
			known++
			member(k, v)
		}
	}
	if known < len(t) {
		for _, k := range slices.Sorted(maps.Keys(t)) {
			if !slices.Contains(celeryHeaders, k) && !ownHeader(k) {
				member(k, t[k])
			}
		}
	}
	return append(b, '}')
}

func appendField(b []byte, v any) []byte {
	switch v := v.(type) {
	case nil:
		return append(b, "null"...)
	case bool:
		return strconv.AppendBool(b, v)
	case string:
		return pyjson.AppendString(b, strings.ToValidUTF8(v, "\uFFFD"))
	case int8:
		return strconv.AppendInt(b, int64(v), 10)
	case int16:
		return strconv.AppendInt(b, int64(v), 10)
	case int32:
		return strconv.AppendInt(b, int64(v), 10)
	case int64:
		return strconv.AppendInt(b, v, 10)
	case byte:
		return strconv.AppendInt(b, int64(v), 10)
	case uint16:
		return strconv.AppendInt(b, int64(v), 10)
	case uint32:
		return strconv.AppendInt(b, int64(v), 10)
	case float32:
		return pyjson.AppendFloat(b, float64(v), 32)
	case float64:
		return pyjson.AppendFloat(b, v, 64)
	case amqp.Decimal:
		return strconv.AppendFloat(b, float64(v.Value)/math.Pow10(int(v.Scale)), 'f', int(v.Scale), 64)
	case time.Time:
		return pyjson.AppendString(b, v.UTC().Format(time.RFC3339))
	case []byte:
		return pyjson.AppendString(b, base64.StdEncoding.EncodeToString(v))
	case []any:
		b = append(b, '[')
		for i, x := range v {
			if i > 0 {
				b = append(b, ", "...)
			}
			b = appendField(b, x)
		}
		return append(b, ']')
	case amqp.Table:
		b = append(b, '{')
		for i, k := range slices.Sorted(maps.Keys(v)) {
			if i > 0 {
				b = append(b, ", "...)
			}
			b = append(pyjson.AppendString(b, k), ": "...)
			b = appendField(b, v[k])
		}
		return append(b, '}')
	}
	return append(b, "null"...)
}

// Headers that are not the sender's.
const (
	ownMarks      = "x-lovage"         // what the message has been through
	deliveryCount = "x-delivery-count" // quorum queues
)

// ownHeader: what the driver or RabbitMQ put there, and the receiver does not see.
func ownHeader(key string) bool { return key == ownMarks || key == deliveryCount }
