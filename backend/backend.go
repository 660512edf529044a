package backend

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"github.com/lovage-go/lovage/internal/scheme"
	"github.com/lovage-go/lovage/protocol"
)

// Record is an encoded result; see [protocol.Record].
type Record = protocol.Record

// Backend stores results. It is safe for concurrent use.
type Backend interface {
	// Store writes records in order, obeying sticky success.
	Store(ctx context.Context, recs ...*Record) error
	// Fetch returns one record for each id, in order; an unknown or expired id
	// gives a Record with that TaskID and no Meta.
	Fetch(ctx context.Context, ids ...string) ([]Record, error)
	// Forget deletes records; an unknown id is no error.
	Forget(ctx context.Context, ids ...string) error
	Features() Features
	Close() error
}

// Features are the abilities that are data, not methods.
type Features struct {
	Expires bool // records vanish by themselves after Record.Expires
	Durable bool // records outlive the process
	Chords  bool // results can be collected for chords
}

// Watcher wakes a client that waits for results.
type Watcher interface {
	// Watch rings after a record of one of the ids was written. A ring says
	// only "look"; one may be spurious, and, after a lost connection, one may
	// be late, so that callers look again now and then.
	Watch(ctx context.Context, ids ...string) (Watch, error)
}

// Watch is a subscription. Ring is never closed; Close ends the subscription.
type Watch interface {
	Ring() <-chan struct{}
	Close() error
}

// GroupStore keeps the members of a group as an encoded document.
type GroupStore interface {
	SaveGroup(ctx context.Context, id string, doc []byte, expires time.Duration) error
	RestoreGroup(ctx context.Context, id string) ([]byte, error) // nil: unknown
	DeleteGroup(ctx context.Context, id string) error
}

// OnceClaimer guards a message that may have been sent twice with one id.
type OnceClaimer interface {
	// ClaimOnce takes the id for owner until the lease ends. It reports false
	// if the id is done or held by another owner whose lease still runs.
	ClaimOnce(ctx context.Context, id, owner string, lease time.Duration) (bool, error)
	// DoneOnce marks the id as done for keep.
	DoneOnce(ctx context.Context, id, owner string, keep time.Duration) error
}

// LossCounter counts lost workers by task id, for brokers that cannot.
type LossCounter interface {
	// CountLoss counts one more than was known, so that to ask again after a lost
	// answer counts nothing twice. Who knows less than was counted is told that.
	CountLoss(ctx context.Context, taskID string, known int, keep time.Duration) (losses int, err error)
	// Losses is what was counted so far.
	Losses(ctx context.Context, taskID string) (losses int, err error)
	// ForgetLosses drops the count.
	ForgetLosses(ctx context.Context, taskID string) error
}

// Expecter is a store whose results come to the process that made the call.
// Expect is called before the message of the call is sent; replyTo goes with it.
type Expecter interface {
	Expect(ctx context.Context, ids ...string) (replyTo string, err error)
}

// Doubter knows why a result that was waited for in vain may never come.
type Doubter interface{ LateError(id string) error }

// Cleaner deletes expired records of a store that does not do it by itself.
type Cleaner interface {
	Cleanup(ctx context.Context) (deleted int, err error)
}

// Errors that drivers return.
var (
	ErrClosed      = errors.New("backend: closed")
	ErrUnavailable = errors.New("backend: unavailable")
	ErrUnsupported = errors.New("backend: not supported")
)

// Config is what a driver is opened with.
type Config struct {
	URL     string
	Options map[string]any // result_backend_transport_options, Celery's names
	Logger  *slog.Logger   // nil: slog.Default()

	// For results that travel as messages.
	BrokerURL     string
	BrokerOptions map[string]any
	// OpenBroker, if it is set, opens a broker.Conn to the one of BrokerURL's that
	// calls are sent by. This package knows no brokers.
	OpenBroker func(context.Context) (any, error)
	Expires    time.Duration // result_expires; 0: the driver's default
	Persistent bool          // result_persistent: messages survive the server's restart
}

// Log returns the logger, never nil.
func (c Config) Log() *slog.Logger {
	if c.Logger != nil {
		return c.Logger
	}
	return slog.Default()
}

// Opener opens a store for a URL of its scheme.
type Opener func(ctx context.Context, cfg Config) (Backend, error)

var drivers = scheme.Table[Opener]{Kind: "result backend", Setting: "result_backend", Import: map[string]string{
	"memory":       "github.com/lovage-go/lovage/memory",
	"cache+memory": "github.com/lovage-go/lovage/memory",
	"sqlite":       "github.com/lovage-go/lovage/backend/sqlbackend",
	"redis":        "github.com/lovage-go/lovage/backend/redisbackend",
	"rediss":       "github.com/lovage-go/lovage/backend/redisbackend",
	"redis+socket": "github.com/lovage-go/lovage/backend/redisbackend",
	"socket":       "github.com/lovage-go/lovage/backend/redisbackend",
	"sentinel":     "github.com/lovage-go/lovage/backend/redisbackend",
	"rediscluster": "github.com/lovage-go/lovage/backend/redisbackend",
	"rpc":          "github.com/lovage-go/lovage/backend/rpcbackend",
}}

// Register makes a driver available under URL schemes. It is called from a
// driver's init; a scheme registered twice panics.
func Register(open Opener, schemes ...string) { drivers.Register(open, schemes...) }

// Open opens the store that the URL's scheme names.
func Open(ctx context.Context, cfg Config) (Backend, error) {
	open, err := drivers.Lookup(cfg.URL, scheme.Redact(cfg.URL))
	if err != nil {
		return nil, err
	}
	return open(ctx, cfg)
}
