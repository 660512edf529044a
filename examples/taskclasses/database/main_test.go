package main

import (
	"bytes"
	"testing"
)

func TestDatabase(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	if err := run(t.Context(), &out); err != nil {
		t.Fatal(err)
	}
	const want = `opened:  0 times before the first run
run:     process_rows     87
run:     price_of pear    45
run:     cheaper than 20  12
run:     dearer than 20   75
outside: inserted a quince; the same pool in every task: true
run:     process_rows     187
opened:  1 time after all runs
close:   process_rows     the pool is open: true
close:   price_of         the pool is open: true
close:   dearer           the pool is open: true
close:   cheaper          the pool is open: true
closed:  the pool says "sql: database is closed"
         a new one is refused: true
`
	if got := out.String(); got != want {
		t.Errorf("printed\n%s\nwant\n%s", got, want)
	}
}
