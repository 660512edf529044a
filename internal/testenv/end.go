package testenv

import (
	"bytes"
	"runtime/pprof"
	"testing"
	"time"
)

// endTime is how long what was told to end may take, and once more when it is
// told by force.
const endTime = patience

// End waits for the end of a worker that was told to stop, and gives its error.
// If its runs go on for a minute it is told again, by force, and the test fails; what
// does not end then is left behind, with the stacks of all goroutines in the log.
func End(t testing.TB, ended <-chan error, force func()) error {
	t.Helper()
	select {
	case err := <-ended:
		return err
	case <-time.After(endTime):
		t.Errorf("the worker has not ended %s after it was told to", endTime)
	}
	force()
	select {
	case err := <-ended:
		return err
	case <-time.After(endTime):
		var stacks bytes.Buffer
		_ = pprof.Lookup("goroutine").WriteTo(&stacks, 1)
		t.Errorf("nor %s after it was told by force:\n%s", endTime, &stacks)
		return nil
	}
}
