package sqlstore

import (
	"errors"
	"fmt"
)

// schemaVersion is the version that this program writes.
const schemaVersion = len(migrations)

// migrations[i] brings the schema from version i to i+1. They only go forward.
var migrations = [...]string{schemaV1}

const schemaV1 = `
CREATE TABLE lovage_schema (version INTEGER NOT NULL);
INSERT INTO lovage_schema (version) VALUES (0);

CREATE TABLE lovage_counter (name TEXT PRIMARY KEY, n INTEGER NOT NULL) WITHOUT ROWID;
INSERT INTO lovage_counter (name, n) VALUES ('seq', 0);

CREATE TABLE lovage_queue (id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, paused INTEGER NOT NULL DEFAULT 0);
CREATE TABLE lovage_binding (
	exchange TEXT NOT NULL, pattern TEXT NOT NULL, queue_id INTEGER NOT NULL, kind TEXT NOT NULL,
	PRIMARY KEY (exchange, pattern, queue_id)) WITHOUT ROWID;

CREATE TABLE lovage_message (id INTEGER PRIMARY KEY, headers BLOB NOT NULL, envelope BLOB NOT NULL, body BLOB NOT NULL);
CREATE TABLE lovage_ready (
	queue_id INTEGER NOT NULL, rank INTEGER NOT NULL, pos INTEGER NOT NULL, id INTEGER NOT NULL, flags INTEGER NOT NULL,
	PRIMARY KEY (queue_id, rank, pos, id)) WITHOUT ROWID;
CREATE TABLE lovage_delayed (
	queue_id INTEGER NOT NULL, due INTEGER NOT NULL, id INTEGER NOT NULL, rank INTEGER NOT NULL, flags INTEGER NOT NULL,
	PRIMARY KEY (queue_id, due, id)) WITHOUT ROWID;
CREATE TABLE lovage_claim (
	worker_id INTEGER NOT NULL, id INTEGER NOT NULL, queue_id INTEGER NOT NULL, rank INTEGER NOT NULL, pos INTEGER NOT NULL, flags INTEGER NOT NULL,
	PRIMARY KEY (worker_id, id)) WITHOUT ROWID;
CREATE TABLE lovage_worker (
	id INTEGER PRIMARY KEY, name TEXT NOT NULL, boot TEXT NOT NULL, lock TEXT NOT NULL, lease_until INTEGER NOT NULL, started INTEGER NOT NULL);

CREATE TABLE lovage_dead (
	id INTEGER PRIMARY KEY, queue_id INTEGER NOT NULL, rank INTEGER NOT NULL, reason TEXT NOT NULL, died INTEGER NOT NULL,
	losses INTEGER NOT NULL, headers BLOB NOT NULL, envelope BLOB NOT NULL, body BLOB NOT NULL);
CREATE INDEX lovage_dead_queue ON lovage_dead (queue_id, id);
CREATE TABLE lovage_loss (task_id TEXT PRIMARY KEY, n INTEGER NOT NULL, expires INTEGER NOT NULL) WITHOUT ROWID;
CREATE INDEX lovage_loss_expires ON lovage_loss (expires);

CREATE TABLE lovage_result (seq INTEGER PRIMARY KEY, task_id TEXT NOT NULL UNIQUE, state TEXT NOT NULL, meta BLOB NOT NULL, group_id TEXT, expires INTEGER);
CREATE INDEX lovage_result_expires ON lovage_result (expires) WHERE expires IS NOT NULL;
CREATE TABLE lovage_group (id TEXT PRIMARY KEY, doc BLOB NOT NULL, expires INTEGER) WITHOUT ROWID;
CREATE INDEX lovage_group_expires ON lovage_group (expires) WHERE expires IS NOT NULL;
CREATE TABLE lovage_once (id TEXT PRIMARY KEY, owner TEXT NOT NULL, done INTEGER NOT NULL, expires INTEGER NOT NULL) WITHOUT ROWID;
CREATE INDEX lovage_once_expires ON lovage_once (expires);

CREATE TABLE lovage_fanout (
	exchange TEXT NOT NULL, n INTEGER NOT NULL, expires INTEGER NOT NULL, headers BLOB NOT NULL, envelope BLOB NOT NULL, body BLOB NOT NULL,
	PRIMARY KEY (exchange, n)) WITHOUT ROWID;
CREATE INDEX lovage_fanout_expires ON lovage_fanout (expires);
`

// migrate brings the file's schema to schemaVersion in one transaction. It is
// called on the writing connection, outside of a transaction.
func migrate(c *conn) error {
	have, err := version(c)
	if err != nil {
		return err
	}
	if have == schemaVersion {
		return nil
	}
	if have > schemaVersion {
		return tooNew(c.path, have)
	}
	if err := c.script("BEGIN IMMEDIATE"); err != nil {
		return err
	}
	if err := migrateLocked(c); err != nil {
		return errors.Join(err, c.script("ROLLBACK"))
	}
	return c.script("COMMIT")
}

func migrateLocked(c *conn) error {
	have, err := version(c) // another process may have been first
	if err != nil {
		return err
	}
	if have > schemaVersion {
		return tooNew(c.path, have)
	}
	for v := have; v < schemaVersion; v++ {
		if err := c.script(migrations[v]); err != nil {
			return fmt.Errorf("migrate to schema version %d: %w", v+1, err)
		}
		if err := c.script(fmt.Sprintf("UPDATE lovage_schema SET version = %d", v+1)); err != nil {
			return fmt.Errorf("migrate to schema version %d: %w", v+1, err)
		}
	}
	return nil
}

func version(c *conn) (int, error) {
	n, err := c.ask("SELECT count(*) FROM sqlite_master WHERE type = 'table' AND name = 'lovage_schema'")
	if err != nil || integer(n) == 0 {
		return 0, err
	}
	v, err := c.ask("SELECT version FROM lovage_schema")
	return int(integer(v)), err
}

func tooNew(path string, have int) error {
	return fmt.Errorf("sqlite %s: its schema is version %d and this program knows up to %d: update this program, or give it another file", path, have, schemaVersion)
}
