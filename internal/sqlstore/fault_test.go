//go:build linux

package sqlstore_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/lovage-go/lovage/internal/sqlstore"
)

func TestCorruptFile(t *testing.T) {
	t.Parallel()
	cfg := config(t)
	if err := os.WriteFile(cfg.Path, []byte("this is a text and no database, however long it may be read for one"), 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := sqlstore.Open(t.Context(), cfg)
	says(t, err, cfg.Path, "not an SQLite database", "move it aside")
	if errors.Is(err, sqlstore.ErrUnavailable) {
		t.Error("a file that is no database is called temporary")
	}
}

func TestDamagedFile(t *testing.T) {
	t.Parallel()
	cfg := config(t)
	db := open(t, cfg)
	if err := publish(db, t.Context(), "q", 100, 2000); err != nil {
		t.Fatal(err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(cfg.Path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	junk := make([]byte, 64<<10)
	for i := range junk {
		junk[i] = 0xa5
	}
	if _, err := f.WriteAt(junk, 4096); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	db, err = sqlstore.Open(t.Context(), cfg)
	if err == nil {
		err = publish(db, t.Context(), "q", 1, 10)
		db.Close()
	}
	says(t, err, cfg.Path, "damaged", "move it aside")
}

func TestNewerSchemaIsRefused(t *testing.T) {
	t.Parallel()
	cfg := config(t)
	if err := open(t, cfg).Close(); err != nil {
		t.Fatal(err)
	}
	if err := raw(t, cfg.Path)("UPDATE lovage_schema SET version = 99"); err != nil {
		t.Fatal(err)
	}
	_, err := sqlstore.Open(t.Context(), cfg)
	says(t, err, cfg.Path, "version 99", "update this program")
}

func TestMissingDirectory(t *testing.T) {
	t.Parallel()
	cfg := config(t)
	cfg.Path = filepath.Join(filepath.Dir(cfg.Path), "nowhere", "store.db")
	_, err := sqlstore.Open(t.Context(), cfg)
	says(t, err, filepath.Dir(cfg.Path), "does not exist", "create it")
}

func TestReadOnlyDirectory(t *testing.T) {
	t.Parallel()
	cfg := config(t)
	dir := filepath.Dir(cfg.Path)
	if err := os.Chmod(dir, 0o555); err != nil {
		t.Fatal(err)
	}
	if os.Getuid() == 0 { // root may write anywhere: look at it as nobody
		if err := os.Chmod(filepath.Dir(dir), 0o755); err != nil {
			t.Fatal(err)
		}
		runtime.LockOSThread() // and never unlocked: the thread ends with the test
		if err := unix.Setfsuid(65534); err != nil {
			t.Fatal(err)
		}
	}
	_, err := sqlstore.Open(t.Context(), cfg)
	if os.Getuid() == 0 {
		if err := unix.Setfsuid(0); err != nil {
			t.Fatal(err)
		}
	}
	says(t, err, cfg.Path, "writable")
}

func TestNetworkFileSystems(t *testing.T) {
	t.Parallel()
	for magic, want := range map[uint32]string{0x6969: "NFS", 0xff534d42: "CIFS", 0x65735546: "FUSE", 0xef53: "", 0x01021994: ""} {
		if got := sqlstore.NetworkMagic(magic); got != want {
			t.Errorf("file system %#x is %q, want %q", magic, got, want)
		}
	}
}

func TestFullStore(t *testing.T) {
	t.Parallel()
	cfg := config(t)
	cfg.MaxPages = 200
	db := open(t, cfg)
	var err error
	for n := 0; err == nil && n < 1000; n++ {
		err = publish(db, t.Context(), "q", 10, 1000)
	}
	says(t, err, cfg.Path, "full", "free some space")
	if !errors.Is(err, sqlstore.ErrUnavailable) {
		t.Errorf("a full store is not called temporary: %v", err)
	}
	if _, err := db.Purge(t.Context(), "q"); err != nil {
		t.Fatalf("purge of the full store: %v", err)
	}
	if err := publish(db, t.Context(), "q", 10, 1000); err != nil {
		t.Errorf("with space again: %v", err)
	}
}

func TestFullDisk(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=1m"); err != nil {
		t.Logf("a small disk cannot be mounted here (%v): TestFullStore stands for it", err)
		return
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, 0); err != nil {
			t.Error(err)
		}
	})
	cfg := config(t)
	cfg.Path = filepath.Join(dir, "store.db")
	ballast := filepath.Join(dir, "ballast")
	if err := os.WriteFile(ballast, make([]byte, 600<<10), 0o600); err != nil {
		t.Fatal(err)
	}
	db := open(t, cfg)
	var err error
	confirmed := 0
	for n := 0; err == nil && n < 1000; n++ {
		if err = publish(db, t.Context(), "q", 1, 1000); err == nil {
			confirmed++
		}
	}
	if !errors.Is(err, sqlstore.ErrUnavailable) {
		t.Errorf("a full disk is not called temporary: %v", err)
	}
	says(t, err, cfg.Path, "disk")
	if err := os.Remove(ballast); err != nil {
		t.Fatal(err)
	}
	if err := publish(db, t.Context(), "q", 1, 1000); err != nil {
		t.Errorf("with space again: %v", err)
	}
	if got := ready(t, db, "q"); got != confirmed+1 {
		t.Errorf("%d messages are there, want the %d confirmed", got, confirmed+1)
	}
	if err := db.Close(); err != nil {
		t.Error(err)
	}
}

func TestLockedTooLong(t *testing.T) {
	t.Parallel()
	cfg := config(t)
	cfg.LockTimeout = 100 * time.Millisecond
	db := open(t, cfg)
	exec := raw(t, cfg.Path)
	if err := exec("BEGIN IMMEDIATE"); err != nil {
		t.Fatal(err)
	}
	err := publish(db, t.Context(), "q", 1, 10)
	says(t, err, cfg.Path, "lock", "lock_timeout")
	if !errors.Is(err, sqlstore.ErrUnavailable) {
		t.Errorf("a locked store is not called temporary: %v", err)
	}
	if got := ready(t, db, "q"); got != 0 { // reading goes on
		t.Errorf("%d messages are there, want none", got)
	}
	if err := exec("COMMIT"); err != nil {
		t.Fatal(err)
	}
	if err := publish(db, t.Context(), "q", 1, 10); err != nil {
		t.Errorf("after the lock is gone: %v", err)
	}
}

func TestCallerLeavesALockedStore(t *testing.T) {
	t.Parallel()
	cfg := config(t)
	db := open(t, cfg)
	exec := raw(t, cfg.Path)
	if err := exec("BEGIN IMMEDIATE"); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if err := publish(db, ctx, "q", 1, 10); !errors.Is(err, context.DeadlineExceeded) || errors.Is(err, sqlstore.ErrUnavailable) {
		t.Errorf("got %v, want the context's end, before the lock's", err)
	}
	if err := exec("COMMIT"); err != nil {
		t.Fatal(err)
	}
	if err := publish(db, t.Context(), "q", 1, 10); err != nil {
		t.Fatal(err)
	}
	if got := ready(t, db, "q"); got != 1 {
		t.Errorf("%d messages are there, want 1: the caller that left had no effect", got)
	}
}

func TestReplacedFile(t *testing.T) {
	t.Parallel()
	cfg := config(t)
	db := open(t, cfg)
	if err := publish(db, t.Context(), "q", 1, 10); err != nil {
		t.Fatal(err)
	}
	aside := cfg.Path + ".aside"
	for _, suffix := range []string{"", "-wal", "-shm"} {
		if err := os.Rename(cfg.Path+suffix, aside+suffix); err != nil {
			t.Fatal(err)
		}
	}
	err := publish(db, t.Context(), "q", 1, 10)
	says(t, err, cfg.Path, "deleted or replaced")
	if !errors.Is(err, sqlstore.ErrUnavailable) {
		t.Errorf("a file that is gone is not called temporary: %v", err)
	}
	other := open(t, cfg)                   // somebody makes a new one
	if got := ready(t, db, "q"); got != 0 { // a reader finds it by itself
		t.Errorf("reading from the new file gives %d messages, want none", got)
	}
	if err := publish(db, t.Context(), "q", 2, 10); err != nil {
		t.Fatalf("with a new file: %v", err)
	}
	if got := ready(t, other, "q"); got != 2 {
		t.Errorf("the new file has %d messages, want 2", got)
	}
	if got := ready(t, db, "q"); got != 2 {
		t.Errorf("reading from the new file gives %d messages, want 2", got)
	}
}

func TestManyOpenAFreshFile(t *testing.T) {
	t.Parallel()
	cfg := config(t)
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			db, err := sqlstore.Open(t.Context(), cfg)
			if err != nil {
				t.Error(err)
				return
			}
			if err := publish(db, t.Context(), "q", 5, 10); err != nil {
				t.Error(err)
			}
			if err := db.Close(); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if got := ready(t, open(t, cfg), "q"); got != 40 {
		t.Errorf("%d messages are there, want 40", got)
	}
}

func TestURL(t *testing.T) {
	t.Parallel()
	for url, path := range map[string]string{
		"sqlite:///var/a%20b.db": "/var/a b.db", "sqlite://rel.db": "rel.db", "sqlite:rel.db": "rel.db", "sqlite:rel.db?lease=2&synchronous=normal": "rel.db",
	} {
		cfg, err := sqlstore.ParseURL(url, nil)
		if err != nil || cfg.Path != path {
			t.Errorf("%s names %q, %v, want %q", url, cfg.Path, err, path)
		}
	}
	cfg, err := sqlstore.ParseURL("sqlite:a.db?lease=1.5", map[string]any{"lease": 9, "lock_timeout": "250ms", "visibility_timeout": 3600})
	if err != nil || cfg.Lease != 1500*time.Millisecond || cfg.LockTimeout != 250*time.Millisecond {
		t.Errorf("options give %+v, %v", cfg, err)
	}
	_, err = sqlstore.ParseURL("sqlite:a.db?synchronos=full", nil)
	says(t, err, "synchronos", "synchronous")
	for _, url := range []string{"sqlite:", "sqlite://", "sqlite://:memory:", "sqlite:a.db?synchronous=off"} {
		cfg, err := sqlstore.ParseURL(url, nil)
		if err == nil {
			_, err = sqlstore.Open(t.Context(), cfg)
		}
		if err == nil {
			t.Errorf("%s was opened", url)
		}
	}
}
