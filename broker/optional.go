package broker

import (
	"context"
	"time"

	"github.com/lovage-go/lovage/protocol"
)

// Fanouter delivers a message to everyone who listens at that moment.
type Fanouter interface {
	// Broadcast sends each message to every listener of the exchange whose
	// pattern matches the message's RoutingKey. Nobody listening is no error.
	Broadcast(ctx context.Context, exchange string, msgs ...*Message) error
	// Listen starts to receive. pattern is an AMQP topic pattern: words parted
	// by dots, * for one word, # for any number.
	Listen(ctx context.Context, exchange, pattern string) (Listener, error)
}

// Listener receives broadcasts from the moment Listen returned. A listener that
// does not keep up loses the oldest and is told so by Missed.
type Listener interface {
	Next(ctx context.Context) (Delivery, error)
	Missed() int64
	Close() error
}

// ReplyQueuer keeps the short-lived queues in which replies to remote control
// wait. Replies by a driver without it go by its Fanouter, whose listeners then
// are the queues.
type ReplyQueuer interface {
	// Reply puts a message into the reply queue that is bound to its Exchange by
	// its RoutingKey. That there is none any more is no error. What nobody
	// fetches is gone after keep.
	Reply(ctx context.Context, keep time.Duration, m *Message) error
	// Replies makes the queue of a routing key and receives from it; the
	// listener's Close deletes it.
	Replies(ctx context.Context, exchange, routingKey string) (Listener, error)
}

// ResultQueuer makes queues in which results wait for the process that called.
type ResultQueuer interface {
	// ResultQueue makes a queue under a random name and receives from it. Without
	// a listener it is deleted, after expires at the latest.
	ResultQueue(ctx context.Context, expires time.Duration) (ResultListener, error)
}

// ResultListener receives from a queue of its own, and makes it again under its
// name when it is lost.
type ResultListener interface {
	Listener
	Queue() string
	// Lost counts how often the queue was lost, and how often it was made again:
	// what was sent before either may have found no queue.
	Lost() int64
}

// ClaimLimiter takes messages away that are claimed for too long, whatever their
// holder does.
type ClaimLimiter interface {
	// ClaimLimit is how long a message of a queue may be claimed; 0: for ever.
	ClaimLimit(queue string) time.Duration
}

// Purger deletes what waits in a queue (ready and delayed, not claimed).
type Purger interface {
	Purge(ctx context.Context, queue string) (int, error)
}

// Unknown is a count that the broker does not tell.
const Unknown = -1

// Length counts the messages of one queue; see [Unknown].
type Length struct{ Ready, Claimed, Delayed, Dead int }

// Lengther counts queues. With no names it counts every queue it knows.
type Lengther interface {
	Lengths(ctx context.Context, queues ...string) (map[string]Length, error)
}

// Bound is a queue that takes what its exchange gets with a routing key; of a
// topic exchange, a pattern.
type Bound struct{ Queue, Exchange, RoutingKey string }

// BindingLister lists the bindings of queues, in any order: of each exchange that
// the broker knows, and of those named, which another program may have declared
// where this one does not see it.
type BindingLister interface {
	Bindings(ctx context.Context, exchanges ...string) ([]Bound, error)
}

// Peeker looks at waiting messages without claiming them, next one first.
type Peeker interface {
	Peek(ctx context.Context, queue string, offset, limit int) ([]Delivery, error)
}

// Delayed is a message that waits for its time.
type Delayed struct {
	Delivery
	Due time.Time
}

// DelayPeeker looks at the messages of a queue that wait for their time, the one
// that is due first in front, without claiming them.
type DelayPeeker interface {
	PeekDelayed(ctx context.Context, queue string, offset, limit int) ([]Delayed, error)
}

// Pauser stops deliveries from a queue, durably, for all consumers.
type Pauser interface {
	Pause(ctx context.Context, queue string) error
	Resume(ctx context.Context, queue string) error
	Paused(ctx context.Context) ([]string, error)
}

// Unparker gives the delayed messages of a queue, which this broker keeps where
// only Go looks, back as plain messages with their ETA, for Python workers to
// wait with. It returns how many there were.
type Unparker interface {
	Unpark(ctx context.Context, queue string) (int, error)
}

