package demo

import (
	"os/exec"
	"syscall"
)

// dieWithParent makes the kernel kill the process when this one dies, and keeps
// it out of the terminal's process group: Ctrl-C is for us to handle.
func dieWithParent(cmd *exec.Cmd) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
}
