//go:build !linux

package prefork

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"syscall"
)

var errSystem = errors.New("the prefork pool needs Linux: use the goroutine pool on this system")

type nursery struct{}

func newNursery() *nursery { return &nursery{} }
func (*nursery) close()    {}

func (*nursery) start([]string) (*exec.Cmd, stream, *os.File, error) {
	return nil, nil, nil, errSystem
}

func replaced() string { return "" }

func attach() (stream, error) { return nil, errSystem }

var signals = map[string]syscall.Signal{"KILL": syscall.SIGKILL, "TERM": syscall.SIGTERM}

func status(s *os.ProcessState) string { return fmt.Sprintf("exitcode %d", s.ExitCode()) }

func raise(int) {}

func readNow(int, []byte) (int, bool) { return 0, true }
