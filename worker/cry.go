package worker

import (
	"fmt"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/lovage-go/lovage/internal/proc"
)

const (
	maxStacks  = 4 << 20 // bytes of a dump of all goroutines
	maxCryRuns = 100     // runs that it lists
)

// cry logs the state of the worker and the stacks of all goroutines, as Celery
// logs those of its threads. Nothing stops for it but, for a moment, the Go
// runtime.
func (w *Worker) cry() {
	w.log.Warn("worker: state of "+w.cfg.Hostname+", told by SIGUSR1\n"+w.state(), "stack", stacks())
}

// stacks are those of all goroutines, cut at maxStacks.
func stacks() string {
	for size := 64 << 10; ; size *= 2 {
		buf := make([]byte, size)
		n := runtime.Stack(buf, true)
		if n < size {
			return string(buf[:n])
		}
		if size >= maxStacks {
			return string(buf) + "\n... and more"
		}
	}
}

// state is what an operator asks of a worker that seems to hang.
func (w *Worker) state() string {
	s, now := w.Stats(), time.Now()
	var b strings.Builder
	line := func(name, format string, a ...any) {
		fmt.Fprintf(&b, "  %-10s "+format+"\n", append([]any{name}, a...)...)
	}
	line("uptime", "%s, %d goroutines, %d KiB", now.Sub(w.since).Round(time.Second), runtime.NumGoroutine(), proc.RSS())
	line("slots", "%d of %d used, %d stuck runs", s.SlotsUsed, s.Slots, s.Stuck)
	line("messages", "%d running, %d reserved, %d ends to be kept", s.Active, s.Reserved, s.Finishing)
	line("done", "%d: %d succeeded, %d failed, %d retried, %d revoked; %d connections replaced", s.Processed, s.Succeeded, s.Failed, s.Retried, s.Revoked, s.Rebuilt)
	line("live", "%s", verdictText(w.stuck(now)))
	line("ready", "%s", verdictText(w.unready(now)))
	runs := w.Active()
	slices.SortFunc(runs, func(a, b Running) int { return a.Started.Compare(b.Started) })
	for i, r := range runs {
		if i == maxCryRuns {
			line("", "and %d more", len(runs)-i)
			break
		}
		line("running", "%s[%s] for %s, from %s", r.Task, r.ID, now.Sub(r.Started).Round(time.Millisecond), r.Queue)
	}
	return strings.TrimRight(b.String(), "\n")
}

func verdictText(reasons []string) string {
	if len(reasons) == 0 {
		return "yes"
	}
	return "no: " + strings.Join(reasons, "; ")
}
