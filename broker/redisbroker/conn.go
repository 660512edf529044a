package redisbroker

import (
	"cmp"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/lovage-go/lovage/broker"
	"github.com/lovage-go/lovage/internal/redisconn"
	"github.com/lovage-go/lovage/internal/transport"
)

func init() {
	broker.Register(func(ctx context.Context, cfg broker.Config) (broker.Conn, error) {
		c, err := Open(ctx, cfg)
		if err != nil {
			return nil, err
		}
		return c, nil
	}, "redis", "rediss", "redis+socket", "sentinel", "rediscluster", "redis+cluster", "rediss+cluster")
}

const (
	// DefaultMaxBody is the largest body taken when the configuration names none.
	DefaultMaxBody = 64 << 20
	// DefaultLease is how long a claim outlives the last sign of life of its holder.
	DefaultLease = 30 * time.Second
)

// Conn is a connection to the broker. It is safe for concurrent use.
type Conn struct {
	rdb     *redisconn.Client
	log     *slog.Logger
	maxBody int
	keys    keys
	lease   time.Duration
	// visibility is Python's visibility timeout, 0 if it is not given.
	visibility time.Duration

	tags string // random part of delivery tags
	tag  atomic.Uint64
	ears *redisconn.Subscriber

	attempts attempts
	closed   atomic.Bool
	cut      atomic.Bool // cut off: nothing is handed back

	mu        sync.Mutex
	known     map[string]bool // queues that are in the set of queues
	consumers map[*Consumer]struct{}
	listeners map[string]map[*listener]struct{} // by pattern subscribed
}

// Open connects to the server that cfg.URL names. Of the transport options, and of
// the query of the URL, which comes first, it heeds kombu's global_keyprefix, sep,
// priority_steps, fanout_prefix, fanout_patterns, unacked_key, unacked_index_key,
// master_name, sentinel_kwargs, socket_timeout, socket_connect_timeout,
// health_check_interval, client_name, ssl, lease (seconds, 30), and
// visibility_timeout: if it is given, claims of Python workers that are older are
// given back, as Python workers do for one another.
func Open(ctx context.Context, cfg broker.Config) (*Conn, error) {
	o := transport.ReadURL(cfg.Options, cfg.URL)
	lease, visibility := o.Positive("lease", DefaultLease), o.Seconds("visibility_timeout", 0)
	rdb, err := redisconn.Dial(ctx, cfg.URL, o)
	if err != nil {
		return nil, fmt.Errorf("open broker %s: %w", broker.Redact(cfg.URL), fault(ctx, err))
	}
	k, err := newKeys(o, rdb.Cluster)
	if err != nil {
		rdb.Close()
		return nil, fmt.Errorf("open broker %s: %w", broker.Redact(cfg.URL), err)
	}
	k.fanout = k.prefix + fanoutPrefix(o, rdb.DB)
	c := &Conn{
		rdb: rdb, log: cfg.Log(), maxBody: cmp.Or(cfg.MaxBody, DefaultMaxBody), keys: k,
		lease: lease, visibility: visibility, tags: redisconn.Token(),
		known: map[string]bool{}, consumers: map[*Consumer]struct{}{}, listeners: map[string]map[*listener]struct{}{},
	}
	c.ears = redisconn.NewSubscriber(rdb, fanoutHome, true, c.heard, func() {
		c.log.Info("broadcasts are heard again after a lost connection; those in between are missed")
	})
	return c, nil
}

// Features: all, priority 0 first.
func (c *Conn) Features() broker.Features {
	return broker.Features{
		Delay: true, Park: true, Priority: true, LowFirst: true, DeadLetter: true, Durable: true, Ordered: true, Parallel: true,
		MaxBody: c.maxBody,
	}
}

// StoreID names the server and database. A result backend with a key prefix of
// its own has another, and so has one in the same cluster, where queues and
// results are in different slots.
func (c *Conn) StoreID() string {
	if c.keys.spread {
		return c.rdb.ID + " queues under " + c.keys.prefix
	}
	return c.rdb.ID
}

// Confirms: a publish that returns nil is on the server.
func (c *Conn) Confirms() bool { return true }

// Close closes the consumers, which hands back what they hold, and the
// connections. Closing twice is no error.
func (c *Conn) Close() error {
	c.mu.Lock()
	if c.closed.Load() {
		c.mu.Unlock()
		return nil
	}
	c.closed.Store(true)
	var open []*Consumer
	for cs := range c.consumers {
		open = append(open, cs)
	}
	var listening []*listener
	for _, ls := range c.listeners {
		for l := range ls {
			listening = append(listening, l)
		}
	}
	c.mu.Unlock()
	var errs []error
	for _, cs := range open {
		errs = append(errs, cs.Close())
	}
	for _, l := range listening {
		l.end()
	}
	c.ears.Close()
	c.rdb.Close()
	return errors.Join(errs...)
}

func (c *Conn) alive() error {
	if c.closed.Load() {
		return fmt.Errorf("redis broker %s: %w", c.rdb.ID, broker.ErrClosed)
	}
	return nil
}

// newTag makes a delivery tag, unique among all producers; kombu's are UUIDs,
// and a Python worker uses it as its field in unacked.
func (c *Conn) newTag(dst []byte) []byte {
	n := c.tag.Add(1)
	var b [8]byte
	for i := range b {
		b[i] = byte(n >> (56 - 8*i))
	}
	var h [16]byte
	hex.Encode(h[:], b[:])
	dst = append(dst, c.tags[:8]...)
	dst = append(append(dst, '-'), c.tags[8:12]...)
	dst = append(append(dst, "-4"...), c.tags[13:16]...)
	dst = append(append(dst, "-a"...), h[1:4]...)
	return append(append(dst, '-'), h[4:]...)
}

var sentinels = redisconn.Sentinels{Closed: broker.ErrClosed, Unavailable: broker.ErrUnavailable}

func fault(ctx context.Context, err error) error { return sentinels.Fault(ctx, err) }

var (
	_ broker.Conn          = (*Conn)(nil)
	_ broker.Fanouter      = (*Conn)(nil)
	_ broker.ReplyQueuer   = (*Conn)(nil)
	_ broker.Purger        = (*Conn)(nil)
	_ broker.Lengther      = (*Conn)(nil)
	_ broker.BindingLister = (*Conn)(nil)
	_ broker.Peeker        = (*Conn)(nil)
	_ broker.Pauser        = (*Conn)(nil)
	_ broker.Unparker      = (*Conn)(nil)
	_ broker.DeadLetterer  = (*Conn)(nil)
	_ broker.Confirmer     = (*Conn)(nil)
	_ broker.StoreIdentity = (*Conn)(nil)
)
