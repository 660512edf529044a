package worker

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/lovage-go/lovage"
	"github.com/lovage-go/lovage/internal/proc"
)

// NotifySystemd tells systemd, if it started the process and wants to know
// (Type=notify), when the worker is ready, when it stops or restarts, what it is
// at, and, with WatchdogSec, that its loops make progress: as Live says. It is
// called before Run and returns what ends the telling.
func (w *Worker) NotifySystemd() (stop func()) {
	manager := proc.FindSystemd(proc.Getenv)
	if !manager.Present() {
		return func() {}
	}
	tell := func(assignments ...string) {
		if err := manager.Notify(assignments...); err != nil {
			w.log.Warn("worker: "+err.Error(), "error", err)
		}
	}
	offReady := w.app.Signals.WorkerReady.Connect(func(_ context.Context, e lovage.WorkerReady) {
		if e.Hostname == w.cfg.Hostname {
			tell("READY=1", "STATUS="+w.load()) // its first claim is yet to be answered
		}
	})
	offStop := w.app.Signals.WorkerShuttingDown.Connect(func(_ context.Context, e lovage.WorkerShuttingDown) {
		switch {
		case e.Hostname != w.cfg.Hostname:
		case w.restart.Load():
			tell(append(proc.Reloading(), "STATUS=Restarting")...)
		default:
			tell("STOPPING=1", "STATUS=Stopping ("+e.How+")")
		}
	})
	done, gone := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(gone)
		w.watchdog(manager.Watchdog, tell, done)
	}()
	return sync.OnceFunc(func() {
		offReady()
		offStop()
		close(done)
		<-gone
	})
}

// watchdog gives signs of life twice as often as they are wanted, and the
// status now and then.
func (w *Worker) watchdog(every time.Duration, tell func(...string), done <-chan struct{}) {
	wanted, every := every > 0, every/2
	if !wanted {
		every = 10 * time.Second
	}
	t := time.NewTicker(every)
	defer t.Stop()
	told, silent := "", false
	for {
		select {
		case <-t.C:
		case <-done:
			return
		}
		var words []string
		if err := w.Live(); err != nil && wanted && !silent {
			w.log.Error(err.Error()+"; systemd gets no more signs of life", "error", err)
			silent = true
		} else if err == nil && wanted {
			words, silent = append(words, "WATCHDOG=1"), false
		}
		if s := w.status(); w.ready.Load() && !w.halting.Load() && s != told {
			words, told = append(words, "STATUS="+s), s
		}
		if len(words) > 0 {
			tell(words...)
		}
	}
}

// status is a line for systemctl status.
func (w *Worker) status() string {
	text := w.load()
	if reasons := w.unready(time.Now()); len(reasons) > 0 && w.ready.Load() {
		text += "; not ready: " + strings.Join(reasons, "; ")
	}
	return text
}

// load is what the worker is at.
func (w *Worker) load() string {
	s := w.Stats()
	return fmt.Sprintf("%s: %d of %d slots busy, %d tasks done", w.cfg.Hostname, s.SlotsUsed, s.Slots, s.Processed)
}
