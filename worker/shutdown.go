package worker

import (
	"fmt"
	"slices"
	"syscall"
	"time"

	"github.com/lovage-go/lovage"
	"github.com/lovage-go/lovage/broker"
)

// How a worker stops.
type How string

// Warm waits for the runs under way; Cold cancels them with lovage.ErrShutdown,
// and hands back the messages of those that ack late.
const (
	Warm How = "warm"
	Cold How = "cold"
)

type stopRequest struct {
	how    How
	signal string
	err    error // what Run returns
}

// Stop asks the worker to stop and returns at once; Run returns when it has. A
// second word overrides the first: cold after warm.
func (w *Worker) Stop(how How) { w.request(stopRequest{how: how}) }

func (w *Worker) request(r stopRequest) {
	select {
	case w.stops <- r:
	default: // the worker has been told often enough
	}
}

var errColdShutdown = fmt.Errorf("%w (cold)", lovage.ErrShutdown)

// shutdown ends all work. Claims have stopped already.
func (w *Worker) shutdown(r stopRequest) {
	w.tell(r)
	w.noEntry()
	if w.children != nil {
		w.children.WindDown()
	}
	w.mu.Lock()
	w.stopping = true
	held := w.heirs()
	for j, al := range w.holding {
		if w.alarms.cancel(al) {
			held = append(held, j)
			delete(w.holding, j)
		}
	}
	w.mu.Unlock()
	w.handBack(held...)
	w.handBack(w.suspects.close()...)
	w.handBack(w.pool.Close()...)
	if r.how == Warm {
		if r = w.warm(); r.how == Cold {
			w.tell(r)
		}
	}
	if r.how == Cold {
		w.cold()
	}
	w.closeLinks()
}

func (w *Worker) tell(r stopRequest) {
	text, code := "worker: Warm shutdown", 0
	if r.how == Cold {
		text, code = "worker: Cold shutdown", 1
	}
	w.mu.Lock()
	n := len(w.jobs)
	w.mu.Unlock()
	w.log.Warn(text+" ("+w.cfg.Hostname+")", "jobs", n)
	w.app.Signals.WorkerShuttingDown.Send(w.base, lovage.WorkerShuttingDown{Hostname: w.cfg.Hostname, How: string(r.how), Signal: r.signal, ExitCode: code})
}

// warm waits for what runs. A store that does not take the ends of runs is not
// waited for longer than the grace: their messages go back, and nobody's death is
// counted.
func (w *Worker) warm() stopRequest {
	for {
		if r := w.await(time.After(w.cfg.Grace / 4)); r.how == Cold {
			return r
		}
		left := w.snapshot()
		if slices.ContainsFunc(left, func(j *job) bool { return j.runs() || !j.stuckFor(w.cfg.Grace) }) {
			continue
		}
		if len(left) > 0 {
			w.log.Error("the store does not take the ends of tasks; their messages go back", "tasks", len(left))
		}
		return stopRequest{}
	}
}

// stuckFor reports whether a store has let the job wait for so long.
func (j *job) stuckFor(d time.Duration) bool {
	return j.asks.lasts(time.Now()) >= d || j.link.commit.stuckFor(d)
}

// runs reports whether the task itself is under way.
func (j *job) runs() bool { return j.phase.Load() == running && j.started.Load() > 0 }

// await waits until nothing is left to wait for, a cold shutdown is asked for,
// or timeout rings.
func (w *Worker) await(timeout <-chan time.Time) stopRequest {
	for {
		w.mu.Lock()
		n := len(w.jobs)
		w.mu.Unlock()
		if n == 0 {
			return stopRequest{}
		}
		select {
		case <-w.idle:
		case <-timeout:
			return stopRequest{}
		case r := <-w.stops:
			if r.how == Cold && w.cutoff.Load() == nil {
				return r
			}
		}
	}
}

// cold cancels the runs, after the time that the soft shutdown gives them, and
// hands back the messages of those that do not end.
func (w *Worker) cold() {
	w.soften()
	cause := errColdShutdown
	w.cutoff.Store(&cause)
	for _, j := range w.snapshot() {
		j.stop(cause)
	}
	grace := time.NewTimer(w.cfg.Grace)
	defer grace.Stop()
	w.await(grace.C)
	last := w.cfg.Grace
	for _, j := range w.snapshot() {
		if !j.phase.CompareAndSwap(running, abandoned) {
			continue // its effects wait for the store: its claim goes back unsettled
		}
		j.slot.drop()
		text := " did not end at the cold shutdown"
		if j.kill(syscall.SIGKILL) {
			text += " and is killed"
		} else {
			w.count.stuck.Add(1)
		}
		if j.settled.Load() {
			last = w.cfg.Grace + closeTimeout // its hooks may need a new child
		}
		w.abandon(j, text)
	}
	grace.Reset(last)
	w.await(grace.C)
}

// abandon ends the job of a run that does not: its message goes back, or, where
// that is acknowledged and nobody will run it again, the task fails.
func (w *Worker) abandon(j *job, text string) {
	if !j.settled.Load() {
		w.log.Error("Task "+j.id()+text+"; its message goes back", "job", j.id())
		w.settleSoon(j, verdict{action: broker.HandBack})
		return
	}
	w.log.Error("Task "+j.id()+text+"; its message is acknowledged, so it fails", "job", j.id())
	w.group.Go(func() {
		defer w.rescue("cold shutdown", func(error) { j.end() })
		w.conclude(j, lovage.LostWorker("worker shutting down (cold): the run did not end, and its message was acknowledged early"))
		j.end()
	})
}

// soften gives runs time before the cold shutdown. An idle worker takes it only
// if worker_enable_soft_shutdown_on_idle says so, and then all of it.
func (w *Worker) soften() {
	d, idle := w.cfg.SoftShutdownTimeout, len(w.snapshot()) == 0
	if d <= 0 || idle && !*w.conf.WorkerEnableSoftShutdownOnIdle {
		return
	}
	w.log.Warn("worker: Initiating Soft Shutdown, terminating in "+d.String(), "timeout", d)
	t := time.NewTimer(d)
	defer t.Stop()
	if idle {
		<-t.C
		return
	}
	w.await(t.C)
}

// closeLinks closes what is open. Claims that are still there are handed back by
// the consumers, and finishes that wait are refused.
func (w *Worker) closeLinks() {
	w.mu.Lock()
	attended := w.attended
	w.mu.Unlock()
	if attended != nil {
		<-attended // consumer steps may still use the connection
	}
	if w.events != nil {
		w.offline()
	}
	w.mu.Lock()
	w.closing = true
	links := make([]*link, 0, len(w.links))
	for l := range w.links {
		links = append(links, l)
	}
	w.mu.Unlock()
	for _, l := range links {
		l.close(errColdShutdown)
	}
	for _, j := range w.snapshot() { // nothing more can come of them
		if j.phase.Load() != finishing {
			j.end()
		}
	}
	w.await(time.After(w.cfg.Grace))
	w.emptied()
}

// emptied waits for the slots: a run whose end was kept may still be on its way
// out of its own.
func (w *Worker) emptied() {
	limit := time.NewTimer(w.cfg.Grace)
	defer limit.Stop()
	for {
		if _, used, _ := w.pool.Counts(); used == 0 {
			return
		}
		select {
		case <-w.pool.Changed():
		case <-limit.C:
			return
		}
	}
}

func (j *job) id() string {
	if j.r == nil {
		return "(unreadable)"
	}
	return j.r.Task + "[" + j.r.ID + "]"
}
