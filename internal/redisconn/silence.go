package redisconn

import (
	"context"
	"crypto/tls"
	"net"
	"sync/atomic"
	"time"
)

const (
	// silenceBeats is how often a connection is looked at, and patience how long
	// an answer may take before it is asked whether the server or this one
	// connection is to blame. What was sent and may still be on its way gets
	// more, at slowLink bytes a second.
	silenceBeats = 250 * time.Millisecond
	patience     = time.Second
	slowLink     = 256 << 10
)

type dialFunc func(ctx context.Context, addr string, d *net.Dialer, c *tls.Config) (net.Conn, error)

// watchful makes a dialer whose connections notice that they are half open: the
// other end is gone, nobody has told, and what is sent meets silence. A slow
// server is silent on all connections, and a network that is away has no new
// ones. So a connection that waits too long for an answer asks on a new one; if
// that is answered, the old one is dead and closes. Else it waits on, until its
// deadlines end it.
func watchful(dial dialFunc) dialFunc {
	if dial == nil {
		dial = dialTCP
	}
	return func(ctx context.Context, addr string, d *net.Dialer, c *tls.Config) (net.Conn, error) {
		conn, err := dial(ctx, addr, d, c)
		if err != nil {
			return nil, err
		}
		w := &watched{Conn: conn, probe: func() bool {
			ctx, cancel := context.WithTimeout(context.Background(), d.Timeout)
			defer cancel()
			other, err := dial(ctx, addr, d, c)
			if err != nil {
				return false
			}
			defer other.Close()
			_ = other.SetDeadline(time.Now().Add(d.Timeout))
			if _, err := other.Write([]byte("PING\r\n")); err != nil {
				return false
			}
			n, _ := other.Read(make([]byte, 1)) // whatever it says, it is there
			return n > 0
		}}
		w.beat()
		return w, nil
	}
}

func dialTCP(ctx context.Context, addr string, d *net.Dialer, c *tls.Config) (net.Conn, error) {
	if c != nil {
		return (&tls.Dialer{NetDialer: d, Config: c}).DialContext(ctx, "tcp", addr)
	}
	return d.DialContext(ctx, "tcp", addr)
}

// watched is a connection that watches itself.
type watched struct {
	net.Conn
	probe  func() bool
	since  atomic.Int64 // when the first byte was written that nothing was read after; 0: none was
	sent   atomic.Int64 // bytes since then
	closed atomic.Bool
}

func (w *watched) Write(p []byte) (int, error) {
	n, err := w.Conn.Write(p)
	w.sent.Add(int64(n))
	w.since.CompareAndSwap(0, time.Now().UnixNano())
	return n, err
}

func (w *watched) Read(p []byte) (int, error) {
	n, err := w.Conn.Read(p)
	if n > 0 {
		w.since.Store(0)
		w.sent.Store(0)
	}
	return n, err
}

func (w *watched) Close() error {
	w.closed.Store(true)
	return w.Conn.Close()
}

// beat looks after the connection from time to time, until it is closed.
func (w *watched) beat() {
	time.AfterFunc(silenceBeats, func() {
		if w.closed.Load() {
			return
		}
		since := w.since.Load()
		limit := patience + time.Duration(w.sent.Load())*time.Second/slowLink
		if since > 0 && time.Since(time.Unix(0, since)) > limit && w.probe() {
			<-time.After(silenceBeats) // a server that was slow answers both at once
			if w.since.Load() == since {
				w.Close()
				return
			}
		}
		w.beat()
	})
}
