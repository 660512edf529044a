// Package lovage is a distributed task queue that speaks Celery's wire protocol,
// so that Go and Python programs share queues, results, events and control.
//
// # Tasks
//
// A task is a function or a class with a name. Its arguments are one struct,
// whose fields stand for the parameters of the Python function in order:
//
//	type AddArgs struct {
//		X int
//		Y int `lovage:"y,default=0"`
//	}
//
//	app := lovage.New("proj", lovage.Config{BrokerURL: "sqlite:///tmp/proj.db", ResultBackend: "sqlite:///tmp/proj.db"})
//	add := lovage.Func(app, "proj.add", func(ctx context.Context, in AddArgs) (int, error) {
//		return in.X + in.Y, nil
//	})
//	res, err := add.Delay(ctx, AddArgs{X: 2, Y: 2})
//	sum, err := res.Get(ctx)
//
// A field is called like its Go name in snake case, unless its tag names it. The
// tag's options: default=JSON (the last one, it takes the rest of the tag),
// optional (absent is the zero value), kwonly, rest (Python's *args, a slice)
// and extra (Python's **kwargs, a map). A default is for callers who leave the
// argument out; in Go a field left out is its zero value and is sent as that.
// Fields that are not exported, and those tagged "-", are no parameters. Any
// other type is the one positional parameter; [Args] takes the call as it is,
// and struct{} nothing.
//
// A class embeds [Task]. One instance serves all runs of its process, keeps what
// it opens in [Lazy] fields, and has hooks: Init, BeforeStart, OnSuccess,
// OnFailure, OnRetry, AfterReturn, Around, Close. See [Task] and [Register].
//
// # Running
//
// This package declares, calls and executes one task. Package worker consumes
// queues and calls [App.Execute]; package cli makes a program of an App.
// Drivers for brokers and result stores are imported by main: package embedded
// for the SQLite store that needs no server, or broker/... and backend/... .
//
// # What comes back
//
// What a run returns decides its state:
//
//	v, nil                   SUCCESS
//	any error                FAILURE, or a retry if RetryOn matches it
//	Retry(err, opts...)      RETRY; FAILURE with err once MaxRetries is reached
//	ErrIgnore                no state
//	Reject(err, requeue)     FAILURE and a dead letter, or back to the queue
//	&TaskError{Type: ...}    FAILURE with the exception that Python will see
//	a panic                  FAILURE, with the stack as traceback
package lovage
