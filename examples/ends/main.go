// Ends is a worker whose one task ends as it is told, to see what follows from each
// end: docs/reliability.md goes through them.
//
//	go run ./examples/ends worker -l info
//	go run ./examples/ends call ends.run -a '["failure"]'
package main

import (
	"context"
	"errors"
	"os"
	"time"

	"github.com/lovage-go/lovage"
	_ "github.com/lovage-go/lovage/backend/redisbackend"
	_ "github.com/lovage-go/lovage/broker/amqpbroker"
	_ "github.com/lovage-go/lovage/broker/redisbroker"
	"github.com/lovage-go/lovage/cli"
	_ "github.com/lovage-go/lovage/embedded"
)

// Ends are its arguments: how the first run is to end, and how long it takes.
type Ends struct {
	How     string
	Seconds float64 `lovage:"seconds,default=0"`
}

// task logs each hook. A run that is not the first ends well.
type task struct{ lovage.Task }

func (*task) OnSuccess(_ context.Context, r *lovage.Request, _ any) { r.Log().Warn("OnSuccess") }

func (*task) OnFailure(_ context.Context, r *lovage.Request, info *lovage.ErrorInfo) {
	r.Log().Warn("OnFailure: " + info.Repr())
}

func (*task) OnRetry(_ context.Context, r *lovage.Request, _ *lovage.ErrorInfo) {
	r.Log().Warn("OnRetry")
}

func (*task) Run(ctx context.Context, in Ends) (string, error) {
	r := lovage.RequestFrom(ctx)
	if r.Retries > 0 || r.Delivery.Redelivered {
		r.Log().Warn("runs again", "losses", r.Delivery.Losses)
		return "again", nil
	}
	r.Log().Warn("runs", "pid", os.Getpid())
	for end := time.After(time.Duration(in.Seconds * float64(time.Second))); in.Seconds > 0; in.Seconds = 0 {
		if in.How == "deaf" { // to its context
			<-end
			continue
		}
		select {
		case <-end:
		case <-ctx.Done():
			return "", context.Cause(ctx)
		}
	}
	switch in.How {
	case "failure":
		return "", errors.New("boom")
	case "retry":
		return "", lovage.Retry(errors.New("boom"), lovage.Countdown(time.Second))
	case "ignore":
		return "", lovage.ErrIgnore
	case "reject":
		return "", lovage.Reject(errors.New("boom"), false)
	case "requeue":
		return "", lovage.Reject(errors.New("boom"), true)
	case "exit": // the process of the run
		os.Exit(7)
	}
	return "done", nil
}

func declare(app *lovage.App) *lovage.Class[*task, Ends, string] {
	return lovage.Register(app, "ends.run", &task{})
}

func main() {
	app := lovage.New("ends", lovage.Config{})
	declare(app)
	cli.Main(app)
}
