package cli

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"

	"github.com/lovage-go/lovage/internal/pyrepr"
)

// pretty words a reply as Celery's command line does, for the scripts that read
// it: OK or ERROR, and the text.
func pretty(raw json.RawMessage) (word, text string, failed bool) {
	var fields map[string]json.RawMessage
	if json.Unmarshal(raw, &fields) == nil && fields != nil {
		for _, key := range [...]string{"ok", "error"} {
			if inner, ok := fields[key]; ok {
				_, text, _ := pretty(inner)
				return map[string]string{"ok": "OK", "error": "ERROR"}[key], indent(text, 4), key == "error"
			}
		}
		return "OK", sorted(raw), false
	}
	var items []json.RawMessage
	if json.Unmarshal(raw, &items) == nil && items != nil {
		if len(items) == 0 {
			return "OK", "- empty -", false
		}
		lines := make([]string, len(items))
		for i, item := range items {
			lines[i] = "* " + plain(item)
		}
		return "OK", strings.Join(lines, "\n"), false
	}
	return "OK", plain(raw), false
}

// plain is a text as it is, and anything else in Python's notation.
func plain(raw json.RawMessage) string {
	var text string
	if len(raw) > 0 && raw[0] == '"' && json.Unmarshal(raw, &text) == nil {
		return printable(text)
	}
	return printable(pyrepr.JSON(raw))
}

// sorted is JSON with its keys in order, four spaces a level.
func sorted(raw json.RawMessage) string {
	dec := json.NewDecoder(bytes.NewReader(raw))
	dec.UseNumber()
	var v any
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "    ")
	if dec.Decode(&v) != nil || enc.Encode(v) != nil {
		return fmt.Sprintf("%q", raw)
	}
	return strings.TrimSuffix(b.String(), "\n")
}

// indent sets every line that is not empty to the right, as Celery does.
func indent(text string, by int) string {
	lines := strings.Split(text, "\n")
	for i, line := range lines {
		if line != "" {
			lines[i] = strings.Repeat(" ", by) + line
		}
	}
	return strings.Join(lines, "\n")
}

// printable keeps lines and drops other control characters: what a node says
// must not move the cursor.
func printable(text string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' && r != '\n' && r != '\t' || r == 0x7f {
			return -1
		}
		return r
	}, text)
}
