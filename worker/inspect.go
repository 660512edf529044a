package worker

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/lovage-go/lovage/broker"
	"github.com/lovage-go/lovage/control"
	"github.com/lovage-go/lovage/internal/proc"
)

// maxShown is how long arguments may be, in bytes of JSON, to be told whole;
// longer ones are told by their representation, which is cut.
const maxShown = 4096

func (n remote) Active() []control.TaskInfo   { return n.tasks(running) }
func (n remote) Reserved() []control.TaskInfo { return n.tasks(waiting) }

// tasks describes jobs, those that came first in front. One that is dropped,
// not run, counts as running by its phase, and is not shown.
func (n remote) tasks(phase int32) (list []control.TaskInfo) {
	jobs := slices.DeleteFunc(n.w.snapshot(), func(j *job) bool {
		return j.r == nil || j.phase.Load() != phase || (phase == running) != (j.started.Load() > 0)
	})
	slices.SortFunc(jobs, func(a, b *job) int { return a.received.Compare(b.received) })
	for _, j := range jobs {
		list = append(list, n.info(j))
	}
	return list
}

func (n remote) info(j *job) control.TaskInfo {
	r := j.r
	t := control.TaskInfo{
		ID: r.ID, Name: or(r.Shadow, r.Task), Type: r.Task, Hostname: n.w.cfg.Hostname,
		DeliveryInfo: control.DeliveryInfo{Exchange: j.d.Exchange, RoutingKey: j.d.RoutingKey, Priority: j.d.Properties.Priority, Redelivered: j.d.Redelivered},
	}
	args, kwargs := r.Describe()
	t.Args, t.Kwargs = shown(json.RawMessage(r.Args), args, "[]"), shown(json.RawMessage(r.Kwargs), kwargs, "{}")
	if at := j.startedAt(); !at.IsZero() {
		seconds, pid := float64(at.UnixMicro())/1e6, proc.PID()
		t.TimeStart, t.WorkerPID = &seconds, &pid
		t.Acknowledged = j.s != nil && !j.s.set.AcksLate
	}
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

// Stats has those of Celery's keys that mean something here.
func (n remote) Stats() map[string]any {
	w := n.w
	s := w.Stats()
	total := map[string]int64{}
	for name, count := range s.ByTask {
		if count > 0 && name != "" {
			total[name] = count
		}
	}
	size, _, _ := w.pool.Counts()
	url, _ := w.app.URLs()
	scheme, _, _ := strings.Cut(url, ":")
	return map[string]any{
		"total": total, "pid": proc.PID(), "clock": fmt.Sprint(w.app.Clock().Value()),
		"uptime": int64(time.Since(w.since).Seconds()), "prefetch_count": size + w.window.size(),
		"pool": map[string]any{
			"implementation": "lovage:goroutine", "max-concurrency": size, "processes": []int{proc.PID()},
			"max-tasks-per-child": "N/A", "put-guarded-by-semaphore": false,
			"timeouts": [2]float64{w.conf.TaskSoftTimeLimit.Seconds(), w.conf.TaskTimeLimit.Seconds()},
		},
		"broker": map[string]any{"transport": scheme, "uri": broker.Redact(url)},
	}
}

var _ control.Node = remote{}
