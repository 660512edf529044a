package prefork

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"

	"github.com/lovage-go/lovage/internal/proc"
)

// image is this program as it runs, also when its file was replaced since.
const image = "/proc/self/exe"

// socket is the descriptor by which a child reaches its parent.
const socket = 3

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
func (n *nursery) start(env []string) (cmd *exec.Cmd, conn net.Conn, output *os.File, err error) {
	fds, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, nil, fmt.Errorf("make a socket pair: %w", err)
	}
	theirs := os.NewFile(uintptr(fds[1]), "child")
	defer theirs.Close()
	ours := os.NewFile(uintptr(fds[0]), "parent")
	conn, err = net.FileConn(ours)
	ours.Close()
	if err != nil {
		return nil, nil, nil, fmt.Errorf("make a socket pair: %w", err)
	}
	var pipe [2]int
	if err := syscall.Pipe2(pipe[:], syscall.O_CLOEXEC); err != nil {
		conn.Close()
		return nil, nil, nil, fmt.Errorf("make a pipe: %w", err)
	}
	_ = syscall.SetNonblock(pipe[0], true) // ours; the child's end blocks, as programs expect
	output, input := os.NewFile(uintptr(pipe[0]), "output"), os.NewFile(uintptr(pipe[1]), "output")
	defer input.Close()

	cmd = &exec.Cmd{
		Path: image, Args: os.Args,
		Env:    append(append(proc.Environ(), env...), fmt.Sprintf("%s=%d:%d", proc.ChildKey, socket, Protocol)),
		Stdout: input, Stderr: input, ExtraFiles: []*os.File{theirs},
		// A group of its own: an interrupt at the terminal is for the parent.
		SysProcAttr: &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true},
	}
	started := make(chan error, 1)
	n.orders <- func() { started <- cmd.Start() }
	if err := <-started; err != nil {
		conn.Close()
		output.Close()
		return nil, nil, nil, fmt.Errorf("start %s: %w", filepath.Base(os.Args[0]), err)
	}
	return cmd, conn, output, nil
}

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
func attach(fd int) (stream, error) {
	if domain, err := syscall.GetsockoptInt(fd, syscall.SOL_SOCKET, syscall.SO_DOMAIN); err != nil || domain != syscall.AF_UNIX {
		return nil, fmt.Errorf("descriptor %d is no connection to a parent", fd)
	}
	syscall.CloseOnExec(fd) // programs that a task starts must not keep it open
	return os.NewFile(uintptr(fd), "parent"), nil
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
