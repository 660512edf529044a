package endtoend_test

import (
	"context"
	"strings"
	"testing"

	"github.com/lovage-go/lovage"
)

// TestLargeOnPurpose: the limit that the errors tell one to raise is the one
// that counts, for arguments and for results.
func TestLargeOnPurpose(t *testing.T) {
	t.Parallel()
	const size = 20 << 20 // more than the default
	x := newWorld(t, file(t), lovage.Config{TaskMaxMessageSize: 2 * size})
	x.tasks = func(app *lovage.App) {
		withAdd(app)
		lovage.Func(app, "t.echo", func(_ context.Context, in string) (string, error) { return in, nil })
	}
	sender := x.app()
	t.Cleanup(func() { _ = sender.Close(context.Background()) })
	x.start()
	res, err := sender.Send(x.ctx(), "t.echo", lovage.Args{Positional: []any{strings.Repeat("a", size)}})
	if err != nil {
		t.Fatal(err)
	}
	if got, err := lovage.ResultOf[string](sender, res.ID()).Get(x.ctx()); err != nil || len(got) != size {
		t.Errorf("got %d bytes, %v, want %d\n%.2000s", len(got), err, size, x.log)
	}
}
