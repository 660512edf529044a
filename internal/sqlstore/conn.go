package sqlstore

import (
	"context"
	"database/sql/driver"
	"errors"
	"io"
	"net/url"

	"modernc.org/sqlite"
)

// value is what a statement takes and gives: int64, string, []byte or nil.
type value = driver.Value

// conn is one connection with its prepared statements. It belongs to one
// goroutine at a time. It uses the driver without database/sql: no pool, no
// conversion and no locks on the hot path.
type conn struct {
	raw   driver.Conn
	path  string
	text  *dialect
	stmts [numStatements]driver.Stmt
	args  []driver.NamedValue
}

func dial(path string, d *dialect) (*conn, error) {
	u := url.URL{Scheme: "file", Path: path, OmitHost: true}
	raw, err := (&sqlite.Driver{}).Open(u.String())
	if err != nil {
		return nil, wrapSQL(path, err)
	}
	return &conn{raw: raw, path: path, text: d}, nil
}

func (c *conn) close() error {
	for i, s := range c.stmts {
		if s != nil {
			s.Close()
			c.stmts[i] = nil
		}
	}
	return c.raw.Close()
}

func (c *conn) bind(args []value) []driver.NamedValue {
	c.args = c.args[:0]
	for i, a := range args {
		c.args = append(c.args, driver.NamedValue{Ordinal: i + 1, Value: a})
	}
	return c.args
}

func (c *conn) prepared(s statement) (driver.Stmt, error) {
	if st := c.stmts[s]; st != nil {
		return st, nil
	}
	st, err := c.raw.Prepare(c.text[s])
	if err != nil {
		return nil, wrapSQL(c.path, err)
	}
	c.stmts[s] = st
	return st, nil
}

// exec runs a statement and returns the number of rows it changed.
func (c *conn) exec(s statement, args ...value) (int64, error) {
	st, err := c.prepared(s)
	if err != nil {
		return 0, err
	}
	res, err := st.(driver.StmtExecContext).ExecContext(context.Background(), c.bind(args))
	if err != nil {
		return 0, wrapSQL(c.path, err)
	}
	return res.RowsAffected()
}

// query runs a statement of cols columns and hands each row to each. The row's
// slice is reused; its values are not.
func (c *conn) query(s statement, cols int, each func(row []value) error, args ...value) error {
	st, err := c.prepared(s)
	if err != nil {
		return err
	}
	rows, err := st.(driver.StmtQueryContext).QueryContext(context.Background(), c.bind(args))
	if err != nil {
		return wrapSQL(c.path, err)
	}
	row := make([]value, cols)
	for {
		if err = rows.Next(row); err != nil {
			break
		}
		if err = each(row); err != nil {
			rows.Close()
			return err
		}
	}
	if errors.Is(err, io.EOF) {
		err = nil
	}
	if cerr := rows.Close(); err == nil {
		err = cerr
	}
	return wrapSQL(c.path, err)
}

// number runs a query of one column and at most one row; absent and NULL are ok=false.
func (c *conn) number(s statement, args ...value) (n int64, ok bool, err error) {
	err = c.query(s, 1, func(row []value) error {
		n, ok = row[0].(int64)
		return nil
	}, args...)
	return n, ok, err
}

// script runs text that is not worth keeping prepared: pragmas and DDL.
func (c *conn) script(text string) error {
	_, err := c.raw.(driver.ExecerContext).ExecContext(context.Background(), text, nil)
	return wrapSQL(c.path, err)
}

// ask runs a pragma or query and returns its first value.
func (c *conn) ask(text string) (v value, err error) {
	rows, err := c.raw.(driver.QueryerContext).QueryContext(context.Background(), text, nil)
	if err != nil {
		return nil, wrapSQL(c.path, err)
	}
	row := make([]value, len(rows.Columns()))
	if err = rows.Next(row); err == nil && len(row) > 0 {
		v = row[0]
	}
	if errors.Is(err, io.EOF) {
		err = nil
	}
	if cerr := rows.Close(); err == nil {
		err = cerr
	}
	return v, wrapSQL(c.path, err)
}

func integer(v value) int64 {
	n, _ := v.(int64)
	return n
}

func text(v value) string {
	switch t := v.(type) {
	case string:
		return t
	case []byte:
		return string(t)
	}
	return ""
}

func blob(v value) []byte {
	switch b := v.(type) {
	case []byte:
		return b
	case string:
		return []byte(b)
	}
	return nil
}
