package interop_test

import (
	"context"
	"fmt"
	"log/slog"
	"path/filepath"
	"testing"
	"time"

	"github.com/lovage-go/lovage"
	"github.com/lovage-go/lovage/broker"
	"github.com/lovage-go/lovage/control"
	"github.com/lovage-go/lovage/internal/testenv"
)

// TestKillSparesWhatWaited kills three workers, as many as a task may cost, that had
// claimed a message while all their slots were taken. That costs it one death at
// most, which is counted when it runs: nobody knows then that it did not run before.
func TestKillSparesWhatWaited(t *testing.T) {
	t.Parallel()
	for name, store := range killStores {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			at := store.open(t)
			p := killPlan{urls: at.urls, Ledger: filepath.Join(t.TempDir(), "ledger"), Queues: []string{"held"}, Tasks: 1, Lease: 2 * time.Second}
			client := p.app(slog.DiscardHandler)
			t.Cleanup(func() { client.Close(context.Background()) })
			ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
			defer cancel()
			send := func(task, id string, d time.Duration, opts ...lovage.CallOption) {
				t.Helper()
				if _, err := client.Send(ctx, task, lovage.Args{Positional: []any{id, d.Milliseconds()}}, append(opts, lovage.TaskID(id))...); err != nil {
					t.Fatal(err)
				}
			}
			send("k.nap", "k0", 0)
			for round := range 3 {
				w := testenv.Again(t, roleKey, role{Kill: &p}.String())
				for i := range slots { // lost with the worker
					id := fmt.Sprintf("held%d.%d", round, i)
					send("k.early", id, time.Hour, lovage.Queue("held"))
					w.Logs(t, "k.early["+id+"] received")
				}
				if _, err := client.Control().AddConsumer(ctx, broker.Named("q"), control.Options{Timeout: time.Minute, Limit: 1}); err != nil {
					t.Fatal(err)
				}
				w.Logs(t, "k.nap[k0] received")
				w.Kill()
			}
			p.Queues = nil
			w := testenv.Again(t, roleKey, role{Kill: &p}.String())
			if err := wait(ctx, client, p.Tasks); err != nil {
				t.Fatalf("%v\n%s", err, tail(w.Log()))
			}
			what := ""
			if !reached(ctx, time.Minute, func() bool { what = at.left(); return what == "" }) {
				t.Errorf("messages are left: %s", what)
			}
			runs, _, beyond := readLedger(t, p.Ledger)
			if runs["k0"] != 1 || beyond > 0 {
				t.Errorf("what has waited ran %d times, with %d deaths more than that: want 1 and 0", runs["k0"], beyond)
			}
		})
	}
}
