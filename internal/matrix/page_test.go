package matrix_test

import (
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"
)

const (
	page  = "../../docs/reliability.md"
	begin = "<!-- begin: written by go test ./internal/matrix -run TestPage -update -->\n"
	over  = "<!-- end -->\n"
)

// everywhere are the places of the matrix.
func everywhere() (list []place) {
	for _, b := range []string{"memory", "sqlite", "redis", "rabbitmq"} {
		for _, pool := range []string{"goroutine", "prefork"} {
			list = append(list, place{b, pool})
		}
	}
	return list
}

// TestPage holds the table of docs/reliability.md against the model.
func TestPage(t *testing.T) {
	t.Parallel()
	old, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	head, rest, ok := strings.Cut(string(old), begin)
	_, tail, ok2 := strings.Cut(rest, over)
	if !ok || !ok2 {
		t.Fatalf("%s has no place for the table between %q and %q", page, begin, over)
	}
	celery := readRecording(t)
	text := head + begin + counts() + table(celery) + reasons(celery) + "\n" + over + tail
	if text == string(old) {
		return
	}
	if !*update {
		t.Fatalf("%s is not what the model says: go test ./internal/matrix -run TestPage -update", page)
	}
	if err := os.WriteFile(page, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

// counts are the cells of each place.
func counts() string {
	var b strings.Builder
	b.WriteString("\n| broker | pool | cells run | cells that cannot be |\n|---|---|---|---|\n")
	for _, p := range everywhere() {
		run, none := 0, []string{}
		for _, e := range ends {
			if why := p.impossible(e); why != "" {
				none = append(none, fmt.Sprintf("%d of *%s*: %s", len(cellsOf(e)), e, why))
			} else {
				run += len(cellsOf(e))
			}
		}
		fmt.Fprintf(&b, "| %s | %s | %d | %s |\n", p.broker, p.pool, run, strings.Join(none, "; "))
	}
	return b.String()
}

// table has a row for each end, the settings of the message that matter to it, and
// the places that agree.
func table(celery map[cell]outcome) string {
	var b strings.Builder
	b.WriteString("\n| the run ends by | late | acks | lost | where | state | message | hooks and signals after `Run` | events after `task-started` | Celery |\n|---|---|---|---|---|---|---|---|---|---|\n")
	for _, e := range ends {
		for _, s := range rows(e) {
			var lines []string // what the places say, in their order
			at := map[string][]place{}
			for _, p := range everywhere() {
				if p.impossible(e) != "" {
					continue
				}
				line := row(cell{e, s}, p)
				if !slices.Contains(lines, line) {
					lines = append(lines, line)
				}
				at[line] = append(at[line], p)
			}
			for _, line := range lines {
				fmt.Fprintf(&b, "| %s | %s | %s | %s | %s | %s | %s |\n", e, mark(e, s, 0), mark(e, s, 1), mark(e, s, 2), where(e, at[line]), line, beside(celery, e, s))
			}
		}
	}
	return b.String()
}

// rows are the settings of the message with one of each that comes to the same.
func rows(e end) (list []settings) {
	for _, s := range allSettings() {
		if s.errors || s.ignore {
			continue // the column of the state tells
		}
		keep := true
		for i, f := range s.fields()[:3] {
			keep = keep && (!*f || matters(e, s, i))
		}
		if keep {
			list = append(list, s)
		}
	}
	slices.Reverse(list)
	return list
}

// matters reports whether a setting changes anything anywhere, as those before it
// are, whatever those after it are.
func matters(e end, s settings, i int) bool {
	for n := range 1 << (2 - i) {
		for j := i + 1; j < 3; j++ {
			*s.fields()[j] = n>>(j-i-1)&1 == 1
		}
		t := s
		*t.fields()[i] = !*t.fields()[i]
		if slices.ContainsFunc(everywhere(), func(p place) bool {
			return p.impossible(e) == "" && row(cell{e, s}, p) != row(cell{e, t}, p)
		}) {
			return true
		}
	}
	return false
}

func mark(e end, s settings, i int) string {
	if !matters(e, s, i) {
		return ""
	}
	return map[bool]string{true: "on", false: "off"}[*s.fields()[i]]
}

// row is what a cell comes to, whatever its task keeps.
func row(c cell, p place) string {
	o := expect(c, p)
	state := o.State
	ignored, errors := c, c
	ignored.ignore, errors.ignore, errors.errors = true, true, true
	switch {
	case expect(ignored, p).State == state:
	case expect(errors, p).State == state:
		state += " ¹"
	default:
		state += " ²"
	}
	fate := o.Fate
	if expect(ignored, p).Fate != fate {
		fate += " ³"
	}
	return fmt.Sprintf("%s | %s | %s | %s", state, fate, strings.Join(o.Steps[4:], ", "), strings.Join(o.Events[2:], ", "))
}

func where(e end, list []place) string {
	possible := slices.DeleteFunc(everywhere(), func(p place) bool { return p.impossible(e) != "" })
	if len(list) == len(possible) {
		return ""
	}
	of := func(what string, get func(place) string) string {
		var mine, others []string
		for _, p := range possible {
			if slices.Contains(list, p) {
				mine = append(mine, get(p))
			} else {
				others = append(others, get(p))
			}
		}
		for _, name := range mine {
			if slices.Contains(others, name) {
				return ""
			}
		}
		return strings.Join(slices.Compact(slices.Sorted(slices.Values(mine))), ", ") + what
	}
	if text := of("", func(p place) string { return p.pool }); text != "" {
		return text
	}
	if text := of("", func(p place) string { return p.broker }); text != "" {
		return text
	}
	return fmt.Sprint(list)
}

// beside says how Celery compares in the cells of a row.
func beside(celery map[cell]outcome, e end, s settings) string {
	fields := map[string]bool{}
	for _, d := range differences(celery) {
		if d.end == e && rowOf(e, d.settings) == s {
			for _, what := range d.what {
				fields[what] = true
			}
		}
	}
	switch {
	case len(fields) > 0:
		return "other " + strings.Join(slices.Sorted(maps.Keys(fields)), ", ")
	case compared(celery, e):
		return "the same"
	}
	return "not recorded"
}

// reasons lists why Celery differs.
func reasons(celery map[cell]outcome) string {
	var b strings.Builder
	b.WriteString("\n¹ Not kept with `ignore_result`, unless `store_errors_even_if_ignored` is on. ² Not kept with `ignore_result`. ³ With `ignore_result` nobody can tell that it succeeded: it is back in its queue and runs again, and nothing of its first run counts.\n\nWhere Celery 5.2.6 (prefork, Redis) comes to something else:\n\n")
	for _, e := range ends {
		if why := onPurpose[e]; why != "" {
			fmt.Fprintf(&b, "- *%s*: %s\n", e, why)
		}
	}
	return b.String()
}

// rowOf are the settings of the row that tells of a cell.
func rowOf(e end, s settings) settings {
	s.errors, s.ignore = false, false
	for i := range s.fields()[:3] {
		if !matters(e, s, i) {
			*s.fields()[i] = false
		}
	}
	return s
}
