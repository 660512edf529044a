package redisconn

import (
	"encoding/json"
	"fmt"
	"strconv"
	"time"
)

// Options are transport options under Celery's names, from code or from a file.
type Options map[string]any

// String gives a string option, or def if it is not set.
func (o Options) String(name, def string) string {
	switch v := o[name].(type) {
	case nil:
		return def
	case string:
		return v
	default:
		return fmt.Sprint(v)
	}
}

// Bool gives a boolean option, or def if it is not set or something else.
func (o Options) Bool(name string, def bool) bool {
	if v, ok := o[name].(bool); ok {
		return v
	}
	return def
}

// Seconds gives a duration that is written as a number of seconds, or def if it
// is not set, not positive or no number.
func (o Options) Seconds(name string, def time.Duration) time.Duration {
	if d, ok := o[name].(time.Duration); ok && d > 0 {
		return d
	}
	if f, ok := number(o[name]); ok && f > 0 {
		return time.Duration(f * float64(time.Second))
	}
	return def
}

// Ints gives a list of whole numbers, or def if it is not set.
func (o Options) Ints(name string, def []int) ([]int, error) {
	var out []int
	switch v := o[name].(type) {
	case nil:
		return def, nil
	case []int:
		return v, nil
	case []any:
		for _, x := range v {
			f, ok := number(x)
			if !ok || f != float64(int(f)) {
				return nil, fmt.Errorf("transport option %s: %v is no whole number", name, x)
			}
			out = append(out, int(f))
		}
		return out, nil
	default:
		return nil, fmt.Errorf("transport option %s: want a list of whole numbers, got %T", name, v)
	}
}

func number(v any) (float64, bool) {
	switch n := v.(type) {
	case int:
		return float64(n), true
	case int64:
		return float64(n), true
	case float64:
		return n, true
	case json.Number:
		f, err := n.Float64()
		return f, err == nil
	case string:
		f, err := strconv.ParseFloat(n, 64)
		return f, err == nil
	}
	return 0, false
}
