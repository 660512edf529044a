package worker

import (
	"context"
	"time"

	"github.com/lovage-go/lovage"
	"github.com/lovage-go/lovage/events"
	"github.com/lovage-go/lovage/internal/proc"
	"github.com/lovage-go/lovage/protocol"
)

// runEvents sends what is buffered, and the heartbeat, until ctx ends.
func (w *Worker) runEvents(ctx context.Context) {
	defer w.rescue("events", func(error) {})
	w.group.Go(func() {
		defer w.rescue("heartbeat", func(error) {})
		w.heartbeat(ctx)
	})
	select {
	case <-w.linked:
	case <-ctx.Done():
		return
	}
	if err := w.events.Run(ctx); err != nil && ctx.Err() == nil {
		w.log.Warn("events are not sent: "+err.Error(), "error", err)
		w.events.Disable()
	}
}

func (w *Worker) heartbeat(ctx context.Context) {
	if w.cfg.WithoutHeartbeat {
		return
	}
	t := time.NewTicker(w.cfg.HeartbeatInterval)
	defer t.Stop()
	for {
		select {
		case <-t.C:
			if w.ready.Load() {
				w.events.Publish(events.WorkerHeartbeat, "", w.vitals())
				w.app.Signals.HeartbeatSent.Send(ctx, lovage.HeartbeatSent{Hostname: w.cfg.Hostname})
			}
		case <-ctx.Done():
			return
		}
	}
}

// vitals are the fields of the worker's own events.
func (w *Worker) vitals() map[string]any {
	_, used, _ := w.pool.Counts()
	return events.WorkerInfo{
		Freq: w.cfg.HeartbeatInterval, Active: used, Processed: w.count.processed.Load(),
		LoadAvg: proc.LoadAvg(), Version: lovage.Version, System: proc.System(),
	}.Fields()
}

func (w *Worker) online() {
	close(w.linked)
	if !w.cfg.WithoutHeartbeat {
		w.events.Publish(events.WorkerOnline, "", w.vitals())
	}
}

func (w *Worker) offline() {
	ctx, cancel := context.WithTimeout(w.base, 2*time.Second)
	defer cancel()
	if w.ready.Load() && !w.cfg.WithoutHeartbeat {
		w.events.Publish(events.WorkerOffline, "", w.vitals())
	}
	if err := w.events.Close(ctx); err != nil {
		w.log.Debug("the last events were not sent", "error", err)
	}
}

func (w *Worker) eventReceived(j *job) {
	if !w.events.Wants(events.TaskReceived) {
		return
	}
	r := j.r
	args, kwargs := r.Describe()
	w.events.Publish(events.TaskReceived, r.ID, events.ReceivedFields(events.TaskInfo{
		Name: r.Task, Args: args, Kwargs: kwargs, RootID: r.RootID, ParentID: r.ParentID,
		Retries: r.Retries, ETA: stamp(r.ETA), Expires: stamp(r.Expires),
	}))
}

func (w *Worker) started(j *job) { w.events.Publish(events.TaskStarted, j.r.ID, nil) }

// ended sends the event of an outcome.
func (w *Worker) ended(j *job, out *lovage.Outcome) {
	if w.events == nil || !w.taskEvents.Load() || j.s == nil || !(j.s.events || j.s == w.unknown) {
		return
	}
	id := j.r.ID
	switch out.State {
	case lovage.Success:
		w.events.Publish(events.TaskSucceeded, id, events.SucceededFields(out.Repr(), out.Runtime))
	case lovage.Failure:
		w.events.Publish(events.TaskFailed, id, events.FailedFields(out.Info.Repr(), out.Info.Traceback))
	case lovage.StateRetry:
		w.events.Publish(events.TaskRetried, id, events.FailedFields(out.Info.Repr(), out.Info.Traceback))
	case lovage.Rejected:
		w.events.Publish(events.TaskRejected, id, events.RejectedFields(out.Requeue))
	case lovage.Revoked:
		expired := !j.r.Expires.IsZero() && !time.Now().Before(j.r.Expires)
		terminated := j.started.Load() > 0
		var signum any // null, as Celery has it, but for a signal that ended the run
		if n := j.signal.Load(); n > 0 && terminated {
			signum = n
		}
		w.events.Publish(events.TaskRevoked, id, events.RevokedFields(terminated, signum, expired && !terminated))
	}
}

func stamp(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return protocol.FormatTime(t.UTC())
}
