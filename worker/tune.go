package worker

import (
	"os"
	"runtime/debug"
)

// TuneProcess gives the garbage collector more room, for a process that is a
// worker and little else: half as much again as Go's default (GOGC=150), which
// costs some 5 MiB and spares a tenth of the CPU of small tasks. It changes
// nothing where GOGC or GOMEMLIMIT say what is wanted. The worker command calls
// it; a program that calls Run itself may.
func TuneProcess() {
	if os.Getenv("GOGC") == "" && os.Getenv("GOMEMLIMIT") == "" {
		debug.SetGCPercent(150)
	}
}
