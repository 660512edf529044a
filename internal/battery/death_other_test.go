//go:build !linux

package battery_test

import "syscall"

func deathSignal() *syscall.SysProcAttr { return nil }

func starve() { select {} }
