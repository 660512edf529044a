//go:build unix && !aix && !solaris

package term

import (
	"os"

	"golang.org/x/sys/unix"
)

// size is the width of the terminal behind f; ok is false if f is none.
func size(f *os.File) (width int, ok bool) {
	raw, err := f.SyscallConn()
	if err != nil {
		return 0, false
	}
	err = raw.Control(func(fd uintptr) {
		if ws, err := unix.IoctlGetWinsize(int(fd), unix.TIOCGWINSZ); err == nil {
			width, ok = int(ws.Col), true
		}
	})
	return width, ok && err == nil
}
