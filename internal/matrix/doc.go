// Package matrix holds a generated test: every way that a run can end, with every
// setting that decides what follows, on every broker and pool, against a small
// model. The table that it keeps is docs/reliability.md. It has no code of its own.
package matrix
