package startstop_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/lovage-go/lovage/internal/startstop"
)

func untilStopped(ctx context.Context) error {
	<-ctx.Done()
	return context.Cause(ctx)
}

func TestGroup(t *testing.T) {
	t.Parallel()
	broken := errors.New("broken")
	t.Run("TheFirstErrorStopsAllAndIsNamed", func(t *testing.T) {
		t.Parallel()
		synctest.Test(t, func(t *testing.T) {
			g := startstop.New(t.Context())
			gone := 0
			g.Go("a", func(ctx context.Context) error {
				err := untilStopped(ctx)
				gone++
				return err
			})
			g.Go("done early", func(context.Context) error { return nil })
			synctest.Wait()
			if g.Context().Err() != nil {
				t.Error("a goroutine that ended well stopped the group")
			}
			g.Go("b", func(context.Context) error { return broken })
			err := g.Wait()
			if !errors.Is(err, broken) || err.Error() != "b: broken" || gone != 1 {
				t.Errorf("error %v, %d gone before Wait returned", err, gone)
			}
			if cause := context.Cause(g.Context()); !errors.Is(cause, broken) {
				t.Errorf("cause is %v", cause)
			}
		})
	})
	t.Run("APanicIsAnErrorWithItsStack", func(t *testing.T) {
		t.Parallel()
		g := startstop.New(t.Context())
		g.Go("p", func(context.Context) error { panic(broken) })
		g.Go("other", untilStopped)
		err := g.Wait()
		var pe *startstop.PanicError
		if !errors.As(err, &pe) || !errors.Is(err, broken) || !strings.Contains(string(pe.Stack), "group_test.go") {
			t.Errorf("error is %v", err)
		}
	})
	t.Run("StoppingIsNoError", func(t *testing.T) {
		t.Parallel()
		ctx, cancel := context.WithCancelCause(t.Context())
		g := startstop.New(ctx)
		g.Go("a", untilStopped)
		g.Go("b", func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() })
		cancel(errors.New("shutdown"))
		if err := g.Wait(); err != nil {
			t.Errorf("error is %v", err)
		}
		g = startstop.New(t.Context())
		g.Go("a", untilStopped)
		g.Go("b", func(ctx context.Context) error { <-ctx.Done(); return broken })
		g.Stop(errors.New("shutdown"))
		if err := g.Wait(); !errors.Is(err, broken) {
			t.Errorf("an error on the way out is lost: %v", err)
		}
	})
}
