package lovage_test

import (
	"context"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/lovage-go/lovage"
)

// TestAppSignals: Celery's signals of an app, once each and in its order.
func TestAppSignals(t *testing.T) {
	t.Parallel()
	app := lovage.New("proj", lovage.Config{})
	lovage.Func(app, "proj.double", func(_ context.Context, n int) (int, error) { return 2 * n, nil })
	var heard []string
	app.Signals.OnConfigure.Connect(func(_ context.Context, e lovage.OnConfigure) {
		heard = append(heard, "configure")
		e.Config.TaskDefaultQueue = "late"
	})
	app.Signals.OnAfterConfigure.Connect(func(_ context.Context, e lovage.OnAfterConfigure) {
		heard = append(heard, "after configure: "+e.Settings.TaskDefaultQueue)
	})
	app.Signals.OnAfterFinalize.Connect(func(ctx context.Context, e lovage.OnAfterFinalize) {
		heard = append(heard, "after finalize")
		if _, ok := e.App.Lookup("proj.double"); !ok { // receivers may use the app
			t.Error("the task is not known when the app is finalized")
		}
	})
	if len(heard) != 0 {
		t.Errorf("before the first use: heard %q, want nothing", heard)
	}
	for range 2 {
		if err := app.Freeze(); err != nil {
			t.Fatal(err)
		}
	}
	if want := []string{"configure", "after configure: late", "after finalize"}; !slices.Equal(heard, want) {
		t.Errorf("heard %q, want %q", heard, want)
	}
	queues, err := app.Queues()
	if err != nil || len(queues) != 1 || queues[0].Name != "late" {
		t.Errorf("queues are %v, %v; want the one that OnConfigure named", queues, err)
	}
}

// TestAppSignalsOfABadSetting: what OnConfigure breaks is told at the first use.
func TestAppSignalsOfABadSetting(t *testing.T) {
	t.Parallel()
	app := lovage.New("proj", lovage.Config{})
	app.Signals.OnConfigure.Connect(func(_ context.Context, e lovage.OnConfigure) { e.Config.WorkerPool = "fork" })
	app.Signals.OnAfterFinalize.Connect(func(context.Context, lovage.OnAfterFinalize) { t.Error("an app that cannot be used is finalized") })
	if err := app.Freeze(); err == nil {
		t.Error("Freeze: got nil, want the error of worker_pool")
	}
}

// TestSignalsPage: the page lists the signals that there are, and no others.
func TestSignalsPage(t *testing.T) {
	t.Parallel()
	page, err := os.ReadFile("docs/signals.md")
	if err != nil {
		t.Fatal(err)
	}
	var listed, have []string
	for line := range strings.Lines(string(page)) {
		if cells := strings.Split(line, "|"); len(cells) > 7 && strings.HasPrefix(cells[1], " `") {
			listed = append(listed, strings.Trim(cells[1], " `"))
		}
	}
	for f := range reflect.TypeFor[lovage.Signals]().Fields() {
		have = append(have, f.Name)
	}
	slices.Sort(listed)
	slices.Sort(have)
	if !slices.Equal(listed, have) {
		t.Errorf("docs/signals.md lists %q, there are %q", listed, have)
	}
}
