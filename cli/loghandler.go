package cli

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/lovage-go/lovage"
	"github.com/lovage-go/lovage/internal/proc"
	"github.com/lovage-go/lovage/internal/term"
)

// Celery's formats, the second for lines that a running task logs.
const (
	celeryFormat     = "[%(asctime)s: %(levelname)s/%(processName)s] %(message)s"
	celeryTaskFormat = "[%(asctime)s: %(levelname)s/%(processName)s] %(task_name)s[%(task_id)s]: %(message)s"
)

type handlerConfig struct {
	level      slog.Level
	format     string // Celery's notation; "" is Celery's default
	taskFormat string
	paint      func(string, ...term.Style) string // nil: no colours
}

// handler is a slog.Handler that writes Celery's log lines. Attributes that the
// message does not already tell follow it as name=value. It is safe for
// concurrent use: one line is one write.
type handler struct {
	cfg    handlerConfig
	plain  []piece
	task   []piece
	prefix string // of groups
	attrs  []slog.Attr

	mu *sync.Mutex // guards w, shared by derived handlers
	w  io.Writer
}

var _ slog.Handler = (*handler)(nil)

func newHandler(w io.Writer, cfg handlerConfig) *handler {
	if cfg.format == "" {
		cfg.format = celeryFormat
	}
	if cfg.taskFormat == "" {
		cfg.taskFormat = celeryTaskFormat
	}
	return &handler{cfg: cfg, plain: parseFormat(cfg.format), task: parseFormat(cfg.taskFormat), mu: new(sync.Mutex), w: w}
}

// Enabled reports whether the level is logged.
func (h *handler) Enabled(_ context.Context, l slog.Level) bool { return l >= h.cfg.level }

