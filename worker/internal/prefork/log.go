package prefork

import (
	"context"
	"log/slog"
	"math"
	"slices"
	"time"

	"github.com/lovage-go/lovage"
)

// record is a line of the log on its way from a child.
type record struct {
	Time    time.Time
	Level   int
	Message string
	Attrs   []attr
}

// attr is a slog.Attr: groups are flattened, and values that are no plain ones
// are text.
type attr struct {
	Key  string
	Kind int
	Text string
	Num  uint64
}

// forward is the slog.Handler of a child: its parent writes what it logs.
type forward struct {
	level  slog.Level
	send   func(context.Context, record)
	prefix string
	attrs  []attr
}

var _ slog.Handler = (*forward)(nil)

func (h *forward) Enabled(_ context.Context, l slog.Level) bool { return l >= h.level }

func (h *forward) Handle(ctx context.Context, r slog.Record) error {
	out := record{Time: r.Time, Level: int(r.Level), Message: r.Message, Attrs: slices.Clip(h.attrs)}
	r.Attrs(func(a slog.Attr) bool {
		out.Attrs = appendAttr(out.Attrs, h.prefix, a)
		return true
	})
	if q := lovage.RequestFrom(ctx); q != nil && !has(out.Attrs, "id") {
		out.Attrs = appendAttr(appendAttr(out.Attrs, "", slog.String("task", q.Task)), "", slog.String("id", q.ID))
	}
	h.send(ctx, out)
	return nil
}

func has(attrs []attr, key string) bool {
	return slices.ContainsFunc(attrs, func(a attr) bool { return a.Key == key })
}

func (h *forward) WithAttrs(attrs []slog.Attr) slog.Handler {
	c := *h
	c.attrs = slices.Clip(c.attrs)
	for _, a := range attrs {
		c.attrs = appendAttr(c.attrs, h.prefix, a)
	}
	return &c
}

func (h *forward) WithGroup(name string) slog.Handler {
	if name == "" {
		return h
	}
	c := *h
	c.prefix += name + "."
	return &c
}

func appendAttr(list []attr, prefix string, a slog.Attr) []attr {
	v := a.Value.Resolve()
	if a.Equal(slog.Attr{}) {
		return list
	}
	if v.Kind() == slog.KindGroup {
		if a.Key != "" {
			prefix += a.Key + "."
		}
		for _, inner := range v.Group() {
			list = appendAttr(list, prefix, inner)
		}
		return list
	}
	out := attr{Key: prefix + a.Key, Kind: int(v.Kind())}
	switch v.Kind() {
	case slog.KindBool:
		if v.Bool() {
			out.Num = 1
		}
	case slog.KindDuration:
		out.Num = uint64(v.Duration())
	case slog.KindInt64:
		out.Num = uint64(v.Int64())
	case slog.KindUint64:
		out.Num = v.Uint64()
	case slog.KindFloat64:
		out.Num = math.Float64bits(v.Float64())
	default:
		out.Kind, out.Text = int(slog.KindString), v.String()
	}
	return append(list, out)
}

func (a *attr) attr() slog.Attr {
	switch slog.Kind(a.Kind) {
	case slog.KindBool:
		return slog.Bool(a.Key, a.Num == 1)
	case slog.KindDuration:
		return slog.Duration(a.Key, time.Duration(a.Num))
	case slog.KindInt64:
		return slog.Int64(a.Key, int64(a.Num))
	case slog.KindUint64:
		return slog.Uint64(a.Key, a.Num)
	case slog.KindFloat64:
		return slog.Float64(a.Key, math.Float64frombits(a.Num))
	}
	return slog.String(a.Key, a.Text)
}

// write writes a child's line to the parent's log.
func (r *record) write(log *slog.Logger) {
	ctx, level := context.Background(), slog.Level(r.Level)
	if !log.Enabled(ctx, level) {
		return
	}
	out := slog.NewRecord(r.Time, level, r.Message, 0)
	for i := range r.Attrs {
		out.AddAttrs(r.Attrs[i].attr())
	}
	_ = log.Handler().Handle(ctx, out)
}

// levelOf is the lowest level that a log writes.
func levelOf(log *slog.Logger) slog.Level {
	for l := slog.LevelDebug - 4; l < slog.LevelError+8; l++ {
		if log.Enabled(context.Background(), l) {
			return l
		}
	}
	return slog.LevelError + 8
}
