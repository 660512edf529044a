package demo

import (
	"log/slog"
	"time"

	"github.com/lovage-go/lovage"
)

// The queues of the demo. Logins go to one process alone, because what it is
// told by one call it must know in the next.
const (
	queue      = "lovage.demo"
	loginQueue = "lovage.demo.logins"
)

// Tasks are the handles of all that the demo runs. Client and workers declare
// the same ones, and a client never opens what belongs to a worker.
type Tasks struct {
	Count *lovage.Class[*CountFile, FileArgs, Counted]
	Merge *lovage.Handle[MergeArgs, Total]
	Login *lovage.Class[*Login, Credentials, bool]
	Order *lovage.Class[*Order, OrderArgs, string]
	Train *lovage.Handle[TrainArgs, string]
	Parse *lovage.Handle[string, int]
	Flaky *lovage.Handle[int, string]
	Add   *lovage.Handle[AddArgs, int]
}

// Declare declares the tasks. dir is what there is to count.
func Declare(app *lovage.App, dir string, pause time.Duration) *Tasks {
	return &Tasks{
		Count: lovage.Register(app, "demo.count", &CountFile{Tree: Tree{Dir: dir}, Pause: pause}),
		Merge: lovage.Func(app, "demo.merge", merge),
		Login: lovage.Register(app, "demo.login", &Login{}, lovage.Queue(loginQueue)),
		Order: lovage.Register(app, "demo.order", &Order{}),
		Train: lovage.Func(app, "demo.train", train),
		Parse: lovage.Func(app, "demo.parse", parse),
		Flaky: lovage.Func(app, "demo.flaky", flaky,
			lovage.RetryOn(errBusy), lovage.RetryBackoff(200*time.Millisecond, time.Second, false), lovage.MaxRetries(5)),
		Add: lovage.Func(app, "demo.add", add),
	}
}

// NewApp is the App of client and workers.
func NewApp(brokerURL, backendURL string, log *slog.Logger, opts ...lovage.AppOption) *lovage.App {
	return lovage.New("demo", lovage.Config{
		BrokerURL:          brokerURL,
		ResultBackend:      backendURL,
		TaskDefaultQueue:   queue,
		ResultExpires:      time.Hour,
		TaskMaxMessageSize: 64 << 20, // the parts of maxFiles files travel in one message
	}, append([]lovage.AppOption{lovage.WithLogger(log)}, opts...)...)
}