// LeaseRenewer keeps the claims of a living consumer. The worker calls Renew
// every RenewEvery with all deliveries it holds; those whose claim has ended
// come back as lost, and their runs must stop.
type LeaseRenewer interface {
	RenewEvery() time.Duration
	Renew(ctx context.Context, held []*Delivery) (lost []*Delivery, err error)
}

// LossCounter counts, by message, the workers that died while they ran it. It
// is asked just before an Orphaned message runs again, so that a first run
// costs nothing and a message that was only waiting in a dead worker's hands
// is not blamed. The count is then one more than the delivery's Losses, however
// often it is asked for; who has lost the run too, with a child process, sets
// Losses to what was told and asks again.
type LossCounter interface {
	CountLoss(ctx context.Context, d *Delivery) (losses int, err error)
}

// LossMarker counts lost workers in the message itself, where a message cannot be
// changed in its place. It is asked, like a [LossCounter], just before an Orphaned
// message runs again, and only if the result store does not count. When the
// message was moved, a copy with the count waits in its queue and the claim has
// ended; the copy comes Orphaned, and MarkLoss of it then tells the count, once:
// the next call counts a loss more.
type LossMarker interface {
	MarkLoss(ctx context.Context, d *Delivery) (losses int, moved bool, err error)
}

// Dead is a dead letter.
type Dead struct {
	ID         string
	Queue      string
	Reason     string
	At         time.Time
	TaskID     string
	Task       string
	Losses     int
	Headers    []byte
	Properties protocol.Properties
	Body       []byte
}

// DeadLetterer serves an operator. Ids are those of [Dead].
type DeadLetterer interface {
	// DeadLetters lists newest first, after the id given ("" from the start).
	DeadLetters(ctx context.Context, queue, after string, limit int) ([]Dead, error)
	DeadLetter(ctx context.Context, id string) (Dead, error)
	// RequeueDead sends the letters back to their queues as they were, with
	// losses forgotten; DropDead deletes them. Both return how many there were.
	RequeueDead(ctx context.Context, ids ...string) (int, error)
	DropDead(ctx context.Context, ids ...string) (int, error)
}

// Finish is all that the end of one run causes.
type Finish struct {
	Publish []*Message
	Store   []*protocol.Record
	Ends    []*ChordEnd // only where the result store counts chords
	Settle  Settlement
}

// ChordEnd is what the end of a chord causes: its body is sent, or its failure
// stored. It happens once for a chord, however many workers see it complete.
type ChordEnd struct {
	Group   string
	Keep    time.Duration // how long the end is remembered; 0: a day
	Publish []*Message
	Store   []*protocol.Record
	// Won is set by the commit: this end is the one that happened.
	Won bool
}

// AtomicFinisher commits finishes, each as a whole or not at all, refused with
// [ErrLeaseLost] if its claim has ended. It is used when broker and result
// backend are one store (equal [StoreIdentity]).
type AtomicFinisher interface {
	FinishAll(ctx context.Context, finishes ...Finish) error
}

// StoreIdentity names the store behind a driver, so that a broker and a backend
// can find that they share it. An empty id shares with nobody.
type StoreIdentity interface{ StoreID() string }

// TxPublisher publishes inside a transaction of the caller's.
type TxPublisher interface {
	PublishTx(ctx context.Context, tx any, msgs ...*Message) error
}

// Confirmer tells whether publishes are confirmed by the broker.
type Confirmer interface{ Confirms() bool }

// Consoler lets a person do the protocol's operations one by one.
type Consoler interface {
	Console(ctx context.Context) (Console, error)
}

// Console is one such session, for one goroutine. What it has taken and not
// acknowledged goes back when it is closed.
type Console interface {
	// Commands lists the operations, in the order of their names.
	Commands() []ConsoleCommand
	// Do carries one out and says what came of it. An operation that there is not,
	// or with the wrong number of arguments, is an error that says what there is.
	Do(ctx context.Context, name string, args ...string) (string, error)
	Close() error
}

// ConsoleCommand is an operation: its name, and its arguments for people, with
// those in brackets that may be left out.
type ConsoleCommand struct{ Name, Args string }
