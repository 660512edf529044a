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
	known       = "comes again, not run: its result is there"
)

// kind is what a run counts as.
type kind int

const (
	aSuccess  kind = iota
	aFailure       // an error of the task
	aTimeout       // its hard time limit
	aLoss          // it was killed, and fails
	aRetry         //
	anIgnore       // it wants no state
	aReject        //
	aRequeue       //
	aRevoke        //
	aHandBack      // it ended, and shall not count
	aTwin          // its message has come again while it ran, and waited for it
	noEnd          // it did not, or it ended too late
)

// expect is the model: what a run that ends so comes to.
func expect(c cell, p place) outcome {
	k := c.kind(p)
	o := outcome{State: c.state(k), Fate: c.fate(k, p)}
	steps, events := after(k)
	if k == aRevoke && p.pool == "prefork" { // the process dies with the run
		steps = strings.TrimPrefix(steps, "task_postrun ")
	}
	o.Steps = strings.Fields("task_received task_prerun BeforeStart Run " + steps)
	o.Events = strings.Fields("task-received task-started " + events)
	return o
}

// again is how often a message that comes to this fate is received, and how often
// its task runs.
func (o outcome) again() (received, runs int) {
	switch o.Fate {
	case inQueue, redelivered, sentAgain:
		return 2, 2
	case known:
		return 2, 1
	}
	return 1, 1
}

// kind says what the run counts as.
func (c cell) kind(p place) kind {
	switch c.end {
	case success, warm, softStop: // a shutdown that waits changes nothing
		return aSuccess
	case failure, soft: // a soft limit is an error like any other, unless the body heeds it
		return aFailure
	case hard:
		return aTimeout
	case retry:
		return aRetry
	case ignore:
		return anIgnore
	case reject:
		return aReject
	case requeue:
		if !c.late { // its message is gone already, and the task must not vanish
			return aFailure
		}
		return aRequeue
	case terminated:
		return aRevoke
	case lost: // the parent sees it at once
		if c.late && c.again {
			return noEnd
		}
		return aLoss
	case killed: // nobody is left to see it
		return noEnd
	case cut, cutDouble:
		switch { // the server gives back what a lost connection had
		case !c.late || p.broker != "rabbitmq":
			return aSuccess
		case c.end == cutDouble || c.ignore: // nobody can tell that it succeeded
			return noEnd
		}
		return aTwin
	case cold, coldDeaf:
		switch {
		case c.late && c.end == cold:
			return aHandBack
		case c.late:
			return noEnd
		case c.end == cold: // nobody will run it again
			return aFailure
		}
		return aLoss
	}
	panic("no such end: " + string(c.end))
}

// state is what the result store has.
func (c cell) state(k kind) string {
	kept := !c.ignore
	switch k {
	case aFailure, aTimeout, aLoss, aReject: // Celery stores nothing for a reject, and who waits waits for ever
		if kept || c.errors {
			return "FAILURE"
		}
	case aRetry:
		if kept || c.errors {
			return "RETRY"
		}
	case aRevoke:
		return "REVOKED" // a revoke is stored for an id, whatever its task keeps
	case aSuccess, aTwin:
		if kept {
			return "SUCCESS"
		}
	}
	return ""
}

// fate is what becomes of the message.
func (c cell) fate(k kind, p place) string {
	if k == aRetry {
		return sentAgain
	}
	if !c.late { // nothing is left to decide
		return acked
	}
	switch k {
	case aFailure, aLoss:
		if !c.acks {
			return deadLetter
		}
	case aTimeout:
		if !c.acks {
			return inQueue
		}
	case aReject:
		return deadLetter
	case aRequeue:
		return inQueue
	case aTwin:
		return known
	case aHandBack, noEnd:
		if c.end == killed || c.end == lost {
			return redelivered
		}
		return inQueue
	}
	return acked
}

// after is what follows the run: hooks and signals, and events.
func after(k kind) (steps, events string) {
	switch k {
	case aSuccess:
		return "OnSuccess task_success AfterReturn task_postrun", "task-succeeded"
	case aTwin: // for monitors it comes again, and has succeeded
		return "OnSuccess task_success AfterReturn task_postrun", "task-succeeded task-received task-succeeded"
	case aFailure, aTimeout:
		return "OnFailure task_failure AfterReturn task_postrun", "task-failed"
	case aLoss: // who sent task_prerun is dead
		return "OnFailure task_failure AfterReturn", "task-failed"
	case aRetry:
		return "OnRetry task_retry task_postrun", "task-retried"
	case anIgnore, aHandBack:
		return "task_postrun", ""
	case aReject:
		return "task_failure task_postrun", "task-rejected"
	case aRequeue:
		return "task_postrun", "task-rejected"
	case aRevoke:
		return "task_postrun task_revoked", "task-revoked"
	}
	return "", ""
}
