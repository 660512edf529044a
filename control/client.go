package control

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/lovage-go/lovage/broker"
)

// DefaultTimeout is how long replies are collected if nothing else is said.
const DefaultTimeout = time.Second

// ClientConfig is what a [Client] is given.
type ClientConfig struct {
	Conn      func(context.Context) (broker.Conn, error) // opens at first use
	Clock     Clock
	NewID     func() string // of tickets and reply queues: UUIDs
	Namespace string        // control_exchange; "" is celery
	Logger    *slog.Logger  // nil is slog.Default()
	// Revoking is called beside the sending of a revoke to all nodes, which returns
	// after it. nil is nothing.
	Revoking func(ctx context.Context, ids []string)
}

// Client asks workers. It is safe for concurrent use: each call has a reply
// queue of its own.
type Client struct{ cfg ClientConfig }

// NewClient returns a client. It does no I/O.
func NewClient(cfg ClientConfig) *Client {
	cfg.Namespace = cmp.Or(cfg.Namespace, Namespace)
	if cfg.Logger == nil {
		cfg.Logger = slog.Default()
	}
	return &Client{cfg}
}

// Options are those of one broadcast.
type Options struct {
	// Destination names the nodes that are meant. Without it all are, or those
	// whose name Pattern matches in the way of Matcher (Glob if empty).
	Destination []string
	Pattern     string
	Matcher     string
	// Signal is what Terminate and RevokeStamped kill with, by name or number:
	// SIGKILL. A run in a goroutine or a thread cannot be killed and gets none.
	// Default SIGTERM.
	Signal string
	// Reply collects replies; the helpers for what only does something leave it
	// to the caller, as Celery does.
	Reply bool
	// Timeout is how long replies are collected. Default 1 s.
	Timeout time.Duration
	// Limit is the number of replies that is enough. Default: as many as there
	// are destinations, else no limit.
	Limit int
	// Each is called for each reply as it comes.
	Each func(Reply)
}

// Broadcast sends a command to all workers, or to those the options name. With
// Reply it returns the replies that came in time, in that order; that there are
// none is no error. A node that refused says so in its reply: see [Reply.Err].
func (c *Client) Broadcast(ctx context.Context, method string, args map[string]any, o Options) ([]Reply, error) {
	q := &Request{Method: method, Destination: o.Destination, Pattern: o.Pattern, Matcher: o.Matcher}
	if q.Pattern != "" {
		q.Matcher = cmp.Or(q.Matcher, Glob)
	}
	if _, err := q.addressed(""); err != nil {
		return nil, fmt.Errorf("control %s: %w", method, err)
	}
	replies, err := c.broadcast(ctx, q, args, o)
	if err != nil {
		return replies, fmt.Errorf("control %s: %w", method, err)
	}
	return replies, nil
}

func (c *Client) broadcast(ctx context.Context, q *Request, args map[string]any, o Options) (replies []Reply, err error) {
	if q.Arguments, err = argsOf(args); err != nil {
		return nil, err
	}
	if ids := q.revokes(); c.cfg.Revoking != nil && len(ids) > 0 {
		var keeping sync.WaitGroup // beside the broadcast, which must not wait for a store that is away
		keeping.Go(func() { c.cfg.Revoking(ctx, ids) })
		defer keeping.Wait()
	}
	conn, err := c.cfg.Conn(ctx)
	if err != nil {
		return nil, err
	}
	fan, ok := conn.(broker.Fanouter)
	if !ok {
		return nil, fmt.Errorf("this broker has no fan-out: %w", broker.ErrUnsupported)
	}
	timeout := cmp.Or(max(o.Timeout, 0), DefaultTimeout)
	q.Clock, q.Expires = c.cfg.Clock.Forward(), time.Now().Add(timeout)
	var l broker.Listener
	if o.Reply {
		q.Ticket = c.cfg.NewID()
		q.ReplyTo = &Address{Exchange: replyExchangeOf(c.cfg.Namespace), RoutingKey: c.cfg.NewID()}
		if l, err = listen(ctx, conn, fan, q.ReplyTo); err != nil {
			return nil, err
		}
		defer func() { err = errors.Join(err, l.Close()) }()
	}
	msg, err := q.Message()
	if err != nil {
		return nil, err
	}
	exchange := exchangeOf(c.cfg.Namespace)
	msg.Exchange = exchange
	if err := fan.Broadcast(ctx, exchange, msg); err != nil || l == nil {
		return nil, err
	}
	limit := o.Limit
	if limit <= 0 {
		limit = len(o.Destination)
	}
	return c.collect(ctx, l, q.Ticket, timeout, limit, o.Each)
}

// revokes are the ids that a request revokes at all nodes.
func (q *Request) revokes() []string {
	if q.Method != "revoke" && q.Method != "terminate" || len(q.Destination) > 0 || q.Pattern != "" {
		return nil
	}
	ids, err := q.Arguments.Texts("task_id")
	if err != nil { // the nodes will say so
		return nil
	}
	return ids
}

func listen(ctx context.Context, conn broker.Conn, fan broker.Fanouter, to *Address) (broker.Listener, error) {
	if rq, ok := conn.(broker.ReplyQueuer); ok {
		return rq.Replies(ctx, to.Exchange, to.RoutingKey)
	}
	return fan.Listen(ctx, to.Exchange, to.RoutingKey)
}

// collect takes replies until there are enough or the time is over.
func (c *Client) collect(ctx context.Context, l broker.Listener, ticket string, timeout time.Duration, limit int, each func(Reply)) (replies []Reply, err error) {
	bounded, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	seen := map[string]bool{}
	for limit <= 0 || len(replies) < limit {
		d, err := l.Next(bounded)
		switch {
		case err == nil:
		case ctx.Err() == nil && errors.Is(err, context.DeadlineExceeded):
			return replies, nil
		default:
			return replies, err
		}
		r, err := parseReply(&d)
		if err != nil {
			c.cfg.Logger.Warn("Malformed reply to remote control passed over", "error", err)
			continue
		}
		c.cfg.Clock.Adjust(r.Clock)
		if r.Ticket != "" && r.Ticket != ticket {
			continue
		}
		if seen[r.Node] {
			c.cfg.Logger.Warn("Received multiple replies from node name: "+r.Node+". Please make sure you give each node a unique nodename.", "node", r.Node)
		}
		seen[r.Node] = true
		replies = append(replies, *r)
		if each != nil {
			each(*r)
		}
	}
	return replies, nil
}

func parseReply(d *broker.Delivery) (*Reply, error) {
	if err := readable(d); err != nil {
		return nil, err
	}
	return ParseReply(d.Headers, d.Body)
}
