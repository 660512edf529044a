package worker_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/lovage-go/lovage"
	"github.com/lovage-go/lovage/backend"
	"github.com/lovage-go/lovage/broker"
	"github.com/lovage-go/lovage/memory"
	"github.com/lovage-go/lovage/protocol"
	"github.com/lovage-go/lovage/worker"
)

// world is a store, an app on it, and a worker of that app, inside a bubble.
type world struct {
	t     *testing.T
	store *memory.Store
	app   *lovage.App
	w     *worker.Worker
	log   *logbook

	cancel context.CancelFunc
	ended  chan error
}

type setup struct {
	store   []memory.Option
	conf    lovage.Config
	cfg     worker.Config
	tasks   func(app *lovage.App)
	broker  func(broker.Conn) broker.Conn // wraps what the worker sees
	conn    func(broker.Conn) broker.Conn // likewise, and nothing else does
	backend func(backend.Backend) backend.Backend
	nowhere bool // there is no result store
}

// in runs a test inside a bubble, with a started worker, and holds the
// invariants at the end: nothing claimed, no slot taken, no goroutine left.
func in(t *testing.T, s setup, test func(x *world)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		x := build(t, s)
		x.start()
		defer x.invariants()
		defer func() {
			if x.cancel != nil {
				x.stop()
			}
		}()
		test(x)
	})
}

func build(t *testing.T, s setup) *world {
	x := &world{t: t, store: memory.New(s.store...), log: &logbook{}}
	if s.broker == nil {
		s.broker = func(c broker.Conn) broker.Conn { return c }
	}
	if s.backend == nil {
		s.backend = func(b backend.Backend) backend.Backend { return b }
	}
	wrap := func(c broker.Conn) broker.Conn {
		if s.conn != nil {
			return s.conn(c)
		}
		f, _ := c.(broker.Fanouter)
		if p, ok := s.broker(c).(plainConn); ok {
			return rawConn{p}
		}
		return struct {
			rawConn
			broker.Fanouter
			broker.Purger
		}{rawConn{s.broker(c)}, f, c.(broker.Purger)}
	}
	opts := []lovage.AppOption{
		lovage.WithLogger(slog.New(slog.NewTextHandler(x.log, &slog.HandlerOptions{Level: slog.LevelDebug}))),
		lovage.WithBroker(func(context.Context) (broker.Conn, error) { return wrap(x.store.Broker()), nil }),
	}
	if !s.nowhere {
		opts = append(opts, lovage.WithBackend(func(context.Context) (backend.Backend, error) { return s.backend(x.store.Backend()), nil }))
	}
	x.app = lovage.New("test", s.conf, opts...)
	if s.tasks != nil {
		s.tasks(x.app)
	}
	if s.cfg.Concurrency == 0 {
		s.cfg.Concurrency = 4
	}
	x.w = worker.New(x.app, s.cfg)
	return x
}

func (x *world) start() {
	ctx, cancel := context.WithCancel(context.Background())
	x.cancel, x.ended = cancel, make(chan error, 1)
	go func() { x.ended <- x.w.Run(ctx) }()
	synctest.Wait()
}

// stop stops the worker warm and wants it to end well.
func (x *world) stop() {
	x.t.Helper()
	x.cancel()
	x.cancel = nil
	if err := <-x.ended; err != nil {
		x.t.Errorf("Run: got %v, want nil", err)
	}
}

func (x *world) invariants() {
	x.t.Helper()
	if err := x.app.Close(context.Background()); err != nil {
		x.t.Errorf("app.Close: %v", err)
	}
	synctest.Wait()
	if n := x.lengths("celery").Claimed; n != 0 {
		x.t.Errorf("messages still claimed: got %d, want 0", n)
	}
	s := x.w.Stats()
	if s.SlotsUsed != 0 || s.Active != 0 || s.Reserved != 0 || s.Finishing != 0 || s.Stuck != 0 {
		x.t.Errorf("at the end: got %+v, want no slot used, nothing active, reserved, finishing or stuck", s)
	}
}

func (x *world) lengths(queue string) broker.Length {
	x.t.Helper()
	conn := x.store.Broker()
	defer conn.Close()
	all, err := conn.Lengths(x.t.Context(), queue)
	if err != nil {
		x.t.Fatal(err)
	}
	return all[queue]
}

func (x *world) dead() []broker.Dead {
	x.t.Helper()
	conn := x.store.Broker()
	defer conn.Close()
	list, err := conn.DeadLetters(x.t.Context(), "", "", 100)
	if err != nil {
		x.t.Fatal(err)
	}
	return list
}

// state is what the result store has for an id.
func (x *world) state(id string) lovage.State {
	x.t.Helper()
	b := x.store.Backend()
	defer b.Close()
	recs, err := b.Fetch(context.Background(), id)
	if err != nil {
		x.t.Fatal(err)
	}
	return recs[0].State
}

