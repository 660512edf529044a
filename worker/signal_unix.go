//go:build unix

package worker

import (
	"os"
	"syscall"
)

// inquiries are the signals that ask for the state of the worker.
var inquiries = []os.Signal{syscall.SIGUSR1}

func isInquiry(s os.Signal) bool { return s == syscall.SIGUSR1 }
