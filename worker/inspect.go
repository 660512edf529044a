package worker

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"github.com/lovage-go/lovage"
	"github.com/lovage-go/lovage/broker"
	"github.com/lovage-go/lovage/control"
	"github.com/lovage-go/lovage/internal/proc"
	"github.com/lovage-go/lovage/protocol"
)

const (
	// maxShown is how long arguments may be, in bytes of JSON, to be told whole;
	// longer ones are told by their representation, which is cut.
	maxShown = 4096
	// maxScheduled is the page of messages that wait for their time.
	maxScheduled = 500
	// timerPriority is what Celery's timer has for every task.
	timerPriority = 6
)

func (n remote) Active(safe bool) []control.TaskInfo { return n.tasks(running, safe) }
func (n remote) Reserved() []control.TaskInfo        { return n.tasks(waiting, false) }

// tasks describes jobs, those that came first in front. One that is dropped,
// not run, counts as running by its phase, and is not shown; one that is held
// for its time is scheduled.
func (n remote) tasks(phase int32, safe bool) (list []control.TaskInfo) {
	held := n.held()
	jobs := slices.DeleteFunc(n.w.snapshot(), func(j *job) bool {
		return j.r == nil || held[j] || j.phase.Load() != phase || (phase == running) != (j.started.Load() > 0)
	})
	slices.SortFunc(jobs, func(a, b *job) int { return a.received.Compare(b.received) })
	for _, j := range jobs {
		t := n.info(j.r, j.d, safe)
		if at := j.startedAt(); !at.IsZero() {
			seconds, pid := float64(at.UnixMicro())/1e6, or(j.pid(), proc.PID())
			t.TimeStart, t.WorkerPID = &seconds, &pid
			t.Acknowledged = j.s != nil && !j.s.set.AcksLate
		}
		list = append(list, t)
	}
	return list
}

// held are the jobs that wait for their time here.
func (n remote) held() map[*job]bool {
	n.w.mu.Lock()
	defer n.w.mu.Unlock()
	out := make(map[*job]bool, len(n.w.holding))
	for j := range n.w.holding {
		out[j] = true
	}
	return out
}

func (n remote) info(r *lovage.Request, d *broker.Delivery, safe bool) control.TaskInfo {
	t := control.TaskInfo{
		ID: r.ID, Name: or(r.Shadow, r.Task), Type: r.Task, Hostname: n.w.cfg.Hostname,
		DeliveryInfo: control.DeliveryInfo{Exchange: d.Exchange, RoutingKey: d.RoutingKey, Priority: d.Properties.Priority, Redelivered: d.Redelivered},
	}
	args, kwargs := r.Describe()
	if safe {
		t.Args, t.Kwargs = args, kwargs
		return t
	}
	t.Args, t.Kwargs = shown(json.RawMessage(r.Args), args, "[]"), shown(json.RawMessage(r.Kwargs), kwargs, "{}")
	return t
}

// shown are arguments as they were sent, if they are short and can be.
func shown(raw json.RawMessage, text, none string) any {
	switch {
	case len(raw) == 0:
		return json.RawMessage(none)
	case len(raw) > maxShown || !json.Valid(raw):
		return text
	}
	return raw
}

// Scheduled lists what waits in the broker for its time in the worker's queues,
// which is no worker's own, and what this worker holds where the broker cannot
// park. It is a page of those that are due first.
func (n remote) Scheduled(ctx context.Context) ([]control.Scheduled, error) {
	w := n.w
	type entry struct {
		at time.Time
		r  *lovage.Request
		d  *broker.Delivery
	}
	var all []entry
	for j := range n.held() {
		if j.r != nil {
			all = append(all, entry{j.r.ETA, j.r, j.d})
		}
	}
	w.mu.Lock()
	l := w.link
	w.mu.Unlock()
	if l != nil {
		if p, ok := l.conn.(broker.DelayPeeker); ok {
			for _, q := range w.consumed() {
				list, err := p.PeekDelayed(ctx, q.Name, 0, maxScheduled)
				if err != nil {
					return nil, fmt.Errorf("list what waits in queue %q: %w", q.Name, err)
				}
				for i := range list {
					d := &list[i].Delivery
					if r, err := w.app.Receive(d); err == nil {
						all = append(all, entry{list[i].Due, r, d})
					}
				}
			}
		}
	}
	slices.SortStableFunc(all, func(a, b entry) int { return a.at.Compare(b.at) })
	var out []control.Scheduled
	for _, e := range all[:min(len(all), maxScheduled)] {
		at := e.at
		if !e.r.ETA.IsZero() {
			at = e.r.ETA
		}
		out = append(out, control.Scheduled{ETA: protocol.FormatTime(at.UTC()), Priority: timerPriority, Request: n.info(e.r, e.d, false)})
	}
	return out, nil
}

var _ control.Node = remote{}
