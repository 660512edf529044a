package prefork

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"time"

	"github.com/lovage-go/lovage/internal/proc"
)

// image is this program as it runs, also when its file was replaced since.
const image = "/proc/self/exe"

// fromParent and toParent are the descriptors by which a child hears its parent
// and speaks to it.
const (
	fromParent = 3
	toParent   = 4
)

// nursery starts children, all from one thread that lives as long as the pool:
// the kernel kills a child when the thread that started it ends
// (PR_SET_PDEATHSIG), and the Go runtime may end any other one.
type nursery struct {
	orders chan func()
	ended  chan struct{}
}

func newNursery() *nursery {
	n := &nursery{orders: make(chan func()), ended: make(chan struct{})}
	go func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		defer close(n.ended)
		for f := range n.orders {
			f()
		}
	}()
	return n
}

// close ends the nursery. No child may be left.
func (n *nursery) close() {
	close(n.orders)
	<-n.ended
}

// start starts a child and returns its process, the wire to it, and the read
// end of its output.
func (n *nursery) start(env []string) (cmd *exec.Cmd, conn stream, output *os.File, err error) {
	var ours, theirs [3]*os.File // what the child hears, says, and prints
	for i := range ours {
		r, w, err := os.Pipe()
		if err != nil {
			closeAll(ours[:i]...)
			closeAll(theirs[:i]...)
			return nil, nil, nil, fmt.Errorf("make a pipe: %w", err)
		}
		if ours[i], theirs[i] = r, w; i == 0 {
			ours[i], theirs[i] = w, r
		}
	}
	defer closeAll(theirs[:]...)
	cmd = &exec.Cmd{
		Path: image, Args: os.Args,
		Env:    append(append(proc.Environ(), env...), fmt.Sprintf("%s=%d", proc.ChildKey, Protocol)),
		Stdout: theirs[2], Stderr: theirs[2], ExtraFiles: theirs[:2], // which block from now on, as programs expect
		// A group of its own: an interrupt at the terminal is for the parent.
		SysProcAttr: &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true},
	}
	started := make(chan error, 1)
	n.orders <- func() { started <- cmd.Start() }
	if err := <-started; err != nil {
		closeAll(ours[:]...)
		return nil, nil, nil, fmt.Errorf("start %s: %w", filepath.Base(os.Args[0]), err)
	}
	return cmd, pipes{in: ours[1], out: ours[0]}, ours[2], nil
}

func closeAll(files ...*os.File) {
	for _, f := range files {
		f.Close()
	}
}

// pipes are one end of the connection of parent and child. Two of them cost less
// than a pair of sockets.
type pipes struct{ in, out *os.File }

func (p pipes) Read(b []byte) (int, error)         { return p.in.Read(b) }
func (p pipes) Write(b []byte) (int, error)        { return p.out.Write(b) }
func (p pipes) SetWriteDeadline(t time.Time) error { return p.out.SetWriteDeadline(t) }
func (p pipes) Close() error                       { return errors.Join(p.in.Close(), p.out.Close()) }

// replaced is the path of this program's file, if it is not the image that runs.
func replaced() string {
	path, err := os.Readlink(image)
	if err != nil {
		return ""
	}
	was, gone := strings.CutSuffix(path, " (deleted)")
	if !gone {
		return ""
	}
	if _, err := os.Stat(was); err != nil { // deleted, and nothing in its place
		return ""
	}
	return was
}

// attach is the child's end of the wire. It blocks a thread when read, which
// wakes a child that has nothing else to do at half the price of the poller.
func attach() (stream, error) {
	for _, fd := range []int{fromParent, toParent} {
		var st syscall.Stat_t
		if err := syscall.Fstat(fd, &st); err != nil || st.Mode&syscall.S_IFMT != syscall.S_IFIFO {
			return nil, fmt.Errorf("descriptor %d is no connection to a parent", fd)
		}
		syscall.CloseOnExec(fd) // programs that a task starts must not keep it open
	}
	return pipes{in: os.NewFile(fromParent, "parent"), out: os.NewFile(toParent, "parent")}, nil
}

// signalOf is a signal by its name, with or without SIG.
var signals = map[string]syscall.Signal{
	"HUP": syscall.SIGHUP, "INT": syscall.SIGINT, "QUIT": syscall.SIGQUIT, "ILL": syscall.SIGILL, "TRAP": syscall.SIGTRAP,
	"ABRT": syscall.SIGABRT, "BUS": syscall.SIGBUS, "FPE": syscall.SIGFPE, "KILL": syscall.SIGKILL, "USR1": syscall.SIGUSR1,
	"SEGV": syscall.SIGSEGV, "USR2": syscall.SIGUSR2, "PIPE": syscall.SIGPIPE, "ALRM": syscall.SIGALRM, "TERM": syscall.SIGTERM,
	"XCPU": syscall.SIGXCPU, "XFSZ": syscall.SIGXFSZ, "VTALRM": syscall.SIGVTALRM, "SYS": syscall.SIGSYS,
}

// status is how a process ended, in Celery's words.
func status(s *os.ProcessState) string {
	w, ok := s.Sys().(syscall.WaitStatus)
	if ok && w.Signaled() {
		name := ""
		for n, sig := range signals {
			if sig == w.Signal() {
				name = " (SIG" + n + ")"
			}
		}
		return fmt.Sprintf("signal %d%s", int(w.Signal()), name)
	}
	return fmt.Sprintf("exitcode %d", s.ExitCode())
}

func raise(sig int) { _ = syscall.Kill(proc.PID(), syscall.Signal(sig)) }

// readNow reads what a non-blocking file has; end says that nothing will come.
func readNow(fd int, b []byte) (n int, end bool) {
	for {
		n, err := syscall.Read(fd, b)
		switch err {
		case syscall.EINTR:
		case nil:
			return n, n == 0
		case syscall.EAGAIN:
			return 0, false
		default:
			return 0, true
		}
	}
}
