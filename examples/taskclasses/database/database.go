package main

import (
	"context"
	"database/sql"
	"fmt"
	"io"
	"sync/atomic"

	"github.com/lovage-go/lovage"
	_ "modernc.org/sqlite" // the database/sql driver "sqlite"
)

// Database is what the tasks of a process share: a pool of connections, opened
// when it is needed first and then kept. The runtime closes it with the tasks.
type Database struct {
	Path string

	pool  lovage.Lazy[*sql.DB]
	opens atomic.Int64
}

// DB returns the pool.
func (d *Database) DB(ctx context.Context) (*sql.DB, error) { return d.pool.Get(ctx, d.open) }

// open runs once at a time. If it fails, the next DB tries again.
func (d *Database) open(ctx context.Context) (*sql.DB, error) {
	d.opens.Add(1)
	db, err := sql.Open("sqlite", d.Path)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", d.Path, err)
	}
	_, err = db.ExecContext(ctx, `CREATE TABLE fruit (name TEXT, price INTEGER);
		INSERT INTO fruit VALUES ('apple', 30), ('pear', 45), ('plum', 12)`)
	if err != nil {
		return nil, fmt.Errorf("fill %s: %w", d.Path, err)
	}
	return db, nil
}

// DatabaseTask is the base class. It embeds a pointer, so all tasks that are
// given the same Database use one pool. If the Lazy were a field of the base
// itself, each task would open its own, which is what Celery's example does.
type DatabaseTask struct {
	lovage.Task
	*Database
	Out io.Writer
}

// Close runs when the process ends, before the runtime closes what was opened.
// It is here to be seen; nothing needs it.
func (t *DatabaseTask) Close(ctx context.Context) error {
	fmt.Fprintf(t.Out, "close:   %-16s the pool is open: %t\n", t.Name(), t.pool.Opened())
	return nil
}

// sum adds up prices: what the tasks below do with their database.
func (d *Database) sum(ctx context.Context, where string, args ...any) (total int, err error) {
	db, err := d.DB(ctx)
	if err != nil {
		return 0, err
	}
	err = db.QueryRowContext(ctx, "SELECT coalesce(sum(price), 0) FROM fruit WHERE "+where, args...).Scan(&total)
	return total, err
}
