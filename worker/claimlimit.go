package worker

import (
	"slices"
	"time"
)

// warnOfClaimLimit says which tasks may hold their messages for longer than the
// broker lets them, as far as that can be known: a task without a time limit may
// run for ever, and most do not.
func (w *Worker) warnOfClaimLimit(l *link) {
	limit := l.features.ClaimLimit
	if limit <= 0 {
		return
	}
	var long []string
	for name, s := range w.strategies {
		if s.set.AcksLate && or(time.Duration(s.hard.Load()), time.Duration(s.soft.Load())) >= limit {
			long = append(long, name)
		}
	}
	slices.Sort(long)
	const mend = " raise its timeout (RabbitMQ: consumer_timeout) and tell it in broker_transport_options"
	if len(long) > 0 {
		w.log.Warn("The broker takes messages away that are claimed for longer than "+limit.String()+", and runs of "+some(long)+
			" may last as long: they would run twice;"+mend+", lower their time limits, or set acks_late to false", "tasks", long, "limit", limit)
	}
	if !l.features.Park {
		w.log.Warn("The broker takes messages away that are claimed for longer than "+limit.String()+
			": those with a later ETA are held by this worker and are delivered again and again;"+mend, "limit", limit)
	}
}
