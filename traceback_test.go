package lovage_test

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"testing"

	"github.com/lovage-go/lovage"
)

type failing struct{ lovage.Task }

func (*failing) Run(context.Context, struct{}) (int, error) {
	return 0, fmt.Errorf("outer: %w", errNegative)
}

// heir has the Run of the type that it embeds.
type heir struct{ failing }

func TestTraceback(t *testing.T) {
	t.Parallel()
	w := newWorld(t, lovage.Config{})
	const rest = `, in Run
  \*fmt.wrapError: outer: negative
  \*errors.errorString: negative
Error: outer: negative
`
	for want, call := range map[string]func(context.Context) (*lovage.Result[int], error){
		`traceback_test.go:1\d github.com/lovage-go/lovage_test.\(\*failing\).Run"` + rest: applied(lovage.Register(w.app, "t.class", &failing{}).Handle),
		`\*lovage_test.heir"` + rest: applied(lovage.Register(w.app, "t.heir", &heir{}).Handle),
		`traceback_test.go:\d+ github.com/lovage-go/lovage_test.TestTraceback.func\d+"` + rest: applied(lovage.Func(w.app, "t.func",
			func(context.Context, struct{}) (int, error) { return 0, fmt.Errorf("outer: %w", errNegative) })),
	} {
		res := must[*lovage.Result[int]](t)(call(w.ctx()))
		got := must[string](t)(res.Traceback(w.ctx()))
		if want = "^Traceback \\(most recent call last\\):\n  File \"" + want + "$"; !regexp.MustCompile(want).MatchString(got) {
			t.Errorf("traceback: got\n%swant\n%s", got, want)
		}
	}
}

func applied(h *lovage.Handle[struct{}, int]) func(context.Context) (*lovage.Result[int], error) {
	return func(ctx context.Context) (*lovage.Result[int], error) { return h.Apply(ctx, struct{}{}) }
}

// A body that returns the cause of its context names the limit once.
func TestSoftTimeLimitIsNamedOnce(t *testing.T) {
	t.Parallel()
	w := newWorld(t, lovage.Config{})
	body(w, func(ctx context.Context) (any, error) { return nil, context.Cause(ctx) })
	ctx, cancel := context.WithCancelCause(w.ctx())
	cancel(lovage.ErrSoftTimeLimit)
	h, err := w.app.Task("t.body")
	if err != nil {
		t.Fatal(err)
	}
	res := must[*lovage.Result[any]](t)(h.Apply(ctx, lovage.Args{}))
	_, err = res.Get(w.ctx())
	if te, ok := errors.AsType[*lovage.TaskError](err); !ok || te.Type != "SoftTimeLimitExceeded" {
		t.Fatalf("got %v, want SoftTimeLimitExceeded", err)
	}
	got := must[string](t)(res.Traceback(w.ctx()))
	if n := len(regexp.MustCompile("soft time limit exceeded").FindAllString(got, -1)); n != 1 {
		t.Errorf("the limit is named %d times, want once:\n%s", n, got)
	}
}