func (x *world) wantState(id string, want lovage.State) {
	x.t.Helper()
	if got := x.state(id); got != want {
		x.t.Errorf("state of %s: got %q, want %q\n%s", id, got, want, x.log)
	}
}

func (x *world) wantLog(times int, text string) {
	x.t.Helper()
	if got := strings.Count(x.log.String(), text); got != times {
		x.t.Errorf("log lines with %q: got %d, want %d\n%s", text, got, times, x.log)
	}
}

// logbook keeps log lines.
type logbook struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *logbook) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *logbook) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// AddArgs are two integers.
type AddArgs struct {
	X int
	Y int `lovage:"y,default=0"`
}

func add(_ context.Context, in AddArgs) (int, error) { return in.X + in.Y, nil }

// delay sends a call and returns its id.
func delay[In, Out any](x *world, h *lovage.Handle[In, Out], in In, opts ...lovage.CallOption) string {
	x.t.Helper()
	r, err := h.Delay(context.Background(), in, opts...)
	if err != nil {
		x.t.Fatal(err)
	}
	return r.ID()
}

var errBoom = errors.New("boom")

// pause lets the bubble's time pass.
func pause(d time.Duration) {
	<-time.After(d)
	synctest.Wait()
}

// raw publishes a message as a stranger may: headers that are no headers reach
// the worker as they are, by rawConn.
func (x *world) raw(headers, body, contentType string) {
	x.t.Helper()
	if contentType == "" {
		contentType = protocol.ContentJSON
	}
	text, _ := json.Marshal(headers)
	conn := x.store.Broker()
	defer conn.Close()
	err := conn.Publish(context.Background(), &broker.Message{
		Headers: protocol.Headers{Extra: map[string]json.RawMessage{"raw": text}}, Body: []byte(body), Queue: "celery",
		Properties: protocol.Properties{ContentType: contentType, ContentEncoding: "utf-8"},
	})
	if err != nil {
		x.t.Fatal(err)
	}
}

// rawConn gives consumers the headers that raw was given.
type rawConn struct{ broker.Conn }

func (c rawConn) Consume(ctx context.Context, cfg broker.ConsumeConfig) (broker.Consumer, error) {
	cons, err := c.Conn.Consume(ctx, cfg)
	if err != nil {
		return nil, err
	}
	if p, plain := cons.(plainConsumer); plain {
		return struct {
			rawPlain
			broker.LeaseRenewer
		}{rawPlain{cons}, p}, nil
	}
	id := c.Conn.(broker.StoreIdentity)
	return rawConsumer{rawPlain{cons}, cons.(broker.AtomicFinisher), cons.(broker.LeaseRenewer), cons.(broker.LossCounter), id}, nil
}

type rawPlain struct{ broker.Consumer }

func (c rawPlain) Claim(ctx context.Context, limit int) ([]broker.Delivery, error) {
	ds, err := c.Consumer.Claim(ctx, limit)
	for i := range ds {
		var h struct{ Raw string }
		if json.Unmarshal(ds[i].Headers, &h) == nil && h.Raw != "" {
			ds[i].Headers = []byte(h.Raw)
		}
	}
	return ds, err
}

type rawConsumer struct {
	rawPlain
	broker.AtomicFinisher
	broker.LeaseRenewer
	broker.LossCounter
	broker.StoreIdentity
}

// fails wants Run to end at once with an error that says text.
func fails(t *testing.T, s setup, text string) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		x := build(t, s)
		defer x.app.Close(context.Background())
		if err := x.w.Run(t.Context()); err == nil || !strings.Contains(err.Error(), text) {
			t.Errorf("Run: got %v, want an error with %q", err, text)
		}
	})
}

// plainBroker hides all that the store can do but leases, and parking.
func plainBroker(c broker.Conn) broker.Conn { return plainConn{c} }

type plainConn struct{ broker.Conn }

func (c plainConn) Consume(ctx context.Context, cfg broker.ConsumeConfig) (broker.Consumer, error) {
	cons, err := c.Conn.Consume(ctx, cfg)
	if err != nil {
		return nil, err
	}
	return plainConsumer{cons, cons.(broker.LeaseRenewer)}, nil
}

func (c plainConn) Features() broker.Features {
	f := c.Conn.Features()
	f.Park = false
	return f
}

type plainConsumer struct {
	broker.Consumer
	broker.LeaseRenewer
}

// plainBackend hides that the result store is the broker.
func plainBackend(b backend.Backend) backend.Backend { return struct{ backend.Backend }{b} }

// bubble is for tests that start their workers themselves.
func bubble(t *testing.T, test func(t *testing.T)) {
	t.Helper()
	synctest.Test(t, test)
}

// awayStore is a result store that cannot be reached now and then.
type awayStore struct {
	backend.Backend
	away atomic.Bool
}

func (s *awayStore) Fetch(ctx context.Context, ids ...string) ([]backend.Record, error) {
	if s.away.Load() {
		return nil, backend.ErrUnavailable
	}
	return s.Backend.Fetch(ctx, ids...)
}
