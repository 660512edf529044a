package main

import (
	"bytes"
	"os"
	"testing"
)

// The example runs itself as its watcher; in a test that is the test.
func TestMain(m *testing.M) {
	if len(os.Args) > 2 && os.Args[1] == "watch" {
		main()
		return
	}
	os.Exit(m.Run())
}

func TestProgress(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	if err := run(t.Context(), &out); err != nil {
		t.Fatal(err)
	}
	const want = `watcher: watching
watcher: event task-progress 1 of 3; state PROGRESS {Done:1 Total:3 Row:apple}
watcher: event task-progress 2 of 3; state PROGRESS {Done:2 Total:3 Row:pear}
watcher: event task-progress 3 of 3; state PROGRESS {Done:3 Total:3 Row:plum}
watcher: result 3 rows
`
	if got := out.String(); got != want {
		t.Errorf("printed\n%s\nwant\n%s", got, want)
	}
}
