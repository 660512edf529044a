package settings

import (
	"encoding/json"
	"fmt"
	"math"
	"reflect"
	"strconv"
	"strings"
	"time"
)

// None reports whether v stands for Celery's None: nil, or the text none, null
// or nil in any case.
func None(v any) bool {
	if v == nil {
		return true
	}
	s, ok := v.(string)
	if !ok {
		return false
	}
	switch strings.ToLower(strings.TrimSpace(s)) {
	case "none", "null", "nil":
		return true
	}
	return false
}

// Bool converts the words that Celery takes for booleans, and 0 and 1.
func Bool(v any) (bool, error) {
	if b, ok := v.(bool); ok {
		return b, nil
	}
	switch strings.ToLower(strings.TrimSpace(fmt.Sprint(v))) {
	case "true", "yes", "on", "1":
		return true, nil
	case "false", "no", "off", "0":
		return false, nil
	}
	return false, want("true or false", v)
}

// Int converts a whole number, also one written as text or as a float.
func Int(v any) (int, error) {
	switch n := v.(type) {
	case string:
		if i, err := strconv.Atoi(strings.ReplaceAll(strings.TrimSpace(n), "_", "")); err == nil {
			return i, nil
		}
	case json.Number:
		if i, err := strconv.Atoi(n.String()); err == nil {
			return i, nil
		}
	case bool:
		return 0, want("a whole number", v)
	}
	if f, ok := Number(v); ok && f == math.Trunc(f) && math.Abs(f) <= 1<<53 {
		return int(f), nil
	}
	return 0, want("a whole number", v)
}

// Duration converts a number of seconds, or a text such as "1h30m". What does
// not fit into a time.Duration is refused.
func Duration(v any) (time.Duration, error) {
	const form = `seconds as a number, or a duration such as "1h30m"`
	if d, ok := v.(time.Duration); ok {
		return d, nil
	}
	f, ok := Number(v)
	if s, text := v.(string); text {
		s = strings.TrimSpace(s)
		if d, err := time.ParseDuration(s); err == nil {
			return d, nil
		}
		var err error
		f, err = strconv.ParseFloat(s, 64)
		ok = err == nil
	}
	if !ok || math.IsNaN(f) || math.Abs(f) > math.MaxInt64/float64(time.Second)-1 {
		return 0, want(form, v)
	}
	// In two parts, because a float64 cannot hold all nanoseconds of some years.
	whole, part := math.Modf(f)
	return time.Duration(whole)*time.Second + time.Duration(math.Round(part*float64(time.Second))), nil
}

// String converts a text; numbers and booleans are taken as they are written.
func String(v any) (string, error) {
	switch s := v.(type) {
	case string:
		return s, nil
	case json.Number:
		return s.String(), nil
	case bool:
		return strconv.FormatBool(s), nil
	}
	if f, ok := Number(v); ok {
		return strconv.FormatFloat(f, 'f', -1, 64), nil
	}
	return "", want("a text", v)
}

// Strings converts a list of texts: a list, a JSON list, or words with commas.
func Strings(v any) ([]string, error) {
	if s, ok := v.(string); ok {
		if !strings.HasPrefix(strings.TrimSpace(s), "[") {
			out := []string{}
			for w := range strings.SplitSeq(s, ",") {
				if w = strings.TrimSpace(w); w != "" {
					out = append(out, w)
				}
			}
			return out, nil
		}
	}
	list, err := List(v)
	if err != nil {
		return nil, want("a list of texts, or words with commas between them", v)
	}
	out := make([]string, len(list))
	for i, e := range list {
		if out[i], err = String(e); err != nil {
			return nil, fmt.Errorf("item %d: %w", i+1, err)
		}
	}
	return out, nil
}

// List converts a list of anything, also one written as JSON.
func List(v any) ([]any, error) {
	if s, ok := v.(string); ok {
		var out []any
		if err := parseJSON(s, &out); err != nil {
			return nil, want("a list, as JSON", v)
		}
		return out, nil
	}
	rv := reflect.ValueOf(v)
	if rv.Kind() != reflect.Slice && rv.Kind() != reflect.Array {
		return nil, want("a list", v)
	}
	out := make([]any, rv.Len())
	for i := range out {
		out[i] = rv.Index(i).Interface()
	}
	return out, nil
}

// Map converts a map with text keys, also one written as JSON. Nested maps are
// converted too.
func Map(v any) (map[string]any, error) {
	if s, ok := v.(string); ok {
		var out map[string]any
		if err := parseJSON(s, &out); err != nil || out == nil {
			return nil, want("a map, as a JSON object", v)
		}
		return plain(out).(map[string]any), nil
	}
	if out, ok := plain(v).(map[string]any); ok {
		return out, nil
	}
	return nil, want("a map", v)
}

// plain rewrites maps of any key type to map[string]any and JSON numbers to
// int or float64, all the way down.
func plain(v any) any {
	switch n := v.(type) {
	case nil, string:
		return v
	case json.Number:
		if i, err := n.Int64(); err == nil {
			return int(i)
		}
		f, _ := n.Float64()
		return f
	case uint64:
		if n <= math.MaxInt {
			return int(n)
		}
		return v
	case int64:
		return int(n)
	}
	rv := reflect.ValueOf(v)
	switch rv.Kind() {
	case reflect.Map:
		out := make(map[string]any, rv.Len())
		for it := rv.MapRange(); it.Next(); {
			out[fmt.Sprint(it.Key().Interface())] = plain(it.Value().Interface())
		}
		return out
	case reflect.Slice:
		out := make([]any, rv.Len())
		for i := range out {
			out[i] = plain(rv.Index(i).Interface())
		}
		return out
	}
	return v
}

// Number converts a number of any type; a duration is none.
func Number(v any) (float64, bool) {
	switch n := v.(type) {
	case json.Number:
		f, err := n.Float64()
		return f, err == nil
	case time.Duration:
		return 0, false
	}
	rv := reflect.ValueOf(v)
	switch {
	case rv.CanInt():
		return float64(rv.Int()), true
	case rv.CanUint():
		return float64(rv.Uint()), true
	case rv.CanFloat():
		return rv.Float(), true
	}
	return 0, false
}

// want says what was wanted and the kind of thing that was got. It does not
// quote the value, which may be a secret.
func want(form string, v any) error {
	got := "a value of type " + fmt.Sprintf("%T", v)
	switch rv := reflect.ValueOf(v); {
	case v == nil:
		got = "nothing"
	case rv.Kind() == reflect.String:
		got = "a text"
	case rv.Kind() == reflect.Bool:
		got = "a boolean"
	case rv.Kind() == reflect.Map:
		got = "a map"
	case rv.Kind() == reflect.Slice:
		got = "a list"
	default:
		if f, ok := Number(v); ok {
			got = "the number " + strconv.FormatFloat(f, 'g', -1, 64)
		}
	}
	return &WantError{Want: form, Got: got}
}

// WantError is a value of the wrong type.
type WantError struct{ Want, Got string }

func (e *WantError) Error() string { return "got " + e.Got + ", want " + e.Want }
