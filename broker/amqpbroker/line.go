package amqpbroker

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/lovage-go/lovage/broker"
	amqp "github.com/rabbitmq/amqp091-go"
)

// line is a TCP connection to the server that is dialled when it is first
// needed, and again when it is needed after a loss. There are two, since a
// server in alarm stops to read from connections that publish: acknowledgements
// must not be stuck behind messages.
type line struct {
	conn *Conn
	role string

	turn chan struct{} // holds one token: who dials

	mu   sync.Mutex // guards what follows
	now  *session   // nil: none
	shut bool
}

// session is one life of a line.
type session struct {
	conn *amqp.Connection
	raw  net.Conn
	tap  *mended
	wire *cork
	lost chan struct{} // closed when it has ended

	mu      sync.Mutex // guards what follows
	cause   error
	blocked chan struct{} // nil, or closed when the server takes messages again
	reason  string
	dead    atomic.Bool
}

func newLine(c *Conn, role string) *line {
	return &line{conn: c, role: role, turn: make(chan struct{}, 1)}
}

// get gives the living session, dialling if there is none.
func (l *line) get(ctx context.Context) (*session, error) {
	if s, err := l.current(); s != nil || err != nil {
		return s, err
	}
	select {
	case l.turn <- struct{}{}:
		defer func() { <-l.turn }()
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	if s, err := l.current(); s != nil || err != nil {
		return s, err
	}
	s, err := l.conn.dial(ctx, l.role)
	if err != nil {
		return nil, err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.shut {
		s.hangUp()
		return nil, l.conn.errClosed()
	}
	l.now = s
	return s, nil
}

func (l *line) current() (*session, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.shut {
		return nil, l.conn.errClosed()
	}
	if l.now != nil && l.now.alive() {
		return l.now, nil
	}
	return nil, nil
}

// close ends the line for good.
func (l *line) close() error {
	l.mu.Lock()
	l.shut = true
	s := l.now
	l.mu.Unlock()
	if s == nil {
		return nil
	}
	return s.close()
}

// cut breaks the connection as the death of the process would.
func (l *line) cut() {
	l.mu.Lock()
	l.shut = true
	s := l.now
	l.mu.Unlock()
	if s != nil {
		s.hangUp()
		<-s.lost
	}
}

// dial connects, bounded by ctx, the connect timeout and Close.
func (c *Conn) dial(ctx context.Context, role string) (*session, error) {
	ctx, cancel := context.WithTimeout(ctx, c.opt.timeout)
	defer cancel()
	defer context.AfterFunc(c.open, cancel)()
	raw, err := (&net.Dialer{KeepAlive: 15 * time.Second}).DialContext(ctx, "tcp", c.at.host)
	if err != nil {
		return nil, unavailable(ctx, err)
	}
	until, _ := ctx.Deadline()
	_ = raw.SetDeadline(until) // the handshake's; lifted by its end
	stop := context.AfterFunc(ctx, func() { raw.Close() })
	defer stop()
	tcp := raw
	if c.at.tls != nil {
		client := tls.Client(raw, c.at.tls)
		if err := client.HandshakeContext(ctx); err != nil {
			raw.Close()
			return nil, handshake(ctx, err)
		}
		raw = client
	}
	cfg := amqp.Config{
		SASL: c.at.sasl, Vhost: c.at.vhost, Heartbeat: c.opt.heartbeat, FrameSize: c.opt.frameMax, Locale: "en_US",
		Properties: amqp.Table{"product": "lovage", "platform": "Go", "connection_name": c.name + " " + role},
	}
	wire := &cork{Conn: raw}
	tap := mend(wire)
	began := time.Now()
	conn, err := amqp.Open(tap, cfg)
	if err != nil {
		raw.Close()
		if wrongPassword(err, time.Since(began)) && time.Now().Before(until) {
			return nil, refusedUser(err)
		}
		return nil, handshake(ctx, err)
	}
	s := &session{conn: conn, raw: tcp, tap: tap, wire: wire, lost: make(chan struct{})}
	closed := conn.NotifyClose(make(chan *amqp.Error, 1))
	blocked := conn.NotifyBlocked(make(chan amqp.Blocking, 8))
	c.group.Go(func() { c.watch(s, role, closed, blocked) })
	return s, nil
}

// watch lives as long as the session and tells what happens to it.
func (c *Conn) watch(s *session, role string, closed <-chan *amqp.Error, blocked <-chan amqp.Blocking) {
	for {
		select {
		case b, ok := <-blocked:
			if !ok {
				blocked = nil
				continue
			}
			if s.block(b) {
				c.log.Warn("RabbitMQ takes no messages from us for now: "+b.Reason, "broker", c.at.id())
			} else {
				c.log.Info("RabbitMQ takes messages again", "broker", c.at.id())
			}
		case e := <-closed:
			err := errors.New("closed")
			if e != nil {
				err = e
			}
			if s.end(err) && e != nil && !c.closed.Load() {
				c.log.Warn("connection to RabbitMQ lost", "broker", c.at.id(), "for", role, "error", err)
			}
			s.raw.Close() // or the library waits for who still writes to it
			return
		}
	}
}

func (s *session) alive() bool { return !s.dead.Load() && !s.conn.IsClosed() }

// end marks the session as over and wakes who waits for it.
func (s *session) end(cause error) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.dead.Store(true)
	select {
	case <-s.lost:
		return false
	default:
	}
	s.cause = cause
	if s.blocked != nil {
		close(s.blocked)
		s.blocked = nil
	}
	close(s.lost)
	return true
}

func (s *session) block(b amqp.Blocking) (on bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case b.Active && s.blocked == nil:
		s.blocked, s.reason = make(chan struct{}), b.Reason
	case !b.Active && s.blocked != nil:
		close(s.blocked)
		s.blocked = nil
	}
	return b.Active
}

