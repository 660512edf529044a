package protocol_test

import (
	"testing"

	"github.com/lovage-go/lovage/protocol"
)

// TestStateSets compares with READY_STATES, EXCEPTION_STATES and
// PROPAGATE_STATES of celery.states.
func TestStateSets(t *testing.T) {
	t.Parallel()
	type sets struct{ ready, exception, propagate bool }
	for state, want := range map[protocol.State]sets{
		"PENDING": {}, "RECEIVED": {}, "STARTED": {}, "PROGRESS": {},
		"REJECTED": {}, "IGNORED": {},
		"SUCCESS": {ready: true},
		"FAILURE": {true, true, true},
		"REVOKED": {true, true, true},
		"RETRY":   {exception: true},
	} {
		if got := (sets{state.Ready(), state.Exception(), state.Propagate()}); got != want {
			t.Errorf("%s: got %+v, want %+v", state, got, want)
		}
	}
}
