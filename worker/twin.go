package worker

import "github.com/lovage-go/lovage/broker"

// awaitTwin lets a message wait that has come again while its first run is under
// way here: the claim ended with its channel, and the run did not. Where it
// succeeds, its result is found, and the message does not run again. A message that
// waits is replaced by one that comes later, since its own claim has ended too.
func (w *Worker) awaitTwin(j *job) bool {
	if !w.dedup || !j.s.set.AcksLate || !j.d.Redelivered || j.link.renewer != nil {
		return false
	}
	w.mu.Lock()
	var twin *job
	for k := range w.jobs {
		if phase := k.phase.Load(); k != j && (phase == running || phase == finishing) && k.r != nil && k.r.ID == j.r.ID && k.r.Retries == j.r.Retries {
			twin = k
			break
		}
	}
	if twin == nil || w.stopping {
		w.mu.Unlock()
		return false
	}
	stale := twin.heir
	twin.heir = j
	w.mu.Unlock()
	w.log.Info("Task "+j.id()+" has come again while it runs here, and waits for the end of that run", "task", j.r.Task, "id", j.r.ID, "queue", j.d.Queue)
	if stale != nil {
		w.settleSoon(stale, verdict{action: broker.HandBack})
	}
	return true
}

// heirs are the messages that wait for runs, at a shutdown. The caller holds mu.
func (w *Worker) heirs() (list []*job) {
	for j := range w.jobs {
		if j.heir != nil {
			list = append(list, j.heir)
			j.heir = nil
		}
	}
	return list
}
