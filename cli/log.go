package cli

import (
	"fmt"
	"io"
	"log/slog"
	"strings"

	"github.com/lovage-go/lovage"
	"github.com/lovage-go/lovage/internal/term"
)

// Celery's log levels, between slog's and above them.
const levelCritical = slog.LevelError + 4

// levels are Celery's names.
var levels = map[string]slog.Level{
	"DEBUG": slog.LevelDebug, "INFO": slog.LevelInfo, "WARNING": slog.LevelWarn,
	"ERROR": slog.LevelError, "CRITICAL": levelCritical, "FATAL": levelCritical,
}

// levelFlag is -l/--loglevel.
type levelFlag struct{ slog.Level }

func (l *levelFlag) String() string { return levelName(l.Level) }
func (l *levelFlag) Type() string   { return "level" }

// Set takes a name in any case, or Python's number of a level.
func (l *levelFlag) Set(text string) error {
	if v, ok := levels[strings.ToUpper(text)]; ok {
		l.Level = v
		return nil
	}
	if n, ok := map[string]slog.Level{"10": slog.LevelDebug, "20": slog.LevelInfo, "30": slog.LevelWarn, "40": slog.LevelError, "50": levelCritical}[text]; ok {
		l.Level = n
		return nil
	}
	return fmt.Errorf("%q is not one of DEBUG, INFO, WARNING, ERROR, CRITICAL, FATAL", text)
}

func levelName(l slog.Level) string {
	switch {
	case l < slog.LevelInfo:
		return "DEBUG"
	case l < slog.LevelWarn:
		return "INFO"
	case l < slog.LevelError:
		return "WARNING"
	case l < levelCritical:
		return "ERROR"
	}
	return "CRITICAL"
}

// defaultLog is the log of a client command: warnings and worse, one line each,
// on standard error.
func (s *session) defaultLog() {
	if lovage.IsChild() { // its parent has told
		s.app.SetDefaultLogger(slog.New(slog.DiscardHandler))
		return
	}
	s.app.SetDefaultLogger(slog.New(newHandler(s.err, handlerConfig{
		level: slog.LevelWarn, paint: s.err.Paint, format: "%(levelname)s: %(message)s",
	})))
}

// jsonHandler writes JSON lines, with Celery's names of the levels.
func jsonHandler(w io.Writer, level slog.Level) slog.Handler {
	return slog.NewJSONHandler(w, &slog.HandlerOptions{
		Level: level,
		ReplaceAttr: func(groups []string, a slog.Attr) slog.Attr {
			if len(groups) == 0 && a.Key == slog.LevelKey {
				if l, ok := a.Value.Any().(slog.Level); ok {
					a.Value = slog.StringValue(levelName(l))
				}
			}
			return a
		},
	})
}

// levelStyles are Celery's colours.
func levelStyle(l slog.Level) []term.Style {
	switch levelName(l) {
	case "DEBUG":
		return []term.Style{term.Blue}
	case "WARNING":
		return []term.Style{term.Yellow}
	case "ERROR":
		return []term.Style{term.Red}
	case "CRITICAL":
		return []term.Style{term.Magenta}
	}
	return nil
}
