package sqlbroker

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"

	"github.com/lovage-go/lovage/broker"
	"github.com/lovage-go/lovage/internal/sqlstore"
)

func init() {
	broker.Register(func(ctx context.Context, cfg broker.Config) (broker.Conn, error) {
		c, err := Open(ctx, cfg)
		if err != nil {
			return nil, err
		}
		return c, nil
	}, "sqlite")
}

// DefaultMaxBody is the largest body taken when the configuration names none.
const DefaultMaxBody = 64 << 20

// Conn is a connection to the embedded broker. It is safe for concurrent use.
type Conn struct {
	db      *sqlstore.DB
	log     *slog.Logger
	maxBody int
	lease   leaseDefault

	mu        sync.Mutex
	closed    bool
	consumers map[*Consumer]struct{}
}

// Open opens or creates the store that cfg.URL names.
func Open(ctx context.Context, cfg broker.Config) (*Conn, error) {
	sc, err := sqlstore.ParseURL(cfg.URL, cfg.Options)
	if err != nil {
		return nil, err
	}
	return open(ctx, cfg, sc)
}

func open(ctx context.Context, cfg broker.Config, sc sqlstore.Config) (*Conn, error) {
	sc.Logger = cfg.Log()
	db, err := sqlstore.Open(ctx, sc)
	if err != nil {
		return nil, fault(err)
	}
	return &Conn{
		db: db, log: cfg.Log(), maxBody: cmp.Or(cfg.MaxBody, DefaultMaxBody), lease: leaseDefault(cmp.Or(sc.Lease, sqlstore.DefaultLease)),
		consumers: map[*Consumer]struct{}{},
	}, nil
}

// Features: everything but low priorities first.
func (c *Conn) Features() broker.Features {
	return broker.Features{
		Delay: true, Park: true, Priority: true, DeadLetter: true, Durable: true, Ordered: true,
		MaxBody: c.maxBody,
	}
}

// StoreID is "sqlite:" and the file's resolved path.
func (c *Conn) StoreID() string { return c.db.StoreID() }

// Confirms: a publish that returns nil is committed.
func (c *Conn) Confirms() bool { return true }

// Declare makes queues, exchanges and bindings exist.
func (c *Conn) Declare(ctx context.Context, queues ...broker.Queue) error {
	plans := make([]plan, 0, len(queues))
	for _, q := range queues {
		p, err := planOf(q)
		if err != nil {
			return err
		}
		plans = append(plans, p)
	}
	return fault(c.db.Update(ctx, func(tx *sqlstore.Tx) error {
		for _, p := range plans {
			if err := p.declare(tx); err != nil {
				return err
			}
		}
		return nil
	}))
}

// plan is a declaration as the store wants it.
type plan struct {
	name     string
	check    bool // it must exist already
	bindings []sqlstore.Binding
}

func planOf(q broker.Queue) (plan, error) {
	if q.Name == "" {
		return plan{}, fmt.Errorf("declare queue: it has no name: %w", broker.ErrNoQueue)
	}
	p := plan{name: q.Name, check: q.NoDeclare}
	for _, b := range append([]broker.Binding{{Exchange: q.Exchange, RoutingKey: q.RoutingKey}}, q.Bindings...) {
		kind := cmp.Or(b.Exchange.Type, sqlstore.KindDirect)
		switch kind {
		case sqlstore.KindDirect, sqlstore.KindTopic, sqlstore.KindFanout:
		default:
			return p, fmt.Errorf("declare queue %q: exchange %q is of type %q, the SQLite broker has direct, topic and fanout: %w",
				q.Name, b.Exchange.Name, kind, broker.ErrUnsupported)
		}
		if b.Exchange.Name != "" {
			p.bindings = append(p.bindings, sqlstore.Binding{Exchange: b.Exchange.Name, Kind: kind, Pattern: b.RoutingKey})
		}
	}
	return p, nil
}

func (p plan) declare(tx *sqlstore.Tx) error {
	if !p.check {
		return tx.Declare(p.name, p.bindings...)
	}
	ok, err := tx.HasQueue(p.name)
	if err == nil && !ok {
		err = fmt.Errorf("queue %q is marked no_declare and does not exist: %w", p.name, broker.ErrNoQueue)
	}
	return err
}

// Close closes the consumers, which hands back what they hold, and gives up the
// file. Closing twice is no error.
func (c *Conn) Close() error {
	c.mu.Lock()
	if c.closed {
		c.mu.Unlock()
		return nil
	}
	c.closed = true
	open := make([]*Consumer, 0, len(c.consumers))
	for cs := range c.consumers {
		open = append(open, cs)
	}
	c.mu.Unlock()
	var errs []error
	for _, cs := range open {
		errs = append(errs, cs.Close())
	}
	return errors.Join(append(errs, fault(c.db.Close()))...)
}

func (c *Conn) alive() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return fmt.Errorf("sqlite %s: %w", c.db.Path(), broker.ErrClosed)
	}
	return nil
}

var sentinels = sqlstore.Sentinels{
	Closed: broker.ErrClosed, Unavailable: broker.ErrUnavailable, LeaseLost: broker.ErrLeaseLost, NoQueue: broker.ErrNoQueue, TooLarge: broker.ErrTooLarge,
}

func fault(err error) error { return sentinels.Map(err) }

var (
	_ broker.Conn          = (*Conn)(nil)
	_ broker.Fanouter      = (*Conn)(nil)
	_ broker.Purger        = (*Conn)(nil)
	_ broker.Lengther      = (*Conn)(nil)
	_ broker.BindingLister = (*Conn)(nil)
	_ broker.Peeker        = (*Conn)(nil)
	_ broker.Pauser        = (*Conn)(nil)
	_ broker.DeadLetterer  = (*Conn)(nil)
	_ broker.Confirmer     = (*Conn)(nil)
	_ broker.StoreIdentity = (*Conn)(nil)
)
