package worker

import (
	"slices"
	"time"
)

const (
	claimLimitMend = " raise its timeout (RabbitMQ: consumer_timeout in rabbitmq.conf, or consumer-timeout in a policy) and tell it in broker_transport_options"
	// claimLimitPart of the time is when a claim is warned of, in hundredths.
	claimLimitPart = 80
)

// claimLimit is how long a message of a queue may be claimed; 0: for ever.
func (l *link) claimLimit(queue string) time.Duration {
	if l.limiter == nil {
		return 0
	}
	return l.limiter.ClaimLimit(queue)
}

// leastClaimLimit is that of the queues that are consumed.
func (w *Worker) leastClaimLimit(l *link) (least time.Duration) {
	for _, q := range w.consumed() {
		if d := l.claimLimit(q.Name); d > 0 && (least == 0 || d < least) {
			least = d
		}
	}
	return least
}

// watchClaims warns, once each, of messages that are claimed for nearly as long as
// the broker lets them. The alarms call it again and again.
func (w *Worker) watchClaims() {
	w.mu.Lock()
	l := w.link
	w.mu.Unlock()
	every := time.Minute
	if least := w.leastClaimLimit(l); least > 0 {
		every = min(every, max(least/20, 10*time.Millisecond))
	}
	now := time.Now()
	for _, j := range w.snapshot() {
		limit, age := j.link.claimLimit(j.d.Queue), now.Sub(j.received)
		if limit <= 0 || age < limit*claimLimitPart/100 || j.told || j.settled.Load() {
			continue
		}
		j.told = true
		does := "waits"
		if j.runs() {
			does = "runs"
		}
		w.log.Warn("Task "+j.id()+" "+does+", and its message is claimed since "+age.Round(time.Millisecond).String()+
			": the broker takes it away after "+limit.String()+", and it may run a second time;"+claimLimitMend+", set acks_late to false, or split the task",
			"job", j.id(), "queue", j.d.Queue, "limit", limit)
	}
	w.alarms.add(now.Add(every), w.watchClaims)
}

// warnOfClaimLimit says which tasks may hold their messages for longer than the
// broker lets them, as far as that can be known: a task without a time limit may
// run for ever, and most do not.
func (w *Worker) warnOfClaimLimit(l *link) {
	if l.limiter == nil {
		return
	}
	w.watchClaims()
	limit := w.leastClaimLimit(l)
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
	if len(long) > 0 {
		w.log.Warn("The broker takes messages away that are claimed for longer than "+limit.String()+", and runs of "+some(long)+
			" may last as long: they would run twice;"+claimLimitMend+", lower their time limits, or set acks_late to false", "tasks", long, "limit", limit)
	}
	if !l.features.Park {
		w.log.Warn("The broker takes messages away that are claimed for longer than "+limit.String()+
			": those with a later ETA are held by this worker and are delivered again and again;"+claimLimitMend, "limit", limit)
	}
}
