package endtoend_test

import (
	"fmt"
	"os"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// becomeNobody gives up root, to whom no directory is read-only.
func becomeNobody() error {
	if os.Getuid() != 0 {
		return nil
	}
	const nobody = 65534
	for _, step := range []func() error{
		func() error { return syscall.Setgroups(nil) },
		func() error { return syscall.Setgid(nobody) },
		func() error { return syscall.Setuid(nobody) },
	} {
		if err := step(); err != nil {
			return fmt.Errorf("become nobody: %w", err)
		}
	}
	return nil
}

// smallDisk mounts a file system of four MiB, if this process may.
func smallDisk(t *testing.T) (dir string, err error) {
	dir = t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=4m"); err != nil {
		return "", err
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, 0); err != nil {
			t.Error(err)
		}
	})
	return dir, nil
}
