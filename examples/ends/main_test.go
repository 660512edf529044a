package main

import (
	"context"
	"testing"

	"github.com/lovage-go/lovage"
	"github.com/lovage-go/lovage/lovagetest"
	"github.com/lovage-go/lovage/worker"
)

func TestMain(m *testing.M) { lovagetest.Main(m) }

// TestEnds tells each end and looks at the state that it leaves.
func TestEnds(t *testing.T) {
	t.Parallel()
	x := lovagetest.New(t, lovage.Config{})
	run := declare(x.App).Handle
	x.Start(worker.Config{})
	for how, want := range map[string]string{"success": "done", "retry": "again", "requeue": "again", "failure": "Error: boom", "reject": `Reject: ("boom", false)`} {
		r, err := run.Delay(context.Background(), Ends{How: how})
		if err != nil {
			t.Fatal(err)
		}
		got, err := r.Get(context.Background())
		if err != nil {
			got = err.Error()
		}
		if got != want {
			t.Errorf("%s: got %q, want %q", how, got, want)
		}
	}
}
