package settings

import (
	"fmt"
	"regexp"
	"strings"
)

// Masked stands for a secret in what people read.
const Masked = "********"

var secret = regexp.MustCompile(`(?i)API|TOKEN|KEY|SECRET|PASS|SIGNATURE|DATABASE`)

// Secret reports whether a name looks like that of a secret, by the words that
// Celery looks for.
func Secret(name string) bool { return secret.MatchString(name) }

// Mask returns a copy of v that can be shown: map entries with secret names are
// masked, and each text that holds a URL goes through redact, part by part
// where it is a list of URLs with semicolons.
func Mask(v any, redact func(string) string) any {
	switch t := v.(type) {
	case string:
		if !strings.Contains(t, "://") {
			return t
		}
		parts := strings.Split(t, ";")
		for i, p := range parts {
			parts[i] = redact(p)
		}
		return strings.Join(parts, ";")
	case map[string]any:
		out := make(map[string]any, len(t))
		for k, e := range t {
			if Secret(k) && k != "routing_key" {
				out[k] = Masked
				continue
			}
			out[k] = Mask(e, redact)
		}
		return out
	case []any:
		out := make([]any, len(t))
		for i, e := range t {
			out[i] = Mask(e, redact)
		}
		return out
	case map[any]any:
		return fmt.Sprintf("map of %d", len(t))
	}
	return v
}
