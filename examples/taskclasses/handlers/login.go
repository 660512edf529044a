package main

import (
	"context"
	"errors"
	"time"

	"github.com/lovage-go/lovage"
)

var (
	errPassword = errors.New("wrong password")
	errBusy     = errors.New("the directory is busy")
)

// LoginTask inherits every handler of Notifier.
type LoginTask struct{ Notifier }

// TaskOptions are options of the class: a busy directory is asked again.
func (t *LoginTask) TaskOptions() []lovage.TaskOption {
	return []lovage.TaskOption{
		lovage.RetryOn(errBusy),
		lovage.DefaultRetryDelay(10 * time.Millisecond),
		lovage.MaxRetries(3),
		lovage.Throws(errPassword), // expected: no traceback in the worker's log
	}
}

// Run checks the password. The directory is busy when bob asks first.
func (t *LoginTask) Run(ctx context.Context, in LoginArgs) (string, error) {
	login, err := decode(in.Payload)
	switch {
	case err != nil:
		return "", err
	case login.User == "bob" && lovage.RequestFrom(ctx).Retries == 0:
		return "", errBusy
	case login.Password != "secret":
		return "", errPassword
	}
	return login.User + " is in", nil
}

// Careless has handlers that fail. It overrides two of Notifier's and inherits
// the others; Notifier's own would be called by t.Notifier.OnSuccess(...).
type Careless struct{ Notifier }

// Run succeeds.
func (t *Careless) Run(ctx context.Context, _ struct{}) (string, error) { return "done", nil }

// OnSuccess returns an error.
func (t *Careless) OnSuccess(ctx context.Context, r *lovage.Request, result any) error {
	return errors.New("no mail today")
}

// AfterReturn panics.
func (t *Careless) AfterReturn(ctx context.Context, r *lovage.Request, state lovage.State, result any, info *lovage.ErrorInfo) {
	panic("no paper in the printer")
}
