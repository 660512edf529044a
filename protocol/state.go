package protocol

// State is the state of a task as Celery names it. Any other string is a
// custom state, which counts as unready.
type State string

// The states that Celery knows. Pending is also the state of an unknown id.
const (
	Pending  State = "PENDING"
	Received State = "RECEIVED"
	Started  State = "STARTED"
	Success  State = "SUCCESS"
	Failure  State = "FAILURE"
	Revoked  State = "REVOKED"
	Rejected State = "REJECTED"
	Retry    State = "RETRY"
	Ignored  State = "IGNORED"
	Aborted  State = "ABORTED" // a client's wish that the run end: contrib.abortable
)

// Ready reports whether the task has ended: SUCCESS, FAILURE or REVOKED.
func (s State) Ready() bool { return s == Success || s == Failure || s == Revoked }

// Yields reports whether a result store lets the state give way to another one.
// SUCCESS yields to itself alone, as in Celery. ABORTED yields to what ends the
// task and not to what a run reports on its way, and does not take the place of
// what has ended: Celery lets the last writer win, and so loses wishes.
func (s State) Yields(to State) bool {
	switch {
	case s == Success:
		return to == Success
	case s == Aborted:
		return to == Aborted || to.Ready()
	}
	return to != Aborted || !s.Ready()
}

// Exception reports whether the result is an error: RETRY, FAILURE or REVOKED.
func (s State) Exception() bool { return s == Retry || s == Failure || s == Revoked }

// Propagate reports whether a waiting client gets the error: FAILURE or REVOKED.
func (s State) Propagate() bool { return s == Failure || s == Revoked }
