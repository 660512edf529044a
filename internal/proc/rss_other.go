//go:build !linux

package proc

import "runtime"

// RSS returns, where the system does not tell the resident memory, what the Go
// runtime has obtained from it, in KiB.
func RSS() int {
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int(m.Sys / 1024)
}

// RSSOf returns the resident memory of another process in KiB, 0 if it is not
// known, as on these systems.
func RSSOf(int) int { return 0 }

// Shed does nothing on these systems.
func Shed() {}
