//go:build !unix

package cli

import (
	"os"
	"syscall"
)

func detached() *syscall.SysProcAttr { return nil }

func signalOf(text string) (os.Signal, bool) {
	if text == "9" || text == "KILL" || text == "SIGKILL" {
		return os.Kill, true
	}
	return nil, false
}

func signalText(s os.Signal) string { return s.String() }
