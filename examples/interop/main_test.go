package main

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/lovage-go/lovage"
	"github.com/lovage-go/lovage/internal/testenv"
	"github.com/lovage-go/lovage/worker"
)

// TestInterop runs the example as docs/interop.md has it: the Python project, the
// Go worker, and a client of each.
func TestInterop(t *testing.T) {
	t.Parallel()
	server := testenv.Redis(t)
	url := server.URL(server.DB(t))
	source, err := os.ReadFile("shop.py")
	if err != nil {
		t.Fatal(err)
	}
	call, err := os.ReadFile("call.py")
	if err != nil {
		t.Fatal(err)
	}
	project := strings.ReplaceAll(string(source), "redis://localhost:6379/0", url)
	testenv.CeleryWorker(t, "shop", project, "-P", "solo", "-n", "py@test")

	shop := newShop(lovage.Config{BrokerURL: url, ResultBackend: url, TaskDefaultQueue: "shop-go"}, lovage.WithLogger(slog.New(slog.DiscardHandler)))
	ready := make(chan struct{})
	w := worker.New(shop.App, worker.Config{Hostname: "go@%h", Ready: func(worker.Info) { close(ready) }})
	running, stop := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- w.Run(running) }()
	defer func() {
		stop()
		if err := testenv.End(t, ended, func() { w.Stop(worker.Cold) }); err != nil && !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
		if err := shop.Close(context.Background()); err != nil {
			t.Error(err)
		}
	}()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	select {
	case <-ready:
	case <-ctx.Done():
		t.Fatal("the Go worker is not ready after a minute")
	}

	got := string(testenv.Python(t, ctx, map[string]string{"shop": project}, string(call)))
	want := `in Go         2f65cbeba82afd52
later, in Go  a3fe89f5399b40cb
Go said       ValueError('rounds must be at least 1', 0)
in Python     300
`
	if got != want {
		t.Errorf("call.py printed\n%s\nwant\n%s", got, want)
	}
	var out strings.Builder
	if err := shop.buy(ctx, &out); err != nil {
		t.Fatal(err)
	}
	if got, want := out.String(), "in Python      750\nPython said    ValueError [nothing to buy 0]\n"; got != want {
		t.Errorf("buy printed\n%s\nwant\n%s", got, want)
	}
}
