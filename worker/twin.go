package worker

import "github.com/lovage-go/lovage/broker"

// mayComeAgain reports whether the message may be delivered again while it runs
// here, and would be spared a second run: nobody renews its claim.
func (j *job) mayComeAgain() bool {
	return j.w.dedup && j.s.set.AcksLate && j.link.renewer == nil
}

// enlist notes a run that a message which comes again may wait for.
func (w *Worker) enlist(j *job) {
	if !j.mayComeAgain() {
		return
	}
	w.mu.Lock()
	w.runs[j.r.ID] = j
	w.mu.Unlock()
}

// awaitTwin lets a message wait that has come again while its first run is under
// way here: the claim ended with its channel, and the run did not. Where it
// succeeds, its result is found, and the message does not run again. A message that
// waits is replaced by one that comes later, since its own claim has ended too.
func (w *Worker) awaitTwin(j *job) bool {
	if !j.d.Redelivered || !j.mayComeAgain() {
		return false
	}
	w.mu.Lock()
	twin := w.runs[j.r.ID]
	if twin == nil || !twin.goesOn() || twin.r.Retries != j.r.Retries || w.stopping {
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

// goesOn reports whether the run has not been decided but by itself.
func (j *job) goesOn() bool {
	phase := j.phase.Load()
	return phase == running || phase == finishing
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
