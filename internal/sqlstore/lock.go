package sqlstore

import (
	"crypto/rand"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"
)

const lockSuffix = ".lock"

// lockFile is held by a process for as long as it has the store open. The
// kernel releases it when the process ends, however it ends.
type lockFile struct {
	name string // base name, as in lovage_worker.lock
	f    *os.File
}

func newLockFile(dir string) (*lockFile, error) {
	l := &lockFile{name: rand.Text() + lockSuffix}
	f, err := createLock(filepath.Join(dir, l.name))
	if err != nil {
		return nil, err
	}
	l.f = f
	return l, nil
}

func createLock(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o666)
	if err != nil {
		return nil, fmt.Errorf("its lock file: %w: make %s writable", err, filepath.Dir(path))
	}
	if err := flock(f); err != nil {
		f.Close()
		os.Remove(path)
		return nil, fmt.Errorf("lock %s: %w: its file system has no locks, put the database on a local disk", path, err)
	}
	return f, nil
}

// ensure makes the file anew if somebody has deleted it, which looks to others
// like the death of this process. Only the committer calls it.
func (l *lockFile) ensure() error {
	path := l.f.Name()
	held, err := l.f.Stat()
	if err != nil {
		return err
	}
	if there, err := os.Stat(path); err == nil && os.SameFile(held, there) {
		return nil
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o777); err != nil {
		return err
	}
	f, err := createLock(path)
	if err != nil {
		return err
	}
	old := l.f
	l.f = f
	return old.Close()
}

func (l *lockFile) close() error {
	os.Remove(l.f.Name()) // best effort: a sweep removes what is left
	return l.f.Close()
}

// holderGone reports that nobody holds the lock file: its process has ended.
// The file is removed then.
func holderGone(path string) bool {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return os.IsNotExist(err)
	}
	defer f.Close()
	if !canLock || flock(f) != nil {
		return false
	}
	os.Remove(path)
	return true
}

// sweepLocks removes the lock files of processes that died. Young files are
// left alone: their owner may be between creating and locking.
func sweepLocks(dir string) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return
	}
	for _, e := range entries {
		if !strings.HasSuffix(e.Name(), lockSuffix) {
			continue
		}
		if info, err := e.Info(); err == nil && time.Since(info.ModTime()) > time.Minute {
			holderGone(filepath.Join(dir, e.Name()))
		}
	}
}
