package worker

import (
	"context"
	"encoding/json"
	"slices"
	"strings"

	"github.com/lovage-go/lovage"
	"github.com/lovage-go/lovage/backend"
	"github.com/lovage-go/lovage/broker"
	"github.com/lovage-go/lovage/protocol"
)

// deduplicate decides whether the results of tasks that come again are looked
// for, and tells who asked for it where they cannot be.
func (w *Worker) deduplicate() {
	_, sent := w.back.(backend.Expecter) // to the callers, and not kept here
	w.dedup = *w.conf.WorkerDeduplicateSuccessfulTasks && w.back != nil && !sent
	asked := w.app.Config().WorkerDeduplicateSuccessfulTasks
	if asked == nil || !*asked || w.dedup {
		return
	}
	why := "there is no result store"
	if sent {
		why = "rpc results go to the callers, and no worker can look at them"
	}
	w.log.Warn("worker_deduplicate_successful_tasks has no effect: " + why + ": set result_backend to a store such as Redis")
}

// succeeded is the outcome of a task that comes again although a run of it has
// succeeded: its worker, of whatever language, died between result and
// acknowledgement, or a follow-up was sent again. What it should have caused is
// caused then, and the body does not run. It is nil for all others, as for what
// comes by a fanout exchange: its copies have one id, and each is to run.
func (j *job) succeeded() (*lovage.Outcome, error) {
	w := j.w
	if !w.dedup || !j.s.set.AcksLate || !j.d.Redelivered && !j.d.Orphaned && !j.again() || w.copies(j.d.Queue) {
		return nil, nil
	}
	var recs []backend.Record
	err := w.patiently(j, func(ctx context.Context) (err error) {
		recs, err = w.back.Fetch(ctx, j.r.ID)
		return err
	})
	if err != nil && j.link.ctx.Err() != nil {
		return nil, err
	}
	if err == nil && len(recs) == 1 && recs[0].State == lovage.Success && recs[0].Meta != nil {
		var meta protocol.ResultMeta
		if meta, err = protocol.ParseResultMeta(recs[0].Meta); err == nil {
			if meta.Result == nil {
				meta.Result = json.RawMessage("null")
			}
			out := lovage.Succeeded(meta.Result)
			return &out, nil
		}
	}
	if err != nil {
		w.log.Warn("a task comes again, and its result cannot be read; the task runs: "+err.Error(), "task", j.r.Task, "id", j.r.ID, "error", err)
	}
	return nil, nil
}

// copies reports whether a queue is on a fanout exchange.
func (w *Worker) copies(queue string) bool {
	fanout := func(b broker.Binding) bool { return b.Exchange.Type == "fanout" }
	return slices.ContainsFunc(w.consumed(), func(q broker.Queue) bool {
		return q.Name == queue && (q.Exchange.Type == "fanout" || slices.ContainsFunc(q.Bindings, fanout))
	})
}

// again reports whether the message is one that was sent a second time for a
// run that comes before it.
func (j *job) again() bool {
	var mark string
	raw, marked := j.r.Headers[protocol.OnceHeader]
	return marked && json.Unmarshal(raw, &mark) == nil && !strings.Contains(mark, "/")
}
