package events

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/lovage-go/lovage/broker"
	"github.com/lovage-go/lovage/internal/backoff"
	"github.com/lovage-go/lovage/internal/pyjson"
	"github.com/lovage-go/lovage/protocol"
)

// RetryPolicy says how [Dispatcher.Send] tries again; see [backoff.Policy].
type RetryPolicy = backoff.Policy

// Config is what a [Dispatcher] is made of.
type Config struct {
	Conn     broker.Conn // must be a broker.Fanouter, else Send and Run say so
	Exchange string      // event_exchange; "" is celeryev
	Hostname string      // the node name in every event: celery@host
	PID      int         // the process in every event
	Clock    *Clock      // the node's clock; nil makes one
	Groups   []string    // only types of these groups are sent; none means all
	Enabled  bool        // whether it starts enabled

	BufferLimit   int           // events per batch; 0 is Celery's 24
	FlushInterval time.Duration // the longest wait of a buffered event; 0 is 0.5 s
	// MaxBuffer bounds the events that wait, as they do while the broker is
	// away; the oldest make room. 0 is 10000. Their text is bounded by 16 MiB.
	MaxBuffer int

	Logger     *slog.Logger // nil is slog.Default()
	OnEnabled  func()       // called after each change to enabled
	OnDisabled func()       // called after each change to disabled
}

// Dispatcher sends events in the name of one node. It is safe for concurrent
// use. It starts no goroutine: [Dispatcher.Run] is the caller's to start.
//
// It follows Celery's EventDispatcher, with two differences: a full batch is
// sent by Run and not by who filled it, and Send reports a broker that is away
// instead of keeping the event.
type Dispatcher struct {
	cfg      Config
	header   json.RawMessage
	enabled  atomic.Bool
	wake     chan struct{} // there is something to flush
	full     chan struct{} // there is a whole batch
	done     chan struct{} // closed by Close
	flushing chan struct{} // held while a flush does I/O

	sent    atomic.Int64
	dropped atomic.Int64

	mu     sync.Mutex // guards what follows
	conn   broker.Conn
	groups map[string]bool
	buf    buffer
	lossy  bool // a loss was logged and no flush has succeeded since
	closed bool
}

// NewDispatcher returns a dispatcher; it does no I/O.
func NewDispatcher(cfg Config) *Dispatcher {
	if cfg.Exchange == "" {
		cfg.Exchange = Exchange
	}
	if cfg.Clock == nil {
		cfg.Clock = new(Clock)
	}
	if cfg.BufferLimit <= 0 {
		cfg.BufferLimit = 24
	}
	if cfg.FlushInterval <= 0 {
		cfg.FlushInterval = 500 * time.Millisecond
	}
	if cfg.MaxBuffer <= 0 {
		cfg.MaxBuffer = 10_000
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.Default()
	}
	d := &Dispatcher{
		cfg: cfg, conn: cfg.Conn,
		header:   pyjson.AppendString(nil, cfg.Hostname),
		wake:     make(chan struct{}, 1),
		full:     make(chan struct{}, 1),
		done:     make(chan struct{}),
		flushing: make(chan struct{}, 1),
	}
	d.buf.maxEvents = cfg.MaxBuffer
	d.enabled.Store(cfg.Enabled)
	d.SetGroups(cfg.Groups...)
	return d
}

// Clock returns the clock that stamps the events.
func (d *Dispatcher) Clock() *Clock { return d.cfg.Clock }

// Enabled reports whether events are sent at all.
func (d *Dispatcher) Enabled() bool { return d.enabled.Load() }

// Enable turns sending on and reports whether it was off.
func (d *Dispatcher) Enable() bool { return d.set(true, d.cfg.OnEnabled) }

// Disable turns sending off and reports whether it was on. What is buffered is
// still flushed.
func (d *Dispatcher) Disable() bool { return d.set(false, d.cfg.OnDisabled) }

func (d *Dispatcher) set(on bool, tell func()) bool {
	if d.enabled.Swap(on) == on {
		return false
	}
	if tell != nil {
		tell()
	}
	return true
}

// SetGroups replaces the filter; no group at all lets every event through.
func (d *Dispatcher) SetGroups(groups ...string) {
	m := make(map[string]bool, len(groups))
	for _, g := range groups {
		m[g] = true
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.groups = m
}

// Groups returns the filter, sorted.
func (d *Dispatcher) Groups() []string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.Sorted(maps.Keys(d.groups))
}

