package sqlstore

import (
	"errors"
	"fmt"
	"io/fs"
	"strings"
)

// Errors of the store. They are matched with errors.Is.
var (
	// ErrClosed: the DB was closed on this side.
	ErrClosed = errors.New("sqlstore: closed")
	// ErrUnavailable: the store cannot serve now; trying again later is sensible.
	ErrUnavailable = errors.New("sqlstore: unavailable")
	// ErrLeaseLost: the claim had ended before.
	ErrLeaseLost = errors.New("sqlstore: lease lost")
	// ErrNoQueue: nothing takes the message.
	ErrNoQueue = errors.New("sqlstore: no such queue")
	// ErrTooLarge: a value exceeds what SQLite takes.
	ErrTooLarge = errors.New("sqlstore: too large")
)

// Primary result codes of SQLite, from its C interface.
const (
	codePerm     = 3
	codeBusy     = 5
	codeLocked   = 6
	codeReadOnly = 8
	codeIOErr    = 10
	codeCorrupt  = 11
	codeFull     = 13
	codeCantOpen = 14
	codeProtocol = 15
	codeTooBig   = 18
	codeNotADB   = 26
)

// sqlError is a statement's failure, with the file and the mend in its text.
type sqlError struct {
	code int // primary code, 0 if the driver gave none
	path string
	err  error
	is   error // the sentinel it stands for, or nil
}

func (e *sqlError) Error() string {
	mend := ""
	switch e.code {
	case codeBusy, codeLocked, codeProtocol:
		mend = "another process holds its write lock too long: end that process or raise lock_timeout"
	case codeFull:
		mend = "the disk or the quota is full: free some space; work resumes by itself"
	case codeReadOnly, codePerm:
		mend = "the file or its directory is read-only for this user: make both writable, or choose another path"
	case codeCantOpen:
		mend = "it cannot be opened or created: its directory is gone or read-only for this user: make that writable, or choose another path"
	case codeCorrupt:
		mend = "the file is damaged: stop all its users, move it aside together with its -wal and -shm files, and start with a new one, or save what can be read with: sqlite3 FILE .recover"
	case codeNotADB:
		mend = "the file is not an SQLite database: move it aside, or choose another path"
	case codeIOErr:
		mend = "reading or writing it gave an input/output error: check the disk and the system log"
	}
	if mend == "" {
		return fmt.Sprintf("sqlite %s: %v", e.path, e.err)
	}
	return fmt.Sprintf("sqlite %s: %s (%v)", e.path, mend, e.err)
}

func (e *sqlError) Unwrap() []error {
	if e.is == nil {
		return []error{e.err}
	}
	return []error{e.is, e.err}
}

// environmental reports a failure that is the store's, not the statement's:
// repeating the other operations of the batch one by one would meet it again.
func (e *sqlError) environmental() bool {
	switch e.code {
	case codeBusy, codeLocked, codeProtocol, codeFull, codeReadOnly, codePerm, codeCantOpen, codeCorrupt, codeNotADB, codeIOErr:
		return true
	}
	return false
}

func wrapSQL(path string, err error) error {
	if err == nil {
		return nil
	}
	var already *sqlError
	if errors.As(err, &already) {
		return err
	}
	e := &sqlError{path: path, err: err, code: primaryCode(err)}
	switch e.code {
	case codeBusy, codeLocked, codeProtocol, codeFull, codeReadOnly, codeCantOpen, codeIOErr:
		e.is = ErrUnavailable
	case codeTooBig:
		e.is = ErrTooLarge
	}
	return e
}

func primaryCode(err error) int {
	var coded interface{ Code() int }
	if errors.As(err, &coded) {
		return coded.Code() & 0xff
	}
	switch {
	case errors.Is(err, fs.ErrPermission):
		return codePerm
	case err != nil && strings.Contains(err.Error(), "not a database"):
		return codeNotADB
	}
	return 0
}

func isBusy(err error) bool {
	switch primaryCode(err) {
	case codeBusy, codeLocked, codeProtocol:
		return true
	}
	return false
}

// Sentinels are a driver package's names for the errors of the store.
type Sentinels struct{ Closed, Unavailable, LeaseLost, NoQueue, TooLarge error }

// Map adds the driver's sentinel to an error of the store; the text stays.
func (s Sentinels) Map(err error) error {
	for _, p := range [...]struct{ from, to error }{
		{ErrClosed, s.Closed}, {ErrUnavailable, s.Unavailable}, {ErrLeaseLost, s.LeaseLost}, {ErrNoQueue, s.NoQueue}, {ErrTooLarge, s.TooLarge},
	} {
		if p.to != nil && errors.Is(err, p.from) && !errors.Is(err, p.to) {
			return &mapped{err: err, is: p.to}
		}
	}
	return err
}

type mapped struct{ err, is error }

func (m *mapped) Error() string   { return m.err.Error() }
func (m *mapped) Unwrap() []error { return []error{m.is, m.err} }

// Broken reports a failure of the store itself, which undoes a transaction, as
// against an operation's own refusal.
func Broken(err error) bool {
	var sql *sqlError
	return errors.As(err, &sql)
}
