package events

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"log/slog"
	"math/bits"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"github.com/lovage-go/lovage/broker"
	"github.com/lovage-go/lovage/protocol"
)

// ListenConfig is what a [Receiver] listens to.
type ListenConfig struct {
	Exchange string       // event_exchange; "" is celeryev
	Pattern  string       // AMQP topic pattern; "" is #, everything
	Clock    *Clock       // moved past every event; nil makes one
	MaxBody  int          // bytes of a message that is read; 0 is 8 MiB
	Logger   *slog.Logger // nil is slog.Default()
}

// Receiver gets events from the moment Listen returned. Next is safe for
// concurrent use; each event goes to one caller.
type Receiver struct {
	cfg       ListenConfig
	listener  broker.Listener
	malformed atomic.Int64
	panics    atomic.Int64

	mu    sync.Mutex // guards ready
	ready []Event    // rest of a batch
}

// Listen starts to receive. Close ends it; ctx only bounds the start.
func Listen(ctx context.Context, conn broker.Conn, cfg ListenConfig) (*Receiver, error) {
	if cfg.Exchange == "" {
		cfg.Exchange = Exchange
	}
	if cfg.Pattern == "" {
		cfg.Pattern = "#"
	}
	if cfg.Clock == nil {
		cfg.Clock = new(Clock)
	}
	if cfg.MaxBody <= 0 {
		cfg.MaxBody = 8 << 20
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.Default()
	}
	fan, err := fanouter(conn)
	if err != nil {
		return nil, fmt.Errorf("listen for events: %w", err)
	}
	l, err := fan.Listen(ctx, cfg.Exchange, cfg.Pattern)
	if err != nil {
		return nil, fmt.Errorf("listen for events on %s: %w", cfg.Exchange, err)
	}
	return &Receiver{cfg: cfg, listener: l}, nil
}

// Next waits for an event. It returns ctx's cause when ctx ends and
// [broker.ErrClosed] after Close. A message that is no event is counted, logged
// and passed over.
//
// The event's Clock is as sent, but for [TaskSent], whose senders do not keep
// step, and for events without one: these get a time from the receiver's own.
func (r *Receiver) Next(ctx context.Context) (Event, error) {
	for {
		if e, ok := r.pop(); ok {
			return e, nil
		}
		d, err := r.listener.Next(ctx)
		if err != nil {
			return Event{}, err
		}
		list, err := r.parse(&d)
		if err != nil {
			r.reject(&d, err)
		}
		now := time.Now()
		for i := range list {
			r.stamp(&list[i], now)
		}
		r.mu.Lock()
		r.ready = append(r.ready, list...)
		r.mu.Unlock()
	}
}

func (r *Receiver) pop() (Event, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.ready) == 0 {
		return Event{}, false
	}
	e := r.ready[0]
	r.ready[0] = Event{}
	if r.ready = r.ready[1:]; len(r.ready) == 0 {
		r.ready = nil
	}
	return e, true
}

func (r *Receiver) parse(d *broker.Delivery) ([]Event, error) {
	switch ct := d.Properties.ContentType; {
	case d.Malformed != nil:
		return nil, d.Malformed
	case ct != "" && ct != protocol.ContentJSON:
		return nil, fmt.Errorf("content type %s is not %s: set event_serializer to json at the sender", ct, protocol.ContentJSON)
	case len(d.Body) > r.cfg.MaxBody:
		return nil, fmt.Errorf("%d bytes, more than the %d that are read", len(d.Body), r.cfg.MaxBody)
	}
	return Parse(d.Body)
}

// reject counts a message and logs the 1st, 2nd, 4th, 8th ... of them.
func (r *Receiver) reject(d *broker.Delivery, err error) {
	n := r.malformed.Add(1)
	if bits.OnesCount64(uint64(n)) == 1 {
		r.cfg.Logger.Warn("Malformed event passed over", "routing_key", d.RoutingKey,
			"so_far", n, "error", err, "body", string(d.Body[:min(len(d.Body), 200)]))
	}
}

func (r *Receiver) stamp(e *Event, now time.Time) {
	e.LocalReceived = now
	switch {
	case e.Type == TaskSent:
		e.Clock = max(r.cfg.Clock.Value(), 1) - 1
		r.cfg.Clock.Adjust(e.Clock)
	case e.Clock <= 0:
		e.Clock = r.cfg.Clock.Forward()
	default:
		r.cfg.Clock.Adjust(e.Clock)
	}
}

// All yields events until ctx ends or the receiver is closed. Any other error is
// yielded once, as the last.
func (r *Receiver) All(ctx context.Context) iter.Seq2[Event, error] {
	return func(yield func(Event, error) bool) {
		for {
			e, err := r.Next(ctx)
			if err != nil {
				if ctx.Err() == nil && !errors.Is(err, broker.ErrClosed) {
					yield(Event{}, err)
				}
				return
			}
			if !yield(e, nil) {
				return
			}
		}
	}
}

// Capture hands each event to the handler of its type, or to that of "*" if it
// has none, one after the other. It returns ctx's cause when ctx ends, nil after
// Close, and otherwise the error that ended it. A handler that panics is logged
// with its stack; the next event comes as if nothing had been.
func (r *Receiver) Capture(ctx context.Context, handlers map[string]func(Event)) error {
	for e, err := range r.All(ctx) {
		if err != nil {
			return err
		}
		h := handlers[e.Type]
		if h == nil {
			h = handlers["*"]
		}
		if h != nil {
			r.call(h, e)
		}
	}
	return context.Cause(ctx)
}

func (r *Receiver) call(h func(Event), e Event) {
	defer func() {
		if p := recover(); p != nil {
			r.panics.Add(1)
			r.cfg.Logger.Error("Event handler panicked", "event", e.Type, "panic", p, "stack", string(debug.Stack()))
		}
	}()
	h(e)
}

// Clock returns the clock that follows the events.
func (r *Receiver) Clock() *Clock { return r.cfg.Clock }

// Malformed is the number of messages that held something else than events.
func (r *Receiver) Malformed() int64 { return r.malformed.Load() }

// Panics is the number of handlers that panicked.
func (r *Receiver) Panics() int64 { return r.panics.Load() }

// Missed is the number of messages lost because Next was not called in time.
func (r *Receiver) Missed() int64 { return r.listener.Missed() }

// Close stops receiving; a blocked Next returns.
func (r *Receiver) Close() error { return r.listener.Close() }