// Wants reports whether an event of the type would be sent, so that a caller
// can spare itself the making of it.
func (d *Dispatcher) Wants(typ string) bool {
	if !d.enabled.Load() {
		return false
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	return !d.closed && (len(d.groups) == 0 || d.groups[Group(typ)])
}

// SetConn replaces the connection, as after a reconnect; the buffer is kept.
func (d *Dispatcher) SetConn(conn broker.Conn) {
	d.mu.Lock()
	d.conn = conn
	d.mu.Unlock()
	signal(d.wake)
}

// Stats counts what became of the events so far.
type Stats struct {
	Sent     int64 // accepted by the broker
	Dropped  int64 // lost to a full buffer, a refusal or a field that is no JSON
	Buffered int   // waiting; those that a flush is sending now are in no count
}

// Stats returns the counts.
func (d *Dispatcher) Stats() Stats {
	d.mu.Lock()
	defer d.mu.Unlock()
	return Stats{Sent: d.sent.Load(), Dropped: d.dropped.Load(), Buffered: d.buf.len()}
}

type sendOptions struct {
	retry *RetryPolicy
	blind bool
	uuid  string
}

// SendOption varies one [Dispatcher.Send].
type SendOption func(*sendOptions)

// Retry tries again under the policy while the broker is unavailable.
func Retry(p RetryPolicy) SendOption { return func(o *sendOptions) { o.retry = &p } }

// Blind leaves the logical clock alone; the event is sent without one.
func Blind() SendOption { return func(o *sendOptions) { o.blind = true } }

// UUID ties the event to a task.
func UUID(id string) SendOption { return func(o *sendOptions) { o.uuid = id } }

// Send sends one event now and returns when the broker has it. It returns nil
// without sending if the dispatcher is disabled or the type's group is filtered
// out. A field "timestamp" (float64, seconds) replaces the current time.
func (d *Dispatcher) Send(ctx context.Context, typ string, fields map[string]any, opts ...SendOption) error {
	if !d.Wants(typ) {
		return nil
	}
	var o sendOptions
	for _, opt := range opts {
		opt(&o)
	}
	fan, err := d.fanouter()
	if err != nil {
		return fmt.Errorf("send event %s: %w", typ, err)
	}
	clock := int64(0)
	if !o.blind {
		clock = d.cfg.Clock.Forward()
	}
	body, err := d.encode(typ, o.uuid, clock, fields)
	if err != nil {
		return fmt.Errorf("send event: %w", err)
	}
	msg := d.message(RoutingKey(typ), body)
	send := func(ctx context.Context) error {
		return fan.Broadcast(ctx, d.cfg.Exchange, msg)
	}
	if o.retry != nil {
		err = o.retry.Do(ctx, broker.Retryable, send)
	} else {
		err = send(ctx)
	}
	if err != nil {
		return fmt.Errorf("send event %s: %w", typ, err)
	}
	d.sent.Add(1)
	return nil
}

// Publish stamps an event and puts it into the buffer, from where [Dispatcher.Run]
// or [Dispatcher.Flush] sends it in a batch. Events of the group worker are sent
// each by itself: gossip of Python workers takes no batch. It never waits. uuid
// may be empty.
// Like Send it does nothing while disabled, and after Close.
// An event that cannot be encoded is dropped, counted and logged.
func (d *Dispatcher) Publish(typ, uuid string, fields map[string]any) {
	if !d.Wants(typ) {
		return
	}
	text, err := d.encode(typ, uuid, d.cfg.Clock.Forward(), fields)
	if err != nil {
		d.dropped.Add(1)
		d.cfg.Logger.Error("Event dropped", "event", typ, "task_id", uuid, "error", err)
		return
	}
	d.mu.Lock()
	if d.closed { // since Wants looked
		d.mu.Unlock()
		d.lose(1, errors.New("the dispatcher is closed"))
		return
	}
	e := entry{group: Group(typ), text: text}
	if e.group == workerGroup {
		e.alone = RoutingKey(typ)
	}
	lost := d.buf.push(e)
	whole := d.buf.len() >= d.cfg.BufferLimit
	d.mu.Unlock()
	d.lose(lost, errors.New("the buffer is full"))
	signal(d.wake)
	if whole {
		signal(d.full)
	}
}

// lose counts lost events and logs the first loss of a row.
func (d *Dispatcher) lose(n int, why error) {
	if n == 0 {
		return
	}
	total := d.dropped.Add(int64(n))
	d.mu.Lock()
	first := !d.lossy
	d.lossy = true
	d.mu.Unlock()
	if first {
		d.cfg.Logger.Warn("Events are being lost", "lost", n, "lost_so_far", total, "error", why)
	}
}

func (d *Dispatcher) encode(typ, uuid string, clock int64, fields map[string]any) ([]byte, error) {
	now := time.Now()
	_, east := now.Zone()
	e := Event{
		Type: typ, Hostname: d.cfg.Hostname, PID: d.cfg.PID, UUID: uuid, Clock: clock,
		UTCOffset: hoursWest(east), Timestamp: float64(now.UnixMicro()) / 1e6, Fields: fields,
	}
	if at, ok := fields["timestamp"].(float64); ok {
		e.Timestamp = at
		e.Fields = maps.Clone(fields)
		delete(e.Fields, "timestamp")
	}
	return e.AppendJSON(make([]byte, 0, 512))
}

// hoursWest is Celery's utcoffset: whole hours west of UTC, rounded down.
func hoursWest(secondsEast int) int {
	west := -secondsEast
	if west < 0 {
		return (west - 3599) / 3600
	}
	return west / 3600
}

func (d *Dispatcher) message(key string, body []byte) *broker.Message {
	return &broker.Message{
		Headers: protocol.Headers{Extra: map[string]json.RawMessage{"hostname": d.header}},
		Properties: protocol.Properties{
			ContentType:     protocol.ContentJSON,
			ContentEncoding: protocol.EncodingUTF8,
			DeliveryMode:    1,
		},
		Body:       body,
		Exchange:   d.cfg.Exchange,
		RoutingKey: key,
	}
}

func (d *Dispatcher) fanouter() (broker.Fanouter, error) {
	d.mu.Lock()
	conn := d.conn
	d.mu.Unlock()
	return fanouter(conn)
}

func fanouter(conn broker.Conn) (broker.Fanouter, error) {
	if conn == nil {
		return nil, fmt.Errorf("%w: there is no connection", broker.ErrUnavailable)
	}
	fan, ok := conn.(broker.Fanouter)
	if !ok {
		return nil, fmt.Errorf("%w: events need a broker with fan-out, which %T has not: use another broker or turn events off", broker.ErrUnsupported, conn)
	}
	return fan, nil
}

func signal(ch chan struct{}) {
	select {
	case ch <- struct{}{}:
	default:
	}
}
