package worker

import (
	"errors"
	"syscall"

	"github.com/lovage-go/lovage"
	"github.com/lovage-go/lovage/broker"
	"github.com/lovage-go/lovage/events"
)

// errConnectionLost is why the context of a run ends when
// worker_cancel_long_running_tasks_on_connection_loss is on.
var errConnectionLost = errors.New("worker: the connection that the task came by is lost: cancelled by worker_cancel_long_running_tasks_on_connection_loss")

// cancelLost cancels the runs of a lost connection that ack late, if the
// configuration says so: their messages go back, or have gone already. The
// state is RETRY, as in Celery.
func (w *Worker) cancelLost(l *link) {
	if !*w.conf.WorkerCancelLongRunningTasksOnConnectionLoss {
		return
	}
	for _, j := range w.snapshot() {
		if j.link != l || j.s == nil || !j.s.set.AcksLate || j.settled.Load() || !j.phase.CompareAndSwap(running, cancelled) {
			continue
		}
		w.log.Warn("Task "+j.id()+" is cancelled: the connection that it came by is lost", "task", j.r.Task, "id", j.r.ID)
		j.unlimit()
		j.stop(errConnectionLost)
		j.kill(syscall.SIGKILL)
		w.group.Go(func() {
			defer w.rescue("connection loss", func(error) { j.end() })
			w.cancel(j)
		})
	}
}

// cancel ends the job of a cancelled run: event, RETRY, hook and signal.
func (w *Worker) cancel(j *job) {
	if j.s.events && w.events != nil {
		w.events.Publish(events.TaskCancelled, j.r.ID, nil)
	}
	j.force = &verdict{action: broker.HandBack}
	j.s.runner.conclude(j, lovage.CancelledOutcome(errConnectionLost), lovage.FinisherFunc(j.keep))
	w.count.returned.Add(1)
	j.end()
}
