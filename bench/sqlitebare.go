package main

import (
	"context"
	"database/sql/driver"
	"fmt"
	"io"
	"path/filepath"
	"time"

	"github.com/google/uuid"
	"modernc.org/sqlite"
)

// bare is the limit: the same driver and the same rows in the same tables, one
// process that does nothing else: no leases, no fences, no wake-ups, no other
// processes, no Go types. Its claim and its finish are two transactions, as they
// must be for work that happens between them. Task ids are random, as they are
// in life.
type bare struct {
	conn  driver.Conn
	stmts map[string]driver.Stmt
}

const bareSchema = `
CREATE TABLE message (id INTEGER PRIMARY KEY, headers BLOB NOT NULL, envelope BLOB NOT NULL, body BLOB NOT NULL);
CREATE TABLE ready (queue_id INTEGER NOT NULL, rank INTEGER NOT NULL, pos INTEGER NOT NULL, id INTEGER NOT NULL, flags INTEGER NOT NULL,
	PRIMARY KEY (queue_id, rank, pos, id)) WITHOUT ROWID;
CREATE TABLE claim (worker_id INTEGER NOT NULL, id INTEGER NOT NULL, queue_id INTEGER NOT NULL, rank INTEGER NOT NULL, pos INTEGER NOT NULL, flags INTEGER NOT NULL,
	PRIMARY KEY (worker_id, id)) WITHOUT ROWID;
CREATE TABLE result (seq INTEGER PRIMARY KEY, task_id TEXT NOT NULL UNIQUE, state TEXT NOT NULL, meta BLOB NOT NULL, group_id TEXT, expires INTEGER);
CREATE INDEX result_expires ON result (expires) WHERE expires IS NOT NULL;`

func openBare(dir, synchronous string) (*bare, error) {
	conn, err := (&sqlite.Driver{}).Open("file:" + filepath.Join(dir, fmt.Sprintf("bare-%d.db", time.Now().UnixNano())))
	if err != nil {
		return nil, err
	}
	b := &bare{conn: conn, stmts: map[string]driver.Stmt{}}
	if synchronous == "" {
		synchronous = "full"
	}
	for _, q := range []string{"PRAGMA journal_mode = WAL", "PRAGMA synchronous = " + synchronous} {
		if _, err := b.query(q, nil); err != nil {
			return nil, err
		}
	}
	_, err = conn.(driver.ExecerContext).ExecContext(context.Background(), bareSchema, nil)
	return b, err
}

func (b *bare) close() {
	for _, s := range b.stmts {
		s.Close()
	}
	b.conn.Close()
}

func (b *bare) stmt(q string) (driver.Stmt, error) {
	if s := b.stmts[q]; s != nil {
		return s, nil
	}
	s, err := b.conn.Prepare(q)
	b.stmts[q] = s
	return s, err
}

func named(args []driver.Value) []driver.NamedValue {
	out := make([]driver.NamedValue, len(args))
	for i, a := range args {
		out[i] = driver.NamedValue{Ordinal: i + 1, Value: a}
	}
	return out
}

func (b *bare) exec(q string, args ...driver.Value) error {
	s, err := b.stmt(q)
	if err != nil {
		return err
	}
	_, err = s.(driver.StmtExecContext).ExecContext(context.Background(), named(args))
	return err
}

func (b *bare) query(q string, each func([]driver.Value), args ...driver.Value) (int, error) {
	s, err := b.stmt(q)
	if err != nil {
		return 0, err
	}
	rows, err := s.(driver.StmtQueryContext).QueryContext(context.Background(), named(args))
	if err != nil {
		return 0, err
	}
	defer rows.Close()
	row := make([]driver.Value, len(rows.Columns()))
	n := 0
	for {
		if err := rows.Next(row); err == io.EOF {
			return n, nil
		} else if err != nil {
			return n, err
		}
		if n++; each != nil {
			each(row)
		}
	}
}

