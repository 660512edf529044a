package cli

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"

	"github.com/lovage-go/lovage/internal/proc"
)

// holdPidfile writes the process id to a new file. A file of a process that is
// gone is replaced. It returns what removes it.
func holdPidfile(path string) (remove func(), err error) {
	if path == "" {
		return func() {}, nil
	}
	pid := strconv.Itoa(proc.PID()) + "\n"
	remove = func() {
		if held, err := os.ReadFile(path); err == nil && string(held) == pid {
			_ = os.Remove(path)
		}
	}
	if held, err := os.ReadFile(path); err == nil && string(held) == pid {
		return remove, nil // by the program that this one replaced
	}
	for range 2 {
		file, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
		if err == nil {
			_, err = file.WriteString(pid)
			if err = errors.Join(err, file.Close()); err != nil {
				return nil, fmt.Errorf("write the pid file: %w", err)
			}
			return remove, nil
		}
		if !errors.Is(err, os.ErrExist) {
			return nil, fmt.Errorf("make the pid file: %w", err)
		}
		held, err := os.ReadFile(path)
		if err != nil {
			return nil, fmt.Errorf("read the pid file: %w", err)
		}
		if other, err := strconv.Atoi(strings.TrimSpace(string(held))); err == nil && other != proc.PID() && alive(other) {
			return nil, fmt.Errorf("pid file %s is held by process %d, which runs: stop it, or choose another --pidfile", path, other)
		}
		if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
			return nil, fmt.Errorf("remove the stale pid file: %w", err)
		}
	}
	return nil, fmt.Errorf("pid file %s was made by another process just now", path)
}

// alive reports whether a process of this machine has the id and has not ended. Where the system
// cannot tell, as on Windows, a file that was left behind counts as stale.
func alive(pid int) bool {
	if pid <= 0 || proc.Zombie(pid) {
		return false
	}
	p, err := os.FindProcess(pid)
	if err != nil {
		return false
	}
	err = p.Signal(syscall.Signal(0))
	return err == nil || errors.Is(err, os.ErrPermission)
}