func (s *session) isBlocked() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.blocked != nil
}

// waitUnblocked returns when the server takes messages, or with why not.
func (s *session) waitUnblocked(ctx context.Context) error {
	for {
		s.mu.Lock()
		ch := s.blocked
		s.mu.Unlock()
		if ch == nil {
			return nil
		}
		select {
		case <-ch:
		case <-ctx.Done():
			return s.inVain(ctx)
		}
	}
}

// inVain is why nothing came of a call by the end of its context: a server that takes
// no messages reads nothing at all of who has sent one.
func (s *session) inVain(ctx context.Context) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.blocked == nil {
		return context.Cause(ctx)
	}
	return fmt.Errorf("%w: RabbitMQ takes no messages: %s: %w", broker.ErrUnavailable, s.reason, context.Cause(ctx))
}

func (s *session) why() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.cause == nil {
		return errors.New("connection lost")
	}
	return s.cause
}

// hangUp breaks the connection without a word.
func (s *session) hangUp() {
	s.dead.Store(true)
	s.raw.Close()
}

// close says goodbye, in bounded time.
func (s *session) close() error {
	err := s.conn.CloseDeadline(time.Now().Add(closeTimeout))
	s.raw.Close()
	<-s.lost
	if errors.Is(err, amqp.ErrClosed) {
		return nil
	}
	return err
}

// with runs f on a channel of its own and closes it: what f breaks is that
// channel alone. When ctx ends first the caller leaves, and the rest is cleaned
// up when f comes back.
func (s *session) with(ctx context.Context, f func(*amqp.Channel) error) error {
	return s.call(ctx, func() error {
		ch, err := s.conn.Channel()
		if err != nil {
			return err
		}
		err = f(ch)
		if e := ch.Close(); err == nil && e != nil && !errors.Is(e, amqp.ErrClosed) {
			err = e
		}
		return err
	})
}

// call runs what has no context of its own, and bounds how long its caller waits.
func (s *session) call(ctx context.Context, f func() error) error {
	done := make(chan error, 1)
	go func() { done <- f() }() // it ends with the session at the latest
	select {
	case err := <-done:
		if err != nil && !s.alive() && !isChannelError(err) {
			return fmt.Errorf("%w: %w", broker.ErrUnavailable, err)
		}
		return err
	case <-ctx.Done():
		return s.inVain(ctx)
	}
}
