package demo

import (
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"github.com/lovage-go/lovage/internal/proc"
	"github.com/lovage-go/lovage/internal/term"
)

// screen writes the demo's text: sections with lines that have a label.
type screen struct {
	*term.Out
	sections int
	progress *term.Progress // while a bar is shown, lines go around it
}

func newScreen(w io.Writer) *screen {
	if out, ok := w.(*term.Out); ok {
		return &screen{Out: out}
	}
	return &screen{Out: term.New(w, proc.Getenv, false)}
}

// section begins a new one.
func (s *screen) section(title string) {
	s.sections++
	s.say("\n" + s.Paint(fmt.Sprintf("%d. %s", s.sections, title), term.Bold))
}

// labelWidth fits the longest label.
const labelWidth = 12

// line writes text under a label; more lines of it are indented likewise.
func (s *screen) line(label, format string, a ...any) {
	for i, text := range strings.Split(fmt.Sprintf(format, a...), "\n") {
		if i > 0 {
			label = ""
		}
		pad := strings.Repeat(" ", max(0, labelWidth-len(label)))
		s.say(strings.TrimRight("   "+s.Paint(label, term.Cyan)+pad+" "+text, " "))
	}
}

func (s *screen) say(text string) {
	if s.progress != nil {
		s.progress.Say(text)
		return
	}
	fmt.Fprintln(s.Out, text)
}

// good paints what has been proven.
func (s *screen) good(text string) string { return s.Paint(text, term.Green, term.Bold) }

// number writes an integer with a comma for each thousand.
func number[N int | int64](n N) string {
	text := strconv.FormatInt(int64(n), 10)
	for i := len(text) - 3; i > 0; i -= 3 {
		text = text[:i] + "," + text[i:]
	}
	return text
}

// rate is events per second, to three digits.
func rate(n int, d time.Duration) string {
	if d <= 0 {
		return "-"
	}
	r := float64(n) / d.Seconds()
	for unit := 1.0; unit <= 1e6; unit *= 10 {
		if r < 1000*unit {
			return number(int(r/unit+0.5) * int(unit))
		}
	}
	return number(int(r))
}

// span is a duration of any size, for people.
func span(d time.Duration) string {
	if d < time.Second {
		return fmt.Sprintf("%d ms", (d + time.Millisecond/2).Milliseconds())
	}
	return fmt.Sprintf("%.1f s", d.Seconds())
}

func millis(d time.Duration) string { return fmt.Sprintf("%.2f ms", float64(d)/1e6) }

// size is a number of bytes of any size, for people.
func size(bytes int) string {
	if bytes < 1<<20 {
		return fmt.Sprintf("%.1f KiB", float64(bytes)/(1<<10))
	}
	return fmt.Sprintf("%.1f MiB", float64(bytes)/(1<<20))
}

// listed joins the first n words with how often they occur.
func listed(words []Word, n int) string {
	parts := make([]string, 0, n)
	for _, w := range words[:min(n, len(words))] {
		parts = append(parts, w.Name+" "+number(w.Count))
	}
	return strings.Join(parts, ", ")
}

// indent puts a margin before each line.
func indent(text, margin string) string {
	return margin + strings.ReplaceAll(strings.TrimRight(text, "\n"), "\n", "\n"+margin)
}
