//go:build unix

package proc

import "syscall"

func execute(file string, args, environ []string) error { return syscall.Exec(file, args, environ) }
