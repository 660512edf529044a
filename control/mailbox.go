package control

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/bits"
	"sync/atomic"
	"time"

	"github.com/lovage-go/lovage/broker"
	"github.com/lovage-go/lovage/protocol"
)

const (
	// maxBody is the largest request or reply that is read.
	maxBody = 8 << 20
	// commandTime bounds a command and the sending of its reply.
	commandTime = 10 * time.Second
	// keepReplies is how long a reply that nobody fetches is kept, as kombu keeps
	// the queue.
	keepReplies = 10 * time.Second
)

// Config is what a [Mailbox] is given.
type Config struct {
	Node      Node
	Commands  *Registry
	Namespace string       // control_exchange; "" is celery
	Logger    *slog.Logger // nil is slog.Default()
}

// Mailbox is the node's end of remote control on one connection. It hears what
// is broadcast from the moment Open returned.
type Mailbox struct {
	cfg       Config
	fan       broker.Fanouter
	replies   broker.ReplyQueuer // nil: replies go by fan
	listener  broker.Listener
	handled   atomic.Int64
	malformed atomic.Int64
}

// Open starts to listen. A broker without a fan-out is broker.ErrUnsupported.
func Open(ctx context.Context, conn broker.Conn, cfg Config) (*Mailbox, error) {
	cfg.Namespace = cmp.Or(cfg.Namespace, Namespace)
	if cfg.Logger == nil {
		cfg.Logger = slog.Default()
	}
	fan, ok := conn.(broker.Fanouter)
	if !ok {
		return nil, fmt.Errorf("remote control: this broker has no fan-out: %w", broker.ErrUnsupported)
	}
	l, err := fan.Listen(ctx, exchangeOf(cfg.Namespace), "")
	if err != nil {
		return nil, fmt.Errorf("remote control: listen on %s: %w", exchangeOf(cfg.Namespace), err)
	}
	m := &Mailbox{cfg: cfg, fan: fan, listener: l}
	m.replies, _ = conn.(broker.ReplyQueuer)
	return m, nil
}

// Run runs the commands that come, one after the other, until ctx ends, Close,
// or an error of the broker, which it returns. It never returns nil.
func (m *Mailbox) Run(ctx context.Context) error {
	for {
		d, err := m.listener.Next(ctx)
		if err != nil {
			return err
		}
		q, err := m.parse(&d)
		switch {
		case err != nil:
			m.reject(&d, err)
		case q != nil:
			m.handle(ctx, q)
		}
	}
}

// Close stops listening.
func (m *Mailbox) Close() error { return m.listener.Close() }

// Handled is the number of requests that were for this node.
func (m *Mailbox) Handled() int64 { return m.handled.Load() }

// Malformed is the number of messages that were no requests.
func (m *Mailbox) Malformed() int64 { return m.malformed.Load() }

// parse reads a request; it is nil if it is for others.
func (m *Mailbox) parse(d *broker.Delivery) (*Request, error) {
	if err := readable(d); err != nil {
		return nil, err
	}
	q, err := ParseRequest(d.Headers, d.Body)
	if err != nil {
		return nil, err
	}
	m.cfg.Node.Clock().Adjust(q.Clock)
	if mine, err := q.addressed(m.cfg.Node.Hostname()); err != nil || !mine {
		return nil, err
	}
	return q, nil
}

// readable refuses what cannot be a request or a reply.
func readable(d *broker.Delivery) error {
	switch ct := d.Properties.ContentType; {
	case d.Malformed != nil:
		return d.Malformed
	case ct != "" && ct != protocol.ContentJSON:
		return fmt.Errorf("content type %s is not %s", ct, protocol.ContentJSON)
	case len(d.Body) > maxBody:
		return fmt.Errorf("%d bytes, more than the %d that are read", len(d.Body), maxBody)
	}
	return nil
}

// reject counts a message and logs the 1st, 2nd, 4th, 8th ... of them.
func (m *Mailbox) reject(d *broker.Delivery, err error) {
	if n := m.malformed.Add(1); bits.OnesCount64(uint64(n)) == 1 {
		m.cfg.Logger.Warn("Malformed remote control request passed over", "so_far", n, "error", err,
			"body", string(d.Body[:min(len(d.Body), 200)]))
	}
}

func (m *Mailbox) handle(ctx context.Context, q *Request) {
	m.handled.Add(1)
	log := m.cfg.Logger
	ctx, cancel := context.WithTimeout(ctx, commandTime)
	defer cancel()
	value, err := m.cfg.Commands.run(ctx, m.cfg.Node, q)
	switch {
	case errors.Is(err, ErrNoReply):
		return
	case err != nil:
		log.Error("Remote control command failed: "+err.Error(), "command", q.Method, "error", err)
		value = map[string]string{"error": wording(err)}
	default:
		log.Debug("Remote control command", "command", q.Method)
	}
	if q.ReplyTo == nil {
		return
	}
	raw, err := encode(value)
	if err != nil {
		raw, _ = encode(map[string]string{"error": wording(fmt.Errorf("the reply cannot be encoded: %w", err))})
	}
	r := &Reply{Node: m.cfg.Node.Hostname(), Value: raw, Ticket: q.Ticket, Clock: m.cfg.Node.Clock().Forward()}
	if err := m.send(ctx, q.ReplyTo, r); err != nil && !errors.Is(err, context.Canceled) { // not at the node's own end
		log.Warn("A reply to remote control was not sent", "command", q.Method, "error", err)
	}
}

func (m *Mailbox) send(ctx context.Context, to *Address, r *Reply) error {
	msg, err := r.Message()
	if err != nil {
		return err
	}
	msg.Exchange, msg.RoutingKey = to.Exchange, to.RoutingKey
	if m.replies != nil {
		return m.replies.Reply(ctx, keepReplies, msg)
	}
	return m.fan.Broadcast(ctx, to.Exchange, msg)
}
