package battery_test

import "syscall"

// deathSignal takes the fleet down with the test.
func deathSignal() *syscall.SysProcAttr { return &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL} }
