package proc

import (
	"time"

	"golang.org/x/sys/unix"
)

// Monotonic is the clock that Python's time.monotonic reads, the same for all
// processes of this machine.
func Monotonic() time.Duration {
	var t unix.Timespec
	if unix.ClockGettime(unix.CLOCK_MONOTONIC, &t) != nil {
		return time.Since(started)
	}
	return time.Duration(t.Nano())
}