func (b *bare) tx(f func() error) error {
	if err := b.exec("BEGIN IMMEDIATE"); err != nil {
		return err
	}
	if err := f(); err != nil {
		_ = b.exec("ROLLBACK")
		return err
	}
	return b.exec("COMMIT")
}

// The bytes of one task that adds two integers, as Lovage stores them.
var (
	bareHeaders  = []byte(`{"lang": "go", "task": "bench.add", "id": "3cd75f43-ec6d-4a4b-bd30-18bf54c9b83a", "shadow": null, "eta": null, "expires": null, "group": null, "group_index": null, "retries": 0, "timelimit": [null, null], "root_id": "3cd75f43-ec6d-4a4b-bd30-18bf54c9b83a", "parent_id": null, "argsrepr": "(2, 3)", "kwargsrepr": "{}", "origin": "gen22988@worker.example", "ignore_result": false, "replaced_task_nesting": 0, "stamped_headers": null, "stamps": {}}`)
	bareEnvelope = []byte(`application/json utf-8 3cd75f43-ec6d-4a4b-bd30-18bf54c9b83a 2 celery`)
	bareBody     = []byte(`[[2, 3], {}, {"callbacks": null, "errbacks": null, "chain": null, "chord": null}]`)
	bareMeta     = []byte(`{"status": "SUCCESS", "result": 5, "traceback": null, "children": [], "date_done": "2026-11-21T00:06:32.133124+00:00", "task_id": "3cd75f43-ec6d-4a4b-bd30-18bf54c9b83a"}`)
)

// enqueue inserts n messages, batch to a transaction.
func (b *bare) enqueue(n, batch int) (time.Duration, error) {
	start := time.Now()
	for done := 0; done < n; done += batch {
		err := b.tx(func() error {
			for range min(batch, n-done) {
				if err := b.exec("INSERT INTO message (headers, envelope, body) VALUES (?, ?, ?)", bareHeaders, bareEnvelope, bareBody); err != nil {
					return err
				}
				if err := b.exec("INSERT INTO ready (queue_id, rank, pos, id, flags) VALUES (1, 0, last_insert_rowid(), last_insert_rowid(), 0)"); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			return 0, err
		}
	}
	return time.Since(start), nil
}

// drain claims, stores a result for and acknowledges all messages.
func (b *bare) drain(batch int) (int, time.Duration, error) {
	start, total := time.Now(), 0
	ids := make([]int64, 0, batch)
	for {
		ids = ids[:0]
		err := b.tx(func() error {
			_, err := b.query("SELECT r.id, m.headers, m.envelope, m.body FROM ready r JOIN message m ON m.id = r.id WHERE r.queue_id = 1 ORDER BY r.rank, r.pos, r.id LIMIT ?",
				func(row []driver.Value) { ids = append(ids, row[0].(int64)) }, int64(batch))
			if err != nil || len(ids) == 0 {
				return err
			}
			if err := b.exec("INSERT INTO claim SELECT 1, id, queue_id, rank, pos, flags FROM ready WHERE queue_id = 1 AND (rank, pos) <= (0, ?)", ids[len(ids)-1]); err != nil {
				return err
			}
			return b.exec("DELETE FROM ready WHERE queue_id = 1 AND (rank, pos) <= (0, ?)", ids[len(ids)-1])
		})
		if err != nil {
			return total, 0, err
		}
		if len(ids) == 0 {
			return total, time.Since(start), nil
		}
		err = b.tx(func() error {
			for _, id := range ids {
				if err := b.exec("INSERT INTO result (task_id, state, meta, expires) VALUES (?, 'SUCCESS', ?, ?)", uuid.NewString(), bareMeta, time.Now().UnixMicro()+86400e6); err != nil {
					return err
				}
				if err := b.exec("DELETE FROM claim WHERE worker_id = 1 AND id = ?", id); err != nil {
					return err
				}
				if err := b.exec("DELETE FROM message WHERE id = ?", id); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			return total, 0, err
		}
		total += len(ids)
	}
}
