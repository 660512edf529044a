package sqlstore_test

import (
	"context"
	"database/sql/driver"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"modernc.org/sqlite"

	"github.com/lovage-go/lovage/internal/sqlstore"
)

// TestMain sees that no store leaves a goroutine behind.
func TestMain(m *testing.M) {
	code := m.Run()
	stacks := make([]byte, 1<<20)
	stacks = stacks[:runtime.Stack(stacks, true)]
	if strings.Contains(string(stacks), "sqlstore.(*") {
		fmt.Printf("goroutines are left:\n%s\n", stacks)
		code = 1
	}
	os.Exit(code)
}

func config(t testing.TB) sqlstore.Config {
	return sqlstore.Config{Path: filepath.Join(t.TempDir(), "store.db"), Private: true, Logger: slog.New(slog.DiscardHandler)}
}

func open(t testing.TB, cfg sqlstore.Config) *sqlstore.DB {
	t.Helper()
	db, err := sqlstore.Open(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := db.Close(); err != nil {
			t.Error(err)
		}
	})
	return db
}

func publish(db *sqlstore.DB, ctx context.Context, queue string, n int, size int) error {
	return db.Update(ctx, func(tx *sqlstore.Tx) error {
		for range n {
			if err := tx.Publish(&sqlstore.Message{Queue: queue, Headers: []byte("{}"), Envelope: []byte("{}"), Body: make([]byte, size)}); err != nil {
				return err
			}
		}
		return nil
	})
}

