//go:build !linux

package proc

import "time"

// Monotonic is, where the system's clock is not read, the age of this process.
func Monotonic() time.Duration { return time.Since(started) }
