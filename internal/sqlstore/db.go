package sqlstore

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"
)

// DB is one opener's hold on a store. All openers of one file in a process share
// one core: one writing connection, one committer, one lock file. A DB is safe
// for concurrent use.
type DB struct {
	*core
	once sync.Once
	err  error
}

// shared lists the open stores of this process by path. It is the one package
// variable here that changes: two openers of a file in one process must find
// each other, as a broker and a result backend do whose finishes are to be one
// transaction.
var shared = struct {
	sync.Mutex
	m map[string]*core
}{m: map[string]*core{}}

// Open opens or creates the store and brings its schema up to date. A file that
// this process has open is shared, with the settings of its first opener.
func Open(ctx context.Context, cfg Config) (*DB, error) {
	if err := cfg.fill(); err != nil {
		return nil, err
	}
	if err := ctx.Err(); err != nil {
		return nil, context.Cause(ctx)
	}
	if cfg.Private {
		c, err := newCore(cfg)
		if err != nil {
			return nil, err
		}
		return &DB{core: c}, nil
	}
	shared.Lock()
	defer shared.Unlock()
	if c := shared.m[cfg.Path]; c != nil {
		c.users++
		return &DB{core: c}, nil
	}
	c, err := newCore(cfg)
	if err != nil {
		return nil, err
	}
	shared.m[cfg.Path] = c
	return &DB{core: c}, nil
}

// Close gives up this hold; the last one closes the file. Later calls give what
// the first gave.
func (db *DB) Close() error {
	db.once.Do(func() {
		if !db.cfg.Private {
			shared.Lock()
			defer shared.Unlock()
			if db.users--; db.users > 0 {
				return
			}
			delete(shared.m, db.cfg.Path)
		}
		db.err = db.core.close()
	})
	return db.err
}

// core is the one open store of a file in this process.
type core struct {
	cfg   Config
	users int // guarded by shared

	bells *bells
	boot  string
	lock  *lockFile
	ops   chan *op
	quit  chan struct{}
	done  chan struct{} // closed when the committer has returned

	syncs    chan []*op    // to the syncing goroutine; nil: nobody waits for the disk
	synced   chan struct{} // closed when that has returned
	syncing  atomic.Int64  // transactions that wait for the disk
	syncDone chan struct{} // a token after each sync

	stateMu sync.RWMutex // guards closed against the start of operations
	closed  bool
	pending sync.WaitGroup

	// written by the committer only
	writer *conn
	tx     Tx
	routed []int64 // scratch of Tx.route

	expireNext  int64        // µs, the committer's: when to delete what has expired
	lookedAfter atomic.Int64 // ns: when the workers were last looked at

	fileMu  sync.Mutex
	file    os.FileInfo // the file that the connections have open
	fileGen atomic.Int64
	looked  atomic.Int64 // when readers last compared, in nanoseconds

	logMu sync.Mutex // held while the log is brought to the disk
	log   *os.File   // the write-ahead log of file; nil while there is no writer

	readers chan *reader
}

// reader is a reading connection and the file generation that it belongs to.
type reader struct {
	c   *conn
	gen int64
}

const numReaders = 3

func newCore(cfg Config) (*core, error) {
	if reason := networkFS(filepath.Dir(cfg.Path)); reason != "" {
		return nil, fmt.Errorf("sqlite %s: its directory is on a network file system (%s), where SQLite's locks and shared memory do not hold: put the file on a local disk, or use a broker with a server", cfg.Path, reason)
	}
	c := &core{
		cfg:     cfg,
		users:   1,
		ops:     make(chan *op, maxBatch),
		boot:    bootID(),
		quit:    make(chan struct{}),
		done:    make(chan struct{}),
		readers: make(chan *reader, numReaders),
	}
	if err := c.openWriter(); err != nil {
		return nil, err
	}
	dir := sideDir(cfg.Path)
	if err := os.MkdirAll(dir, 0o777); err != nil {
		return nil, errors.Join(fmt.Errorf("sqlite %s: the directory for its lock files: %w: make %s writable", cfg.Path, err, filepath.Dir(cfg.Path)), c.closeWriter())
	}
	sweepLocks(dir)
	lock, err := newLockFile(dir)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("sqlite %s: %w", cfg.Path, err), c.closeWriter())
	}
	c.lock = lock
	if c.bells, err = newBells(c, dir); err != nil {
		return nil, errors.Join(fmt.Errorf("sqlite %s: %w", cfg.Path, err), lock.close(), c.closeWriter())
	}
	for range numReaders {
		c.readers <- &reader{}
	}
	if cfg.Synchronous == "full" {
		c.syncs, c.synced, c.syncDone = make(chan []*op, 4), make(chan struct{}), make(chan struct{}, 1)
		go c.sync()
	}
	go c.run()
	return c, nil
}

// sideDir holds the lock files and bells of a store.
func sideDir(path string) string { return path + "-lovage" }

// Path is the file's absolute name.
func (c *core) Path() string { return c.cfg.Path }

// StoreID names the store to drivers that may share it.
func (c *core) StoreID() string { return "sqlite:" + c.cfg.Path }

