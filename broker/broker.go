package broker

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/lovage-go/lovage/protocol"
)

// Message is what is published; see [protocol.Message].
type Message = protocol.Message

// Conn is a connection to a broker. It is safe for concurrent use.
type Conn interface {
	// Declare makes the queues, their exchanges and bindings exist. Declaring
	// what exists with the same shape is no error.
	Declare(ctx context.Context, queues ...Queue) error

	// Publish sends messages and returns when the broker has them. A nil error
	// means all were accepted. If only some were refused the error is a
	// *[BatchError] with an entry for each message; any other error means that
	// none is known to have been accepted.
	Publish(ctx context.Context, msgs ...*Message) error

	// Consume starts a consumer. It lives until its Close or the Conn's.
	Consume(ctx context.Context, cfg ConsumeConfig) (Consumer, error)

	// Features tells what the driver's messages can do.
	Features() Features

	// Close releases the connection; claims of its consumers are handed back.
	Close() error
}

// Consumer takes messages from one or more queues. Its methods are safe for
// concurrent use; Claim is meant for one caller at a time.
type Consumer interface {
	// Claim waits for the first message and returns it with as many more, up
	// to limit, as are there without waiting. It returns ctx's cause when ctx
	// ends and [ErrClosed] after Close; claimed messages are never lost to either.
	Claim(ctx context.Context, limit int) ([]Delivery, error)

	// Settle ends claims. A partial failure is a *[BatchError] by position; a
	// claim that had already ended gives [ErrLeaseLost] for its entry. After
	// [ErrUnavailable] it is open what happened: settling again is no error if
	// it was the earlier try that ended the claim.
	Settle(ctx context.Context, settlements ...Settlement) error

	// Update changes the queues that are consumed from; claims are untouched.
	Update(ctx context.Context, queues ...Queue) error

	// Close stops claiming and hands back, uncounted, what is claimed and unsettled.
	Close() error
}

// ConsumeConfig says what a consumer takes.
type ConsumeConfig struct {
	Queues []Queue
	// Worker names the consumer to other processes: a node name such as
	// celery@host. It need not be unique; drivers add what makes it so.
	Worker string
	// Strict empties the queues in their order, as far as they have messages of one
	// priority, where they take turns otherwise. A push broker does so with what it
	// has buffered.
	Strict bool
	// Window is the number of messages a push broker may buffer for this
	// consumer; 0 leaves it to the driver.
	Window int
	// Lease is how long a claim outlives the last sign of life of its holder.
	// 0 is the driver's default (30 s where there are leases).
	Lease time.Duration
	// Notes outlive the consumer, for a worker that replaces lost connections; nil:
	// there are none before, and nobody wants them after. Drivers use them that
	// cannot tell a death from a hand-back, or from a connection that was lost.
	Notes *Notes
}

// Delivery is a claimed message. Headers and Body are as received.
type Delivery struct {
	Headers    []byte // JSON object
	Properties protocol.Properties
	Body       []byte
	Exchange   string
	RoutingKey string
	Queue      string

	// Redelivered: the message was claimed before, whatever ended that claim.
	Redelivered bool
	// Orphaned: an earlier claim ended because its holder died or was cut off,
	// not by a hand-back. Only such a message can have cost a worker its life.
	// RabbitMQ does not tell the two apart: there it is set after either.
	Orphaned bool
	// Losses is the number of lost workers counted so far; see [LossCounter].
	Losses int

	// Malformed is set when the driver could not read the envelope. Body then
	// holds the raw bytes; the only sensible settlement is DeadLetter.
	Malformed error

	// Claim is the driver's own.
	Claim any
}

// Action says how a claim ends.
type Action uint8

// The ways a claim can end.
const (
	Ack        Action = iota // done; the message is deleted
	Reject                   // refused; the broker's own dead-letter rule, else deleted
	Requeue                  // back to the queue, as a new delivery, at the producing end
	HandBack                 // back to the queue unstarted: at the consuming end, no loss counted
	Park                     // back to the broker until Settlement.Until
	DeadLetter               // kept aside with Settlement.Reason for an operator
)

var actionNames = [...]string{"ack", "reject", "requeue", "hand back", "park", "dead-letter"}

func (a Action) String() string {
	if int(a) < len(actionNames) {
		return actionNames[a]
	}
	return fmt.Sprintf("action %d", a)
}

// Settlement ends one claim.
type Settlement struct {
	Delivery *Delivery
	Action   Action
	Until    time.Time // Park
	Reason   string    // DeadLetter: what an operator reads
	Started  bool      // HandBack: of a run that had begun
}

// Features are the abilities that are data, not methods.
type Features struct {
	Delay      bool // Message.NotBefore is honoured by the broker
	Park       bool // Settlement Park is honoured
	Priority   bool // Properties.Priority orders a queue
	LowFirst   bool // priority 0 is served first (Redis); else the highest number is
	DeadLetter bool // Settlement DeadLetter keeps the message
	Durable    bool // messages outlive the process that holds the broker
	Ordered    bool // one queue, one consumer, one priority: first in, first out
	Parallel   bool // FinishAll is quicker if a second call does not wait for the first
	MaxBody    int  // bytes; 0 is no limit of the broker's own

}

// Errors that drivers return. They are matched with errors.Is.
var (
	// ErrClosed: the connection or consumer was closed on this side.
	ErrClosed = errors.New("broker: closed")
	// ErrLeaseLost: the claim had ended before the settlement came; somebody
	// else has, or had, the message.
	ErrLeaseLost = errors.New("broker: lease lost")
	// ErrUnavailable: the broker cannot be reached or cannot serve now. Trying
	// again later is sensible; see [Retryable].
	ErrUnavailable = errors.New("broker: unavailable")
	// ErrTooLarge: the message exceeds what the broker takes.
	ErrTooLarge = errors.New("broker: message too large")
	// ErrNoQueue: nothing takes the message, or the queue does not exist.
	ErrNoQueue = errors.New("broker: no such queue")
	// ErrUnsupported: the driver cannot do what was asked.
	ErrUnsupported = errors.New("broker: not supported")
)

// Retryable reports whether err may be gone at the next try.
func Retryable(err error) bool { return errors.Is(err, ErrUnavailable) }

// BatchError is the outcome of a batch that failed in part. Errs has one entry
// for each item of the batch, nil where it succeeded.
type BatchError struct{ Errs []error }

func (e *BatchError) Error() string {
	n, first := 0, error(nil)
	for _, err := range e.Errs {
		if err != nil {
			if n++; first == nil {
				first = err
			}
		}
	}
	if n == 1 && len(e.Errs) == 1 {
		return first.Error()
	}
	return fmt.Sprintf("%d of %d failed, first: %v", n, len(e.Errs), first)
}

// Unwrap lets errors.Is look into every entry.
func (e *BatchError) Unwrap() []error { return e.Errs }

// EachError spreads the error of a batch call over its n items: the entries of a
// *BatchError, or the one error for every item.
func EachError(err error, n int) []error {
	errs := make([]error, n)
	var be *BatchError
	if errors.As(err, &be) && len(be.Errs) == n {
		copy(errs, be.Errs)
		return errs
	}
	for i := range errs {
		errs[i] = err
	}
	return errs
}

// Batch is the reverse of EachError: nil if all items went well, else a
// *BatchError of their outcomes.
func Batch(errs []error) error {
	for _, err := range errs {
		if err != nil {
			return &BatchError{Errs: errs}
		}
	}
	return nil
}
