package main

import (
	"bytes"
	"os"
	"testing"
)

// The example runs itself as its worker processes; in a test that is the test.
func TestMain(m *testing.M) {
	if len(os.Args) > 2 && os.Args[1] == "worker" {
		main()
		return
	}
	os.Exit(m.Run())
}

func TestAuth(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	if err := run(t.Context(), &out); err != nil {
		t.Fatal(err)
	}
	const want = `here
  george with secret  true
  george with guess   false
  nobody with secret  false
  by name             true, the same instance: true
  64 at once          64 are in, users set up 1 time
two worker processes, one of them on the queue auth
  tulip before add_user: false, after: true
two worker processes, both on the queue auth
  tulip after add_user: known to 1 process of 2
`
	if got := out.String(); got != want {
		t.Errorf("printed\n%s\nwant\n%s", got, want)
	}
}
