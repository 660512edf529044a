package amqpbroker

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"reflect"
	"sync"
	"sync/atomic"
	"time"

	"github.com/lovage-go/lovage/broker"
)

func init() {
	broker.Register(func(ctx context.Context, cfg broker.Config) (broker.Conn, error) {
		c, err := Open(ctx, cfg)
		if err != nil {
			return nil, err
		}
		return c, nil
	}, "amqp", "amqps", "pyamqp", "pyamqps", "librabbitmq")
}

const (
	// DefaultMaxBody is the largest body taken when the configuration names none.
	DefaultMaxBody = 64 << 20
	// callTimeout bounds a call whose context has no deadline.
	callTimeout  = 30 * time.Second
	closeTimeout = 5 * time.Second
)

// Conn is a connection to the broker. It is safe for concurrent use.
type Conn struct {
	at      *address
	opt     options
	log     *slog.Logger
	maxBody int
	name    string

	out *line // messages, declarations
	in  *line // deliveries, acknowledgements

	open   context.Context // ends with Close
	shut   context.CancelFunc
	group  sync.WaitGroup
	closed atomic.Bool
	wasCut atomic.Bool
	dead   atomic.Bool  // the queue of dead letters is there
	notes  broker.Notes // of consumers that bring none
	lacks  lacks

	press sync.Mutex // who opens the publisher; guards the next
	pub   *publisher

	mu        sync.Mutex // guards what follows
	queues    map[string]broker.Queue
	exchanges map[string]bool // those that are there; true: late messages come to a queue of it
	delays    map[string]int  // how many levels of a ladder are there
	consumers map[*Consumer]struct{}
	listeners map[*listener]struct{}
}

// Open connects to the server that cfg.URL names. Of the transport options, and of
// the query of the URL, which comes first, it heeds Celery's heartbeat (seconds,
// 10), connect_timeout (seconds, 10), login_method (PLAIN; AMQPLAIN, EXTERNAL) and
// frame_max; and of its own:
// consumer_timeout (seconds, 1800, what rabbitmq.conf says in milliseconds; 0 for
// none; workers warn of what may last, or lasts, too long; the argument
// x-consumer-timeout of a queue comes before it),
// passive (declare nothing, for accounts without the right to configure, and do
// without delays or dead letters if their queues are missing),
// queue_type and max_priority (of queues that say none), dead_letter_queue
// (lovage.dead), delayed_queue_type (quorum, as Celery; classic), ssl (true, or a map
// of files: TLS also for amqp://), and how the queues of events and of remote
// control are declared: event_queue_exclusive and control_queue_exclusive (true;
// false declares as Celery before 5.6 did), _durable, _expires and _ttl of both,
// and event_queue_prefix. The App fills in the options that have a setting.
func Open(ctx context.Context, cfg broker.Config) (*Conn, error) {
	o, err := readOptions(cfg.Options, cfg.URL)
	if err != nil {
		return nil, fmt.Errorf("open broker %s: %w", broker.Redact(cfg.URL), err)
	}
	at, err := parseURL(cfg.URL, &o)
	if err != nil {
		return nil, fmt.Errorf("open broker %s: %w", broker.Redact(cfg.URL), err)
	}
	c := &Conn{
		at: at, opt: o, log: cfg.Log(), maxBody: cmp.Or(cfg.MaxBody, DefaultMaxBody), name: "lovage",
		queues: map[string]broker.Queue{}, exchanges: map[string]bool{}, delays: map[string]int{}, consumers: map[*Consumer]struct{}{}, listeners: map[*listener]struct{}{},
	}
	c.open, c.shut = context.WithCancel(context.Background())
	c.out, c.in = newLine(c, "publish"), newLine(c, "consume")
	if _, err := c.out.get(ctx); err != nil {
		return nil, fmt.Errorf("open broker %s: %w", broker.Redact(cfg.URL), err)
	}
	if o.passive {
		if err := c.lookAround(ctx); err != nil {
			return nil, errors.Join(fmt.Errorf("open broker %s: %w", broker.Redact(cfg.URL), err), c.Close())
		}
	}
	return c, nil
}

