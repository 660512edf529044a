package worker

import (
	"context"
	"errors"
	"os"
	"os/signal"
	"sync"
	"syscall"

	"github.com/lovage-go/lovage"
	"github.com/lovage-go/lovage/internal/proc"
	"github.com/lovage-go/lovage/internal/term"
)

// HandleSignals lets the signals of the process reach the worker, as Celery's
// do: the first SIGTERM or SIGINT stops it warm, the second cold; SIGQUIT stops
// it cold at once; the one after that ends the process with exit code 1. With
// REMAP_SIGTERM=SIGQUIT in the environment SIGTERM is SIGQUIT.
//
// SIGHUP stops it warm, and Run returns ErrRestart; in a process that writes to
// a terminal, or that nohup started, it does not restart anything: a terminal
// that closes stops the worker warm, and nohup's process stays. SIGUSR1 logs
// the state of the worker and the stacks of all goroutines.
//
// It returns what ends the handling. After SIGHUP that leaves SIGHUP ignored, for
// the program that is executed next.
func (w *Worker) HandleSignals() (stop func()) {
	remap := proc.Getenv("REMAP_SIGTERM")
	if remap != "" && remap != "SIGQUIT" {
		w.log.Warn("REMAP_SIGTERM is not heeded: the only value that it can have is SIGQUIT", "REMAP_SIGTERM", remap)
	}
	h := &signalHandler{w: w, remap: remap == "SIGQUIT", terminal: term.New(os.Stdout, nil, true).Terminal()}
	ch := make(chan os.Signal, 8)
	done, gone := make(chan struct{}), make(chan struct{})
	signals := append([]os.Signal{os.Interrupt, syscall.SIGTERM, syscall.SIGQUIT}, inquiries...)
	if proc.Restarted() || !signal.Ignored(syscall.SIGHUP) {
		signals = append(signals, syscall.SIGHUP)
	}
	signal.Notify(ch, signals...)
	go func() {
		defer close(gone)
		for {
			select {
			case s := <-ch:
				h.take(s)
			case <-done:
				return
			}
		}
	}()
	return sync.OnceFunc(func() {
		if w.restart.Load() { // another SIGHUP, until the new program listens, would end the process
			signal.Ignore(syscall.SIGHUP)
		}
		signal.Stop(ch)
		close(done)
		<-gone
	})
}

// signalHandler is what the worker has been told by signals.
type signalHandler struct {
	w        *Worker
	remap    bool // SIGTERM is SIGQUIT
	terminal bool
	how      How  // "": nothing yet
	hangup   bool // how is so because of SIGHUP
}

func (h *signalHandler) take(s os.Signal) {
	switch {
	case isInquiry(s):
		h.w.cry()
	case s == syscall.SIGHUP:
		h.hang()
	default:
		h.stop(s)
	}
}

// hang is SIGHUP, which never makes a shutdown harder: a closing terminal sends
// it more than once.
func (h *signalHandler) hang() {
	if h.how != "" {
		return
	}
	h.how, h.hangup = Warm, true
	if h.terminal {
		h.w.log.Warn("worker: the terminal is gone")
	} else {
		h.w.log.Warn("worker: Restarting, told by SIGHUP (" + h.w.cfg.Hostname + ")")
		h.w.restart.Store(true)
	}
	h.w.request(stopRequest{how: Warm, signal: "SIGHUP"})
}

// stop takes a signal that says so; after SIGHUP it is the first of its kind,
// and the worker does not come back.
func (h *signalHandler) stop(s os.Signal) {
	quits := s == syscall.SIGQUIT || h.remap && s == syscall.SIGTERM
	h.w.restart.Store(false)
	switch {
	case h.how == Cold:
		h.w.log.Error("worker: told to stop a third time; exiting at once", "signal", signalName(s))
		os.Exit(1)
	case quits, h.how == Warm && !h.hangup:
		h.how = Cold
	default:
		h.how = Warm
		if s == os.Interrupt {
			h.w.log.Warn("worker: Hitting Ctrl+C again will terminate all running tasks!")
		}
	}
	h.hangup = false
	h.w.request(stopRequest{how: h.how, signal: signalName(s)})
}

// signalName is how Celery names a signal.
func signalName(s os.Signal) string {
	switch s {
	case os.Interrupt:
		return "SIGINT"
	case syscall.SIGTERM:
		return "SIGTERM"
	case syscall.SIGQUIT:
		return "SIGQUIT"
	}
	return s.String()
}

// Setup sends CelerydInit for the node of this name, whose receivers may change
// the settings; it must come before the App's first use. Run and the worker
// command call it.
func Setup(app *lovage.App, hostname string) error {
	if !app.Signals.CelerydInit.Connected() {
		return nil
	}
	return app.Configure(func(c *lovage.Config) ([]lovage.Warning, error) {
		node := proc.NodeName(or(hostname, "celery@%h"), "")
		app.Signals.CelerydInit.Send(context.Background(), lovage.CelerydInit{Hostname: node, Config: c})
		return nil, nil
	})
}

// Run makes a worker for app, runs it until ctx ends or a signal stops it, and
// closes the app. It tells systemd, if that started the process. At SIGHUP the
// process executes itself again, and Run does not return.
func Run(ctx context.Context, app *lovage.App, cfg Config) error {
	place := proc.Here()
	if err := Setup(app, cfg.Hostname); err != nil {
		return err
	}
	w := New(app, cfg)
	if proc.IsChild() { // signals, systemd and restarts are its parent's
		return w.Run(ctx)
	}
	defer w.HandleSignals()()
	defer w.NotifySystemd()()
	err := w.Run(ctx)
	err = errors.Join(err, app.Close(context.WithoutCancel(ctx)))
	if errors.Is(err, ErrRestart) {
		err = errors.Join(err, place.Restart())
	}
	return err
}
