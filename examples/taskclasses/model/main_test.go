package main

import (
	"bytes"
	"testing"
)

func TestModel(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	if err := run(t.Context(), &out); err != nil {
		t.Fatal(err)
	}
	const want = `predictions: 200, by 8 runs at a time
right: 98 %
model loaded: 1 time
`
	if got := out.String(); got != want {
		t.Errorf("printed\n%s\nwant\n%s", got, want)
	}
}
