package matrix_test

import "strings"

// outcome is what a cell comes to, or came to.
type outcome struct {
	State  string   // in the result store, when the run is over and no other has begun; "" is none
	Fate   string   // of the message
	Steps  []string // hooks and signals, in order
	Events []string // of the task, in order, as monitors see them
}

// The fates of a message.
const (
	acked       = "acked"
	deadLetter  = "dead letter"
	inQueue     = "back in its queue"
	redelivered = "redelivered, a loss counted"
	sentAgain   = "acked, sent again"
)

// expect is the model: what a run that ends so comes to.
func expect(c cell, p place) outcome {
	o := outcome{Fate: acked, Steps: words("task_received task_prerun BeforeStart Run"), Events: words("task-received task-started")}
	kept := !c.ignore              // the results of the task
	keptErrors := kept || c.errors // and its errors
	killed := p.pool == "prefork"  // what is ended by force; a goroutine is left to itself
	e := c.end
	switch e {
	case warm, softStop: // it may end by itself
		e = success
	case coldDeaf:
		e = cold
	}

	// What the run comes to.
	ends := e
	switch {
	case e == requeue && !c.late: // its message is gone: it must not vanish
		ends = failure
	case e == soft: // an error like any other, unless the body heeds it
		ends = failure
	case e == cold && !c.late: // nobody will run it again
		ends = failure
	case e == lost && (!c.late || !c.again):
		ends = failure
	}
	store := func(state string, keep bool) {
		if keep {
			o.State = state
		}
	}
	then := func(steps, event string) {
		o.Steps = append(o.Steps, words(steps)...)
		if event != "" {
			o.Events = append(o.Events, event)
		}
	}
	switch ends {
	case success, cut:
		store("SUCCESS", kept)
		then("OnSuccess task_success AfterReturn task_postrun", "task-succeeded")
	case failure, hard:
		store("FAILURE", keptErrors)
		then("OnFailure task_failure AfterReturn", "task-failed")
		if e != lost && c.end != coldDeaf { // a run that is given up sends no task_postrun
			then("task_postrun", "")
		}
	case retry:
		store("RETRY", keptErrors)
		then("OnRetry task_retry task_postrun", "task-retried")
	case ignore:
		then("task_postrun", "")
	case reject: // Celery stores nothing, and who waits waits for ever
		store("FAILURE", keptErrors)
		then("task_failure task_postrun", "task-rejected")
	case requeue:
		then("task_postrun", "task-rejected")
	case terminated:
		o.State = "REVOKED" // also by the revoke itself, which knows no settings
		if !killed {
			then("task_postrun", "")
		}
		then("task_revoked", "task-revoked")
	case cold: // handed back, as if it had not been started
		if c.end == cold {
			then("task_postrun", "")
		}
	}

	// What becomes of the message. An early ack leaves nothing to decide.
	switch {
	case e == retry:
		o.Fate = sentAgain
	case !c.late:
	case e == hard && !c.acks, e == requeue, e == cold:
		o.Fate = inQueue
	case e == lost && c.again:
		o.Fate = redelivered
	case ends == failure && !c.acks, e == reject:
		o.Fate = deadLetter
	}
	return o
}

func words(s string) []string { return strings.Fields(s) }