func ready(t testing.TB, db *sqlstore.DB, queue string) int {
	t.Helper()
	n := 0
	err := db.View(t.Context(), func(tx *sqlstore.Tx) error {
		ls, err := tx.Lengths(queue)
		n = ls[queue].Ready
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// says checks that an error names what a person needs.
func says(t *testing.T, err error, words ...string) {
	t.Helper()
	if err == nil {
		t.Fatalf("no error, want one that says %q", words)
	}
	for _, w := range words {
		if !strings.Contains(err.Error(), w) {
			t.Errorf("error %q does not say %q", err, w)
		}
	}
}

// raw runs statements on a connection of its own.
func raw(t testing.TB, path string) (exec func(string) error) {
	t.Helper()
	c, err := (&sqlite.Driver{}).Open("file:" + path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return func(s string) error {
		_, err := c.(driver.ExecerContext).ExecContext(context.Background(), s, nil)
		return err
	}
}

func TestOneCoreForOneFile(t *testing.T) {
	t.Parallel()
	cfg := config(t)
	cfg.Private = false
	a, b := open(t, cfg), open(t, cfg)
	if err := publish(a, t.Context(), "q", 1, 10); err != nil {
		t.Fatal(err)
	}
	if err := a.Close(); err != nil {
		t.Fatal(err)
	}
	if got := ready(t, b, "q"); got != 1 {
		t.Errorf("the second holder sees %d messages after the first has closed, want 1", got)
	}
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	if err := publish(b, t.Context(), "q", 1, 10); !errors.Is(err, sqlstore.ErrClosed) {
		t.Errorf("publish after close: %v, want ErrClosed", err)
	}
}

func TestRefusalsInABatchAreTheirOwn(t *testing.T) {
	t.Parallel()
	db := open(t, config(t))
	var wg sync.WaitGroup
	errs := make([]error, 64)
	for i := range errs {
		wg.Go(func() {
			errs[i] = db.Update(t.Context(), func(tx *sqlstore.Tx) error {
				return tx.Publish(&sqlstore.Message{Queue: fmt.Sprint("q", i%2), Mandatory: i%2 == 1, Headers: []byte("{}"), Envelope: []byte("{}")})
			})
		})
	}
	wg.Wait()
	for i, err := range errs {
		if want := i%2 == 1; errors.Is(err, sqlstore.ErrNoQueue) != want || !want && err != nil {
			t.Errorf("operation %d: %v, want refused: %v", i, err, want)
		}
	}
	if got := ready(t, db, "q0"); got != 32 {
		t.Errorf("%d messages are there, want 32", got)
	}
}

func TestAPoisonedOperationFailsAlone(t *testing.T) {
	t.Parallel()
	cfg := config(t)
	db := open(t, cfg)
	err := raw(t, cfg.Path)(`CREATE TRIGGER poison BEFORE INSERT ON lovage_message WHEN length(NEW.body) = 13
		BEGIN SELECT RAISE(ABORT, 'unlucky'); END`)
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	errs := make([]error, 32)
	for i := range errs {
		wg.Go(func() { errs[i] = publish(db, t.Context(), "q", 1, 10+i%4) })
	}
	wg.Wait()
	for i, err := range errs {
		if i%4 == 3 {
			says(t, err, "unlucky")
		} else if err != nil {
			t.Errorf("operation %d: %v", i, err)
		}
	}
	if got := ready(t, db, "q"); got != 24 {
		t.Errorf("%d messages are there, want 24", got)
	}
}

func TestSixtyFourGoroutines(t *testing.T) {
	t.Parallel()
	db, err := sqlstore.Open(t.Context(), config(t))
	if err != nil {
		t.Fatal(err)
	}
	const each = 50
	var worker int64
	if err := db.Update(t.Context(), func(tx *sqlstore.Tx) (err error) {
		worker, err = tx.Register("w", time.Minute)
		return err
	}); err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	var mu sync.Mutex
	seen := map[int64]int{}
	for range 32 {
		wg.Go(func() {
			for range each {
				if err := publish(db, t.Context(), "q", 1, 100); err != nil {
					t.Error(err)
				}
			}
		})
		wg.Go(func() {
			ear := db.Ear(sqlstore.BellWork)
			defer ear.Close()
			for {
				ear.Listen()
				var ds []sqlstore.Delivery
				err := db.UpdateLazily(t.Context(), func(tx *sqlstore.Tx) (err error) {
					ds, err = tx.Claim(worker, []string{"q"}, 3)
					return err
				})
				if err != nil {
					t.Error(err)
					return
				}
				if len(ds) > 0 {
					err := db.Update(t.Context(), func(tx *sqlstore.Tx) error {
						for i := range ds {
							if err := tx.Ack(worker, &ds[i]); err != nil {
								return err
							}
						}
						return nil
					})
					if err != nil {
						t.Error(err)
					}
				}
				mu.Lock()
				for _, d := range ds {
					seen[d.ID]++
				}
				done := len(seen) == 32*each
				mu.Unlock()
				if done {
					return
				}
				if len(ds) == 0 {
					if err := ear.Wait(t.Context(), sqlstore.SafetyPoll, nil); err != nil {
						t.Error(err)
						return
					}
				}
			}
		})
	}
	wg.Wait()
	for id, n := range seen {
		if n != 1 {
			t.Errorf("message %d was claimed %d times", id, n)
		}
	}
	if err := db.Close(); err != nil {
		t.Error(err)
	}
}

func TestExpiredRowsGoAlongWithOtherWork(t *testing.T) {
	t.Parallel()
	db := open(t, config(t))
	err := db.Update(t.Context(), func(tx *sqlstore.Tx) error {
		for i := range 450 {
			if err := tx.Store(&sqlstore.Result{TaskID: fmt.Sprint(i), State: "SUCCESS", Meta: []byte("{}"), Expires: time.Microsecond}); err != nil {
				return err
			}
		}
		return tx.Store(&sqlstore.Result{TaskID: "kept", State: "SUCCESS", Meta: []byte("{}")})
	})
	if err != nil {
		t.Fatal(err)
	}
	n, err := db.Cleanup(t.Context())
	if err != nil || n > 450 {
		t.Fatalf("cleanup deleted %d, %v", n, err)
	}
	err = db.View(t.Context(), func(tx *sqlstore.Tx) error {
		if _, ok, err := tx.Fetch("7"); ok || err != nil {
			t.Errorf("an expired result is there (%v)", err)
		}
		if _, ok, err := tx.Fetch("kept"); !ok || err != nil {
			t.Errorf("a result that does not expire is gone (%v)", err)
		}
		left, _, err := tx.ResultsSince(0, 1000)
		if len(left) != 1 {
			t.Errorf("%d rows are left, want 1", len(left))
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestPurgeInSteps(t *testing.T) {
	t.Parallel()
	db := open(t, config(t))
	later := time.Now().Add(time.Hour).UnixMicro()
	err := db.Update(t.Context(), func(tx *sqlstore.Tx) error {
		for i := range 12_000 {
			m := &sqlstore.Message{Queue: "q", Headers: []byte("{}"), Envelope: []byte("{}")}
			if i%3 == 0 {
				m.NotBefore = later
			}
			if err := tx.Publish(m); err != nil {
				return err
			}
		}
		return tx.Publish(&sqlstore.Message{Queue: "other", Headers: []byte("{}"), Envelope: []byte("{}")})
	})
	if err != nil {
		t.Fatal(err)
	}
	if n, err := db.Purge(t.Context(), "q"); n != 12_000 || err != nil {
		t.Errorf("purged %d, %v, want 12000", n, err)
	}
	if got := ready(t, db, "other"); got != 1 {
		t.Errorf("the other queue has %d messages, want 1", got)
	}
}
