package sqlstore

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// ringer rings in other processes: it writes one byte to a file they watch.
type ringer struct{ f *os.File }

func newRinger(path string) (*ringer, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o666)
	if err != nil {
		return nil, fmt.Errorf("its bell: %w: make %s writable", err, path)
	}
	return &ringer{f: f}, nil
}

// ring may fail without harm (a full disk): the safety poll finds the news.
func (r *ringer) ring() { _, _ = r.f.WriteAt([]byte{'.'}, 0) }

func (r *ringer) close() error { return r.f.Close() }

// remoteBell watches a bell's file through inotify.
type remoteBell struct {
	f    *os.File // nil where there is no inotify to be had: the safety poll serves
	gate *gate
	done chan struct{}
}

func startRemoteBell(c *core, b *bell) *remoteBell {
	r := &remoteBell{gate: newGate(), done: make(chan struct{})}
	fd, err := unix.InotifyInit1(unix.IN_NONBLOCK | unix.IN_CLOEXEC)
	if err == nil {
		if _, err = unix.InotifyAddWatch(fd, b.path, unix.IN_MODIFY); err != nil {
			unix.Close(fd)
		}
	}
	if err != nil {
		c.cfg.Logger.Warn("no inotify: news of other processes is looked for every 250 ms", "file", b.path, "reason", err)
		close(r.done)
		return r
	}
	r.f = os.NewFile(uintptr(fd), "inotify "+b.path)
	go r.run(b)
	return r
}

func (r *remoteBell) run(b *bell) {
	defer close(r.done)
	buf := make([]byte, 4096)
	for r.gate.pass() {
		if _, err := r.f.Read(buf); err != nil {
			return
		}
		b.ringHere()
	}
}

func (r *remoteBell) wanted(on bool) { r.gate.set(on) }

func (r *remoteBell) close() error {
	r.gate.end()
	var err error
	if r.f != nil {
		err = r.f.Close()
	}
	<-r.done
	return err
}