// openWriter opens the writing connection, makes the file ours and remembers
// which file it is.
func (c *core) openWriter() error {
	w, err := dial(c.cfg.Path, sqliteDialect)
	if err != nil {
		return err
	}
	err = c.patiently(func() error {
		if err := w.script("PRAGMA busy_timeout = 0"); err != nil {
			return err
		}
		mode, err := w.ask("PRAGMA journal_mode = WAL")
		if err != nil {
			return err
		}
		if text(mode) != "wal" {
			return fmt.Errorf("sqlite %s: journal mode is %q and cannot be WAL here: put the file on a local disk", c.cfg.Path, text(mode))
		}
		pragmas := "PRAGMA foreign_keys = OFF; PRAGMA temp_store = MEMORY; PRAGMA cache_size = -8000;" +
			"PRAGMA wal_autocheckpoint = 2000; PRAGMA journal_size_limit = 67108864; PRAGMA synchronous = NORMAL" // see sync
		if c.cfg.MaxPages > 0 {
			pragmas += fmt.Sprintf("; PRAGMA max_page_count = %d", c.cfg.MaxPages)
		}
		if err := w.script(pragmas); err != nil {
			return err
		}
		return migrate(w)
	})
	if err != nil {
		return errors.Join(err, w.close())
	}
	info, err := os.Stat(c.cfg.Path)
	if err != nil {
		return errors.Join(fmt.Errorf("sqlite %s: %w", c.cfg.Path, err), w.close())
	}
	log, err := os.OpenFile(c.cfg.Path+"-wal", os.O_RDWR, 0)
	if err != nil {
		return errors.Join(fmt.Errorf("sqlite %s: its log: %w", c.cfg.Path, err), w.close())
	}
	c.fileMu.Lock()
	c.file = info
	c.fileMu.Unlock()
	c.logMu.Lock()
	c.log = log
	c.logMu.Unlock()
	c.fileGen.Add(1)
	c.writer = w
	c.tx = Tx{conn: w, core: c, queues: map[string]int64{}}
	return nil
}

func (c *core) closeWriter() error {
	if c.writer == nil {
		return nil
	}
	c.logMu.Lock()
	defer c.logMu.Unlock()
	err := errors.Join(c.log.Close(), c.writer.close())
	c.writer, c.log = nil, nil
	return err
}

// patiently repeats do while the file is locked, up to the lock timeout.
func (c *core) patiently(do func() error) error {
	wait := newBackoff()
	for deadline := time.Now().Add(c.cfg.LockTimeout); ; {
		err := do()
		if err == nil || !isBusy(err) || time.Now().After(deadline) {
			return err
		}
		nap(wait.next())
	}
}

// moved reports that the path no longer names the file that is open.
func (c *core) moved() bool {
	info, err := os.Stat(c.cfg.Path)
	c.fileMu.Lock()
	defer c.fileMu.Unlock()
	return err != nil || !os.SameFile(info, c.file)
}

func (c *core) errMoved() error {
	return fmt.Errorf("sqlite %s: the file was deleted or replaced while it was open: put it back, or let a new one be made by any command that opens it: %w", c.cfg.Path, ErrUnavailable)
}

func (c *core) start() error {
	c.stateMu.RLock()
	defer c.stateMu.RUnlock()
	if c.closed {
		return ErrClosed
	}
	c.pending.Add(1)
	return nil
}

// View runs fn on a reading connection. Each of its statements sees the last
// commit before it. fn may be run again after a failed try.
func (c *core) View(ctx context.Context, fn func(*Tx) error) error {
	if err := c.start(); err != nil {
		return err
	}
	defer c.pending.Done()
	var r *reader
	select {
	case r = <-c.readers:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	defer func() { c.readers <- r }()
	if err := c.fresh(ctx, r); err != nil {
		return err
	}
	// A reader meets a lock only while the log is being recovered or removed.
	return c.patiently(func() error {
		return fn(&Tx{conn: r.c, core: c, now: micros(time.Now())})
	})
}

// Snapshot is View with all statements of fn seeing one state of the store.
func (c *core) Snapshot(ctx context.Context, fn func(*Tx) error) error {
	return c.View(ctx, func(tx *Tx) error {
		if err := tx.script("BEGIN"); err != nil {
			return err
		}
		err := fn(tx)
		if end := tx.script("ROLLBACK"); err == nil {
			err = end
		}
		return err
	})
}

// fresh makes a reader's connection one to the file that is there now.
func (c *core) fresh(ctx context.Context, r *reader) error {
	last, now := c.looked.Load(), time.Now().UnixNano()
	if (now-last > int64(50*time.Millisecond) || now < last) && c.looked.CompareAndSwap(last, now) && c.moved() {
		c.looked.Store(0) // whoever reads next looks again
		if c.missing() {
			return c.errMoved()
		}
		// The committer opens the file that has taken the old one's place.
		if err := c.UpdateLazily(ctx, func(*Tx) error { return nil }); err != nil {
			return err
		}
	}
	gen := c.fileGen.Load()
	if r.c != nil && r.gen == gen {
		return nil
	}
	if r.c != nil {
		r.c.close()
		r.c = nil
	}
	conn, err := dial(c.cfg.Path, sqliteDialect)
	if err != nil {
		return err
	}
	err = conn.script("PRAGMA busy_timeout = 0; PRAGMA query_only = ON; PRAGMA temp_store = MEMORY; PRAGMA cache_size = -1000")
	if err != nil {
		return errors.Join(err, conn.close())
	}
	r.c, r.gen = conn, gen
	return nil
}

func (c *core) close() error {
	c.stateMu.Lock()
	abandoned := c.closed
	c.closed = true
	c.stateMu.Unlock()
	if abandoned {
		return nil
	}
	c.bells.wakeAll()
	c.pending.Wait()
	return errors.Join(c.stop(), c.lock.close())
}

// stop ends the committer and closes the connections; nothing is under way.
func (c *core) stop() error {
	close(c.quit)
	<-c.done
	errs := []error{c.bells.close()}
	for range numReaders {
		if r := <-c.readers; r.c != nil {
			errs = append(errs, r.c.close())
		}
	}
	errs = append(errs, c.closeWriter())
	return errors.Join(errs...)
}

func micros(t time.Time) int64 { return t.UnixMicro() }

func (c *core) missing() bool {
	_, err := os.Stat(c.cfg.Path)
	return err != nil
}