// Handle writes one record. What a run logs, by its context or by its
// Request's Log, has the task's format, unless the message names the id itself.
func (h *handler) Handle(ctx context.Context, r slog.Record) error {
	attrs := slices.Clip(h.attrs)
	r.Attrs(func(a slog.Attr) bool {
		a.Key = h.prefix + a.Key
		attrs = append(attrs, a)
		return true
	})
	line := lineData{record: &r, pid: strconv.Itoa(proc.PID())}
	if i := slices.IndexFunc(attrs, ofChild); i >= 0 && i+1 < len(attrs) && attrs[i+1].Key == "pid" {
		line.process, line.pid = attrs[i].Value.String(), attrs[i+1].Value.String()
		attrs = slices.Concat(attrs[:i], attrs[i+2:]) // a task may have attributes of these names too
	}
	if req := lovage.RequestFrom(ctx); req != nil {
		line.task, line.id = req.Task, req.ID
	} else {
		line.task, line.id = textOf(attrs, "task"), textOf(attrs, "id")
	}
	pieces, inTask := h.plain, line.task != "" && line.id != "" && !strings.Contains(r.Message, line.id)
	if inTask {
		pieces = h.task
	}
	var b strings.Builder
	b.WriteString(r.Message)
	for _, a := range attrs {
		if inTask && (a.Key == "task" && a.Value.String() == line.task || a.Key == "id" && a.Value.String() == line.id) {
			continue
		}
		appendAttr(&b, r.Message, "", a)
	}
	line.message = b.String()
	b.Reset()
	for _, p := range pieces {
		p(&b, &line)
	}
	text := b.String()
	if h.cfg.paint != nil {
		text = h.cfg.paint(text, levelStyle(r.Level)...)
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	_, err := io.WriteString(h.w, text+"\n")
	return err
}

// ofChild tells the name of a child, which its pid follows.
func ofChild(a slog.Attr) bool {
	return a.Key == "process" && a.Value.Kind() == slog.KindString && strings.HasPrefix(a.Value.String(), "ForkPoolWorker-")
}

// textOf is a text attribute, or "".
func textOf(attrs []slog.Attr, key string) string {
	for _, a := range attrs {
		if a.Key == key && a.Value.Kind() == slog.KindString {
			return a.Value.String()
		}
	}
	return ""
}

// WithAttrs returns a handler whose records have the attributes.
func (h *handler) WithAttrs(attrs []slog.Attr) slog.Handler {
	c := *h
	c.attrs = slices.Clip(c.attrs)
	for _, a := range attrs {
		a.Key = h.prefix + a.Key
		c.attrs = append(c.attrs, a)
	}
	return &c
}

// WithGroup returns a handler that puts a name before the attributes' names.
func (h *handler) WithGroup(name string) slog.Handler {
	if name == "" {
		return h
	}
	c := *h
	c.prefix += name + "."
	return &c
}

// appendAttr adds an attribute that the message does not tell already.
func appendAttr(b *strings.Builder, message, prefix string, a slog.Attr) {
	v := a.Value.Resolve()
	if a.Equal(slog.Attr{}) {
		return
	}
	if v.Kind() == slog.KindGroup {
		if a.Key != "" {
			prefix += a.Key + "."
		}
		for _, inner := range v.Group() {
			appendAttr(b, message, prefix, inner)
		}
		return
	}
	text := v.String()
	if text == "" || told(message, text) {
		return
	}
	if list, ok := v.Any().([]string); ok && !slices.ContainsFunc(list, func(item string) bool { return !told(message, item) }) {
		return
	}
	if a.Key == "traceback" || a.Key == "stack" { // as Celery: on lines of its own
		b.WriteString("\n" + strings.TrimRight(text, "\n"))
		return
	}
	if strings.ContainsAny(text, " \t\r\n\"=") {
		text = strconv.Quote(text)
	}
	b.WriteString(" " + prefix + a.Key + "=" + text)
}

// told reports whether a message has a value as a word of its own.
func told(message, value string) bool {
	word := func(c byte) bool {
		return c == '_' || c >= '0' && c <= '9' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z'
	}
	for from := 0; ; from++ {
		i := strings.Index(message[from:], value)
		if i < 0 {
			return false
		}
		from += i
		end := from + len(value)
		if (from == 0 || !word(message[from-1]) || !word(value[0])) && (end == len(message) || !word(message[end]) || !word(value[len(value)-1])) {
			return true
		}
	}
}

// lineData is what the pieces of a format are filled from.
type lineData struct {
	record   *slog.Record
	message  string
	task, id string
	process  string // name of a pool's child, "" for this process
	pid      string
}

type piece func(*strings.Builder, *lineData)

// fields are the names of Python's log records that make sense here.
var fields = map[string]func(*lineData) string{
	"asctime": func(l *lineData) string {
		t := l.record.Time
		if t.IsZero() {
			t = time.Now()
		}
		return strings.Replace(t.Format("2006-01-02 15:04:05.000"), ".", ",", 1)
	},
	"levelname":   func(l *lineData) string { return levelName(l.record.Level) },
	"message":     func(l *lineData) string { return l.message },
	"process":     func(l *lineData) string { return l.pid },
	"processName": func(l *lineData) string { return or(l.process, "MainProcess") },
	"threadName":  func(*lineData) string { return "MainThread" },
	"name":        func(*lineData) string { return "lovage" },
	"task_name":   func(l *lineData) string { return orUnknown(l.task) },
	"task_id":     func(l *lineData) string { return orUnknown(l.id) },
}

// orUnknown is what Celery's formatter shows outside of tasks.
func orUnknown(text string) string {
	if text == "" {
		return "???"
	}
	return text
}

// parseFormat compiles Python's %-notation; names it does not know stay as they
// are written.
func parseFormat(format string) (pieces []piece) {
	literal := func(text string) {
		if text != "" {
			pieces = append(pieces, func(b *strings.Builder, _ *lineData) { b.WriteString(text) })
		}
	}
	for {
		before, rest, ok := strings.Cut(format, "%")
		literal(before)
		if !ok {
			return pieces
		}
		if after, percent := strings.CutPrefix(rest, "%"); percent {
			literal("%")
			format = after
			continue
		}
		name, after, closed := strings.Cut(strings.TrimPrefix(rest, "("), ")")
		fill := fields[name]
		end := strings.IndexAny(after, "sdf")
		if !closed || fill == nil || end < 0 || strings.Trim(after[:end], "-0123456789.") != "" {
			literal("%")
			format = rest
			continue
		}
		layout := "%" + strings.TrimLeft(after[:end], "0") + "s"
		pieces = append(pieces, func(b *strings.Builder, l *lineData) { fmt.Fprintf(b, layout, fill(l)) })
		format = after[end+1:]
	}
}
