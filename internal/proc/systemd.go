package proc

import (
	"fmt"
	"net"
	"strconv"
	"strings"
	"time"
)

// Systemd is the service manager that started this process. The zero value is
// none: nobody is told.
type Systemd struct {
	// Watchdog is how often the manager wants a sign of life; 0: not at all.
	Watchdog time.Duration
	socket   string
}

// FindSystemd looks for the manager in the environment, NOTIFY_SOCKET and
// WATCHDOG_USEC.
func FindSystemd(getenv func(string) string) (s Systemd) {
	if s.socket = getenv("NOTIFY_SOCKET"); s.socket == "" {
		return s
	}
	if pid := getenv("WATCHDOG_PID"); pid == "" || pid == strconv.Itoa(PID()) {
		if usec, err := strconv.ParseInt(getenv("WATCHDOG_USEC"), 10, 64); err == nil && usec > 0 {
			s.Watchdog = time.Duration(usec) * time.Microsecond
		}
	}
	return s
}

// Present reports whether there is somebody to tell.
func (s Systemd) Present() bool { return s.socket != "" }

// Notify tells the manager assignments such as READY=1.
func (s Systemd) Notify(assignments ...string) error {
	if !s.Present() {
		return nil
	}
	name := s.socket
	if strings.HasPrefix(name, "@") {
		name = "\x00" + name[1:] // of the abstract namespace
	}
	conn, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: name, Net: "unixgram"})
	if err != nil {
		return fmt.Errorf("tell systemd: %w", err)
	}
	defer conn.Close()
	if err := conn.SetWriteDeadline(time.Now().Add(time.Second)); err != nil {
		return fmt.Errorf("tell systemd: %w", err)
	}
	if _, err := conn.Write([]byte(strings.Join(assignments, "\n"))); err != nil {
		return fmt.Errorf("tell systemd: %w", err)
	}
	return nil
}

// Reloading are the assignments of a process that starts itself anew.
func Reloading() []string {
	return []string{"RELOADING=1", "MONOTONIC_USEC=" + strconv.FormatInt(Monotonic().Microseconds(), 10)}
}
