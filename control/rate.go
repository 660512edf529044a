package control

import (
	"encoding/json"
	"strings"
	"time"

	"github.com/lovage-go/lovage/internal/ratelimit"
)

// parseRate reads a rate limit as clients send it: a text such as 100/m, or a
// number per second. limited is false for what switches the limit off in
// Celery's eyes. The errors are Python's.
func parseRate(raw json.RawMessage) (text string, every time.Duration, limited bool, err error) {
	switch {
	case len(raw) == 0 || string(raw) == "null" || string(raw) == "false":
		return "", 0, false, nil
	case raw[0] == '"':
		if err := json.Unmarshal(raw, &text); err != nil {
			return "", 0, false, exception("TypeError", "argument rate_limit: %v", err)
		}
		limited = text != ""
	default:
		text = string(raw)
		var n float64
		if err := json.Unmarshal(raw, &n); err != nil {
			return "", 0, false, exception("TypeError", "argument rate_limit: want a text or a number")
		}
		limited = n != 0
	}
	ops, unit, _ := strings.Cut(text, "/")
	switch unit {
	case "", "s", "m", "h":
	default:
		return "", 0, false, exception("KeyError", "%s", unit)
	}
	if every, err = ratelimit.Parse(text); err != nil {
		return "", 0, false, exception("ValueError", "could not convert string to float: %s", repr(ops))
	}
	return text, every, limited, nil
}
