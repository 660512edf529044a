package matrix_test

import (
	"context"
	"errors"
	"os"
	"syscall"
	"time"

	"github.com/lovage-go/lovage"
)

// Order says how a run is to end.
type Order struct{ End string }

// obedient is a class whose runs end as they are told, and which tells the ledger
// of each hook.
type obedient struct {
	lovage.Task
	ledger string
}

var errBoom = errors.New("boom")

func (t *obedient) BeforeStart(_ context.Context, r *lovage.Request) error {
	return t.tell(r, "BeforeStart")
}
func (t *obedient) OnSuccess(_ context.Context, r *lovage.Request, _ any) error {
	return t.tell(r, "OnSuccess")
}
func (t *obedient) OnFailure(_ context.Context, r *lovage.Request, _ *lovage.ErrorInfo) error {
	return t.tell(r, "OnFailure")
}
func (t *obedient) OnRetry(_ context.Context, r *lovage.Request, _ *lovage.ErrorInfo) error {
	return t.tell(r, "OnRetry")
}
func (t *obedient) AfterReturn(_ context.Context, r *lovage.Request, _ lovage.State, _ any, _ *lovage.ErrorInfo) error {
	return t.tell(r, "AfterReturn")
}

func (t *obedient) tell(r *lovage.Request, step string) error {
	_, err := tell(t.ledger, r, step)
	return err
}

// Run ends as it is told, the first time; each time after that, well.
func (t *obedient) Run(ctx context.Context, in Order) (string, error) {
	r := lovage.RequestFrom(ctx)
	which, err := tell(t.ledger, r, stepRun)
	if err != nil {
		return "", err
	}
	if which == "again" {
		return "again", nil
	}
	switch end(in.End) {
	case failure:
		return "", errBoom
	case retry:
		return "", lovage.Retry(errBoom, lovage.Countdown(0))
	case ignore:
		return "", lovage.ErrIgnore
	case reject:
		return "", lovage.Reject(errBoom, false)
	case requeue:
		return "", lovage.Reject(errBoom, true)
	case soft, terminated, cold:
		<-ctx.Done()
		return "", context.Cause(ctx)
	case lost:
		return "", syscall.Kill(os.Getpid(), syscall.SIGKILL)
	case success:
	default:
		return "held", t.tell(r, stepHold)
	}
	return "done", nil
}

// declare declares a task for each combination of settings, and has the signals
// told to the ledger as well.
func declare(app *lovage.App, ledger string) map[settings]*lovage.Handle[Order, string] {
	tasks := map[settings]*lovage.Handle[Order, string]{}
	for _, s := range allSettings() {
		tasks[s] = lovage.Register(app, "matrix."+s.String(), &obedient{ledger: ledger},
			lovage.AcksLate(s.late), lovage.AcksOnFailure(s.acks), lovage.AcksOnTimeout(s.acks),
			lovage.RejectOnWorkerLost(s.again), lovage.StoreErrorsEvenIfIgnored(s.errors), lovage.IgnoreResult(s.ignore)).Handle
	}
	say := func(r *lovage.Request, step string) {
		if _, err := tell(ledger, r, step); err != nil {
			app.Logger().Error("the ledger is gone", "step", step, "id", r.ID, "error", err)
		}
	}
	s := &app.Signals
	s.TaskReceived.Connect(func(_ context.Context, e lovage.TaskReceived) { say(e.Request, "task_received") })
	s.TaskPrerun.Connect(func(_ context.Context, e lovage.TaskPrerun) { say(e.Request, "task_prerun") })
	s.TaskPostrun.Connect(func(_ context.Context, e lovage.TaskPostrun) { say(e.Request, "task_postrun") })
	s.TaskSuccess.Connect(func(_ context.Context, e lovage.TaskSuccess) { say(e.Request, "task_success") })
	s.TaskFailure.Connect(func(_ context.Context, e lovage.TaskFailure) { say(e.Request, "task_failure") })
	s.TaskRetry.Connect(func(_ context.Context, e lovage.TaskRetry) { say(e.Request, "task_retry") })
	s.TaskRevoked.Connect(func(_ context.Context, e lovage.TaskRevoked) { say(e.Request, "task_revoked") })
	s.TaskInternalError.Connect(func(_ context.Context, e lovage.TaskInternalError) { say(e.Request, "task_internal_error in "+e.Where) })
	return tasks
}

// limits of the two ends that need one: long enough for a loaded machine to have
// begun the run.
const (
	softLimit = 2 * time.Second
	hardLimit = 5 * time.Second
)

// options are those of the call of a cell.
func (c cell) options() []lovage.CallOption {
	opts := []lovage.CallOption{lovage.TaskID(c.id())}
	switch c.end {
	case soft:
		opts = append(opts, lovage.SoftTimeLimit(softLimit))
	case hard:
		opts = append(opts, lovage.TimeLimit(hardLimit))
	}
	return opts
}
