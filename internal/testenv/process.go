package testenv

import (
	"io"
	"os/exec"
	"runtime"
	"strings"
	"time"
)

// process is a child that dies with this process.
type process struct {
	cmd  *exec.Cmd
	out  *strings.Builder // read only after done
	done chan struct{}
}

// startProcess starts cmd from a thread that lives as long as the child: Linux
// sends the death signal when the starting thread ends, not the process.
func startProcess(cmd *exec.Cmd) (*process, error) {
	out := new(strings.Builder)
	p, err := startProcessTo(cmd, out)
	if err == nil {
		p.out = out
	}
	return p, err
}

// startProcessTo starts cmd with its output going to out.
func startProcessTo(cmd *exec.Cmd, out io.Writer) (*process, error) {
	p := &process{cmd: cmd, done: make(chan struct{})}
	cmd.Stdout, cmd.Stderr = out, out
	cmd.SysProcAttr = dieWithParent()
	cmd.WaitDelay = 5 * time.Second // its own children may live on, and hold its output open
	started := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		defer close(p.done)
		err := cmd.Start()
		started <- err
		if err == nil {
			_ = cmd.Wait() // it is killed, or its output tells why it ended
		}
	}()
	if err := <-started; err != nil {
		<-p.done
		return nil, err
	}
	return p, nil
}

func (p *process) kill() {
	_ = p.cmd.Process.Kill() // it may have ended by itself
	<-p.done
}

// output is what the process printed; it waits for its end.
func (p *process) output() string {
	<-p.done
	return p.out.String()
}