// Features: whether a queue has priorities is its own affair, see x-max-priority.
// With the option passive, delays and dead letters are there if their queues are.
func (c *Conn) Features() broker.Features {
	return broker.Features{
		Delay: !c.lacks.delays, Park: !c.lacks.delays, Priority: c.opt.priority > 0 && c.opt.queueType != "quorum", DeadLetter: !c.lacks.dead,
		Durable: true, Ordered: true, MaxBody: c.maxBody,
	}
}

// ClaimLimit is the queue's argument x-consumer-timeout, which RabbitMQ heeds from
// 3.12 on, else the option consumer_timeout.
func (c *Conn) ClaimLimit(queue string) time.Duration {
	if ms, ok := millis(c.known(queue).Arguments["x-consumer-timeout"]); ok {
		return ms
	}
	return c.opt.claims
}

func millis(v any) (time.Duration, bool) {
	switch n := reflect.ValueOf(v); {
	case v == nil:
	case n.CanInt():
		return time.Duration(n.Int()) * time.Millisecond, true
	case n.CanUint():
		return time.Duration(n.Uint()) * time.Millisecond, true
	case n.CanFloat():
		return time.Duration(n.Float() * float64(time.Millisecond)), true
	}
	return 0, false
}

// StoreID names the server and virtual host.
func (c *Conn) StoreID() string { return "rabbitmq " + c.at.id() }

// Confirms: a publish that returns nil was confirmed by the server.
func (c *Conn) Confirms() bool { return true }

// Close closes the consumers, which hands back what they hold, and the
// connections. Closing twice is no error.
func (c *Conn) Close() error {
	c.mu.Lock()
	if c.closed.Swap(true) {
		c.mu.Unlock()
		return nil
	}
	consumers, listeners := c.consumers, c.listeners
	c.consumers, c.listeners = map[*Consumer]struct{}{}, map[*listener]struct{}{}
	c.mu.Unlock()
	c.shut()
	var ends []func() error
	for cs := range consumers {
		ends = append(ends, cs.Close)
	}
	for l := range listeners {
		ends = append(ends, l.Close)
	}
	err := errors.Join(together(ends...), together(c.in.close, c.out.close))
	c.group.Wait()
	return err
}

// together does things at one time: each may wait for an answer that does not come.
func together(do ...func() error) error {
	errs := make([]error, len(do))
	var all sync.WaitGroup
	for i, f := range do {
		all.Go(func() { errs[i] = f() })
	}
	all.Wait()
	return errors.Join(errs...)
}

// Cut breaks the connections as the death of the process would: nothing is handed
// back by us, and nothing that is done later has an effect. It is for tests.
func (c *Conn) Cut() {
	c.wasCut.Store(true)
	c.closed.Store(true)
	c.shut()
	c.in.cut()
	c.out.cut()
}

func (c *Conn) alive() error {
	if c.closed.Load() {
		return c.errClosed()
	}
	return nil
}

func (c *Conn) errClosed() error {
	return fmt.Errorf("rabbitmq broker %s: %w", c.at.id(), broker.ErrClosed)
}

// bound gives a deadline to a context that has none.
func (c *Conn) bound(ctx context.Context) (context.Context, context.CancelFunc) {
	if _, ok := ctx.Deadline(); ok {
		return ctx, func() {}
	}
	return context.WithTimeoutCause(ctx, callTimeout, fmt.Errorf("RabbitMQ does not answer: %w", broker.ErrUnavailable))
}

var (
	_ broker.Conn          = (*Conn)(nil)
	_ broker.Fanouter      = (*Conn)(nil)
	_ broker.ReplyQueuer   = (*Conn)(nil)
	_ broker.ResultQueuer  = (*Conn)(nil)
	_ broker.ClaimLimiter  = (*Conn)(nil)
	_ broker.Purger        = (*Conn)(nil)
	_ broker.Lengther      = (*Conn)(nil)
	_ broker.DeadLetterer  = (*Conn)(nil)
	_ broker.Confirmer     = (*Conn)(nil)
	_ broker.StoreIdentity = (*Conn)(nil)
)
