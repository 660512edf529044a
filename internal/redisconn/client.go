package redisconn

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"strings"
	"time"

	"github.com/lovage-go/lovage/internal/transport"
	"github.com/redis/rueidis"
)

// Client is a client of one database, with its own connections. It is safe for
// concurrent use.
type Client struct {
	rueidis.Client
	DB      int
	Cluster bool
	ID      string        // the store: server and database
	Timeout time.Duration // of one round trip: socket_timeout, 10 s
}

// Dial connects and makes sure that the server answers.
//
// Of the options it reads socket_timeout (seconds, 10), socket_connect_timeout
// (seconds, 5), health_check_interval (seconds, 5: how long a connection may be
// silent before it is tried), client_name (lovage), and those of [ParseURL].
func Dial(ctx context.Context, url string, o *transport.Options) (*Client, error) {
	if o == nil {
		o = transport.Read(nil)
	}
	opt, id, err := ParseURL(url, o)
	if err != nil {
		return nil, err
	}
	scheme, _, _ := strings.Cut(url, ":")
	c := &Client{DB: opt.SelectDB, Cluster: IsCluster(scheme), ID: id, Timeout: o.Positive("socket_timeout", 10*time.Second)}
	opt.ConnWriteTimeout = c.Timeout
	opt.Dialer.Timeout = o.Positive("socket_connect_timeout", 5*time.Second)
	opt.Dialer.KeepAlive = o.Positive("health_check_interval", 5*time.Second)
	opt.DialCtxFn = watchful(opt.DialCtxFn)
	opt.DisableCache = true // client-side caching; ears ask for tracking themselves
	// The default of half a megabyte each is for other uses than one message.
	opt.ReadBufferEachConn, opt.WriteBufferEachConn = 64<<10, 64<<10
	opt.ClientName = o.Text("client_name", "lovage")
	if err := o.Err(); err != nil {
		return nil, err
	}
	done := make(chan error, 1)
	go func() {
		var err error
		c.Client, err = rueidis.NewClient(opt)
		done <- err
	}()
	select {
	case err = <-done:
	case <-ctx.Done():
		go func() { // the dial has its own timeout
			if err := <-done; err == nil {
				c.Client.Close()
			}
		}()
		return nil, context.Cause(ctx)
	}
	if err != nil {
		return nil, err
	}
	if c.Cluster && c.Mode() != rueidis.ClientModeCluster {
		c.Close()
		return nil, errors.New("the server is no node of a Redis Cluster: name it by redis://")
	}
	return c, nil
}

func dialSocket(ctx context.Context, path string, d *net.Dialer, _ *tls.Config) (net.Conn, error) {
	return d.DialContext(ctx, "unix", path)
}

// Limit gives a context for a round trip that must be waited for even if the
// caller's ends, because its outcome counts.
func (c *Client) Limit(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.WithoutCancel(ctx), c.Timeout)
}

// Deadline gives a context that ends with the caller's, and in any case in time.
func (c *Client) Deadline(ctx context.Context) (context.Context, context.CancelFunc) {
	if end, ok := ctx.Deadline(); ok && time.Until(end) <= c.Timeout {
		return ctx, func() {}
	}
	return context.WithTimeout(ctx, c.Timeout)
}

// Sentinels are the errors of the interface that a driver implements.
type Sentinels struct{ Closed, Unavailable error }

// passing are the answers of a server that cannot serve now and may later.
var passing = [...]string{"LOADING", "READONLY", "OOM", "MASTERDOWN", "CLUSTERDOWN", "BUSY", "TRYAGAIN", "MISCONF", "NOREPLICAS", "UNBLOCKED", "MAXCLIENTS", "ERR max number of clients"}

// Moving reports whether a cluster refused a command, before any of it was done,
// because the slot of its keys is on its way to another node.
func Moving(err error) bool {
	re, ok := rueidis.IsRedisErr(err)
	return ok && (re.IsTryAgain() || strings.HasPrefix(re.Error(), "MOVED") || strings.HasPrefix(re.Error(), "ASK"))
}

// Fault sorts an error: the context's cause, closed on this side, passing, or
// what the server refused for good.
func (s Sentinels) Fault(ctx context.Context, err error) error {
	if err == nil || errors.Is(err, s.Closed) || errors.Is(err, s.Unavailable) {
		return err
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if errors.Is(err, rueidis.ErrClosing) {
		return fmt.Errorf("redis: %w", s.Closed)
	}
	if re, ok := rueidis.IsRedisErr(err); ok {
		for _, p := range passing {
			if strings.HasPrefix(re.Error(), p) {
				return fmt.Errorf("redis: %w: %w", s.Unavailable, err)
			}
		}
		if _, moved := re.IsMoved(); moved {
			return fmt.Errorf("redis: the server is a node of a Redis Cluster, name it by rediscluster://: %w", err)
		}
		return fmt.Errorf("redis: %w", err)
	}
	return fmt.Errorf("redis: %w: %w", s.Unavailable, err)
}

// Answered reports whether an error is the server's own word, so that what was
// asked for did not happen.
func Answered(err error) bool {
	var re *rueidis.RedisError
	return errors.As(err, &re)
}
