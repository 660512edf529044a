package cli

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

// waitFlag is --wait[=DURATION]: seconds, or a Go duration; bare, no limit.
type waitFlag struct {
	given bool
	limit time.Duration
}

func (w *waitFlag) String() string { return "" }
func (w *waitFlag) Type() string   { return "duration" }

// Set takes the text of the flag.
func (w *waitFlag) Set(text string) error {
	w.given = true
	if text == "forever" {
		w.limit = 0
		return nil
	}
	if n, err := strconv.ParseFloat(text, 64); err == nil {
		if d, ok := seconds(n); ok && d > 0 {
			w.limit = d
			return nil
		}
	} else if d, err := time.ParseDuration(text); err == nil && d > 0 {
		w.limit = d
		return nil
	}
	return fmt.Errorf("%q is no time to wait: want seconds, or a duration such as 1m30s", text)
}

func (g group) waiting(w *waitFlag) {
	g.value(w, "wait", "", "SECONDS", "Wait for the task to end, at most that long, and print its result. Without a number: as long as it takes.")
	g.Lookup("wait").NoOptDefVal = "forever"
}

func (g group) json(p *bool) { g.flag(p, "json", "j", "Use json as output format.") }

// printJSON writes one JSON document.
func (s *session) printJSON(v any) error {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		return fmt.Errorf("write as JSON: %w", err)
	}
	_, err := s.out.Write(b.Bytes())
	return err
}

// table writes rows in columns; the first row is the heading. Columns whose
// heading starts with > are set to the right.
func (s *session) table(rows [][]string) error {
	widths := make([]int, len(rows[0]))
	for _, row := range rows {
		for i, cell := range row {
			widths[i] = max(widths[i], utf8.RuneCountInString(strings.TrimPrefix(cell, ">")))
		}
	}
	var b strings.Builder
	for _, row := range rows {
		line := ""
		for i, cell := range row {
			cell = strings.TrimPrefix(cell, ">")
			pad := strings.Repeat(" ", widths[i]-utf8.RuneCountInString(cell))
			if i > 0 {
				line += "  "
			}
			if strings.HasPrefix(rows[0][i], ">") {
				line += pad + cell
			} else {
				line += cell + pad
			}
		}
		b.WriteString(strings.TrimRight(line, " ") + "\n")
	}
	_, err := fmt.Fprint(s.out, b.String())
	return err
}

// plural is a count with its noun.
func plural(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return strconv.Itoa(n) + " " + noun + "s"
}

// oneLine makes text of unknown origin safe to print in a column.
func oneLine(text string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r == '\n' || r == '\t':
			return ' '
		case r < ' ' || r == 0x7f:
			return -1
		}
		return r
	}, text)
}
