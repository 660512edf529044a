package demo

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/lovage-go/lovage"
)

// Login is a task class as an actor: its users are set up once per process and
// kept from call to call.
type Login struct {
	lovage.Task

	mu    sync.Mutex
	users map[string]string
}

// Credentials are its arguments.
type Credentials struct {
	User, Password string
	Add            bool `lovage:"add,default=false"` // make the user known instead
}

// Init runs once per process, before the first run.
func (t *Login) Init(context.Context) error {
	t.users = map[string]string{"alice": "wonder"}
	return nil
}

// Run says whether the password is right.
func (t *Login) Run(_ context.Context, in Credentials) (bool, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if in.Add {
		t.users[in.User] = in.Password
	}
	known, ok := t.users[in.User]
	return ok && known == in.Password, nil
}

// Order has every handler, and each tells what it was called with by an event
// of its own, which any process may watch.
type Order struct{ lovage.Task }

// OrderArgs are its arguments.
type OrderArgs struct {
	Item   string
	Pieces int `lovage:"pieces,default=1"`
}

// HookEvent is the type of the events that Order's handlers send.
const HookEvent = "demo-hook"

var errNoStock = errors.New("no such thing in stock")

// Run fails for what cannot be ordered, and tries again once for what is late.
func (t *Order) Run(ctx context.Context, in OrderArgs) (string, error) {
	r := lovage.RequestFrom(ctx)
	switch {
	case in.Item == "unicorn":
		return "", &lovage.TaskError{Type: "LookupError", Module: "builtins", Args: []any{errNoStock.Error()}, Cause: errNoStock}
	case in.Item == "parcel" && r.Retries == 0:
		return "", lovage.Retry(errors.New("not here yet"), lovage.Countdown(50*time.Millisecond))
	}
	return fmt.Sprintf("%d x %s", in.Pieces, in.Item), nil
}

// BeforeStart and the others are Celery's handlers.
func (t *Order) BeforeStart(ctx context.Context, r *lovage.Request) error {
	return t.tell(ctx, r, "BeforeStart", "")
}

func (t *Order) OnSuccess(ctx context.Context, r *lovage.Request, result any) error {
	return t.tell(ctx, r, "OnSuccess", fmt.Sprintf("%q", result))
}

func (t *Order) OnFailure(ctx context.Context, r *lovage.Request, info *lovage.ErrorInfo) error {
	return t.tell(ctx, r, "OnFailure", info.Repr())
}

func (t *Order) OnRetry(ctx context.Context, r *lovage.Request, info *lovage.ErrorInfo) error {
	return t.tell(ctx, r, "OnRetry", info.Repr())
}

func (t *Order) AfterReturn(ctx context.Context, r *lovage.Request, state lovage.State, _ any, _ *lovage.ErrorInfo) error {
	return t.tell(ctx, r, "AfterReturn", string(state))
}

func (t *Order) tell(ctx context.Context, r *lovage.Request, hook, saw string) error {
	return r.SendEvent(ctx, HookEvent, map[string]any{"hook": hook, "saw": saw, "args": r.Args.String(), "kwargs": r.Kwargs.String()})
}

// What train tells how far it is by: a state of its own, and events of its own.
const (
	stateProgress = "PROGRESS"
	ProgressEvent = "demo-progress"
)

// Progress is the meta of its state PROGRESS.
type Progress struct {
	Done int `json:"done"`
	Of   int `json:"of"`
}

// TrainArgs say how long it takes.
type TrainArgs struct {
	Steps int
	Step  time.Duration
}

// train tells how far it is, twice: as its state, and by events.
func train(ctx context.Context, in TrainArgs) (string, error) {
	r := lovage.RequestFrom(ctx)
	for i := 1; i <= in.Steps; i++ {
		select {
		case <-time.After(in.Step):
		case <-ctx.Done():
			return "", context.Cause(ctx)
		}
		if err := r.UpdateState(ctx, stateProgress, Progress{i, in.Steps}); err != nil {
			return "", err
		}
		if err := r.SendEvent(ctx, ProgressEvent, map[string]any{"done": i, "of": in.Steps}); err != nil {
			return "", err
		}
	}
	return "trained", nil
}

// parse fails as Go programs fail: with an error that wraps another.
func parse(_ context.Context, text string) (int, error) {
	n, err := parseRoman(strings.ToUpper(text))
	if err != nil {
		return 0, fmt.Errorf("parse %q: %w", text, err)
	}
	return n, nil
}

// NumeralError is an error type of the program's own; Python sees its name.
type NumeralError struct{ Letter string }

func (e *NumeralError) Error() string { return "no Roman numeral: " + e.Letter }

func parseRoman(text string) (n int, err error) {
	values := map[rune]int{'I': 1, 'V': 5, 'X': 10, 'L': 50, 'C': 100, 'D': 500, 'M': 1000}
	last := 0
	for _, r := range text {
		v, ok := values[r]
		if !ok {
			return 0, &NumeralError{string(r)}
		}
		if n += v; last < v {
			n -= 2 * last
		}
		last = v
	}
	return n, nil
}

// errBusy is what flaky is retried for.
var errBusy = errors.New("the other side is busy")

// flaky fails until it has been retried often enough.
func flaky(ctx context.Context, failures int) (string, error) {
	try := lovage.RequestFrom(ctx).Retries + 1
	if try <= failures {
		return "", fmt.Errorf("try %d: %w", try, errBusy)
	}
	return fmt.Sprintf("done at try %d", try), nil
}

// AddArgs are two integers.
type AddArgs struct{ X, Y int }

func add(_ context.Context, in AddArgs) (int, error) { return in.X + in.Y, nil }
