//go:build unix && !solaris && !aix

package sqlstore

import (
	"os"

	"golang.org/x/sys/unix"
)

const canLock = true

// flock takes the exclusive lock or fails at once.
func flock(f *os.File) error { return unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB) }
