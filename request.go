package lovage

import (
	"context"
	"encoding/json"
	"log/slog"
	"sync"
	"time"

	"github.com/lovage-go/lovage/protocol"
)

// Request is one run of a task: what Celery calls self.request. Its fields are
// read-only for tasks and hooks; its methods are safe for concurrent use.
type Request struct {
	ID       string
	Task     string
	RootID   string
	ParentID string

	Args   RawArgs   // positional arguments as sent
	Kwargs RawKwargs // keyword arguments as sent

	Retries   int
	ETA       time.Time // zero: none
	Expires   time.Time // zero: never
	TimeLimit time.Duration
	SoftLimit time.Duration

	Group               string
	GroupIndex          *int
	ReplacedTaskNesting int
	StampedHeaders      []string
	Stamps              map[string]json.RawMessage

	Shadow        string
	ArgsRepr      string
	KwargsRepr    string
	Origin        string
	Lang          string
	Hostname      string // node name of the worker that runs it
	IgnoreResult  bool
	IsEager       bool
	ReplyTo       string
	CorrelationID string
	Delivery      DeliveryInfo

	// Headers are the caller's own headers, as raw JSON.
	Headers map[string]json.RawMessage

	def          *Definition
	app          *App
	embed        protocol.Embed
	body         []byte // encoded body as received
	contentType  string
	encoding     string
	compression  string
	priority     *int
	deliveryMode int
	direct       bool     // made by Call: no run of a worker
	caller       *Request // the run around a direct call

	mu       sync.Mutex
	children []child

	slotMu sync.Mutex // also held while the slot is taken back
	slot   Slot
	lent   int // waits that the slot is lent for

	abort abortion
}

// DeliveryInfo tells how the message came.
type DeliveryInfo struct {
	Exchange    string
	RoutingKey  string
	Queue       string
	Priority    int
	Redelivered bool
	Losses      int // workers known to have died on it
}

// RawArgs is the JSON text of the positional arguments.
type RawArgs json.RawMessage

// RawKwargs is the JSON text of the keyword arguments.
type RawKwargs json.RawMessage

// Slot is the place in a worker's pool that a run holds. The worker gives it.
type Slot interface {
	// Release gives the place to another run; this one goes on without it.
	Release()
	// GiveUp is Release by a run of which nothing but its end is left: a place
	// that is of use to others only after that keeps still.
	GiveUp()
	// Reacquire takes a place again.
	Reacquire(ctx context.Context) error
}

type ctxKey int

const (
	requestKey ctxKey = iota
	joinKey
)

// RequestFrom returns the request of the run that ctx belongs to, or nil.
func RequestFrom(ctx context.Context) *Request {
	r, _ := ctx.Value(requestKey).(*Request)
	return r
}

// runFrom is the run that a worker or Apply carries out around ctx, past direct
// calls of functions.
func runFrom(ctx context.Context) *Request {
	r := RequestFrom(ctx)
	if r != nil && r.direct {
		return r.caller
	}
	return r
}

// AllowJoin lets Get wait for other tasks inside a run. The worker lends the
// run's slot to others while it waits.
func AllowJoin(ctx context.Context) context.Context { return context.WithValue(ctx, joinKey, true) }

// SetSlot hands the run its place in the pool. It is for workers.
func (r *Request) SetSlot(s Slot) { r.slot = s }

// lend gives the slot to others while the run waits; several waits of one run
// lend it once. The returned function takes it back.
func (r *Request) lend(ctx context.Context) (back func()) {
	r.slotMu.Lock()
	defer r.slotMu.Unlock()
	if r.slot == nil {
		return func() {}
	}
	if r.lent++; r.lent == 1 {
		r.slot.Release()
	}
	return func() {
		r.slotMu.Lock()
		defer r.slotMu.Unlock()
		if r.lent--; r.lent == 0 && r.slot != nil {
			_ = r.slot.Reacquire(context.WithoutCancel(ctx))
		}
	}
}

// giveUpSlot returns the slot for good: nothing of the class runs after this.
func (r *Request) giveUpSlot() {
	r.slotMu.Lock()
	defer r.slotMu.Unlock()
	if r.slot != nil && r.lent == 0 {
		r.slot.GiveUp()
	}
	r.slot = nil
}

// Definition is the task that runs, nil if it is not registered here.
func (r *Request) Definition() *Definition { return r.def }

// App is the App that runs the task.
func (r *Request) App() *App { return r.app }

// Log returns a logger that carries the task's name and id.
func (r *Request) Log() *slog.Logger {
	if r.app == nil {
		return slog.Default().With("task", r.Task, "id", r.ID)
	}
	return r.app.log.With("task", r.Task, "id", r.ID)
}

// UpdateState stores a state of the task's own, such as PROGRESS, with meta as
// its result. It needs a result backend; a SUCCESS is never overwritten, nor is
// the wish to abort the run, and neither is an error.
func (r *Request) UpdateState(ctx context.Context, state State, meta any) error {
	return r.app.storeState(ctx, r, state, meta)
}

// SendEvent publishes a monitoring event with the task's uuid and the fields
// given, as Celery's Task.send_event does: at once, and tried again under the
// publishing policy.
func (r *Request) SendEvent(ctx context.Context, kind string, fields map[string]any) error {
	f := make(map[string]any, len(fields)+1)
	f["uuid"] = r.ID
	for k, v := range fields {
		f[k] = v
	}
	return r.app.SendEvent(ctx, kind, f)
}

// child is a task that a run has called, or a group of them.
type child struct {
	id      string
	members json.RawMessage // of a group, as nested result tuples
}

// Children returns the ids of the tasks that this run has called so far, alone
// or in groups.
func (r *Request) Children() (ids []string) {
	for _, c := range r.trail() {
		if c.members == nil {
			ids = append(ids, c.id)
			continue
		}
		ids, _ = tupleIDs(ids, c.members)
	}
	return ids
}

func (r *Request) trail() []child {
	r.mu.Lock()
	defer r.mu.Unlock()
	return append([]child(nil), r.children...)
}

// maxTrail bounds what one run records: a task that starts a million others
// must not keep a million ids in its result.
const maxTrail = 10_000

func (r *Request) addChild(id string) { r.add(child{id: id}) }

func (r *Request) addGroup(id string, members json.RawMessage) {
	r.add(child{id: id, members: members})
}

func (r *Request) add(c child) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.children) < maxTrail {
		r.children = append(r.children, c)
	}
}

// dropChildren forgets those after the first n: their messages were not sent.
func (r *Request) dropChildren(n int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.children = r.children[:min(n, len(r.children))]
}

// ArgsOf binds the request's arguments to a task's argument type, however they
// were sent: by position or by name.
func ArgsOf[In any](r *Request) (In, error) {
	var in In
	plan, err := planFor[In]()
	if err != nil {
		return in, err
	}
	err = plan.Bind(r.Task, json.RawMessage(r.Args), json.RawMessage(r.Kwargs), &in)
	return in, err
}

// Values decodes all positional arguments.
func (a RawArgs) Values() ([]any, error) {
	var v []any
	if len(a) == 0 {
		return v, nil
	}
	err := jsonCodec.Unmarshal(a, &v)
	return v, err
}

// Len is the number of positional arguments.
func (a RawArgs) Len() int {
	n := 0
	_ = eachElement(json.RawMessage(a), func(int, []byte) error { n++; return nil })
	return n
}

// At decodes the i-th positional argument into v; it reports whether there is one.
func (a RawArgs) At(i int, v any) (bool, error) {
	found := false
	err := eachElement(json.RawMessage(a), func(n int, elem []byte) error {
		if n != i {
			return nil
		}
		found = true
		return jsonCodec.Unmarshal(elem, v)
	})
	return found, err
}

// Values decodes all keyword arguments.
func (k RawKwargs) Values() (map[string]any, error) {
	v := map[string]any{}
	if len(k) == 0 {
		return v, nil
	}
	err := jsonCodec.Unmarshal(k, &v)
	return v, err
}

// Get decodes the keyword argument of a name into v; it reports whether there is one.
func (k RawKwargs) Get(name string, v any) (bool, error) {
	found := false
	err := eachMember(json.RawMessage(k), func(key string, elem []byte) error {
		if key != name {
			return nil
		}
		found = true
		return jsonCodec.Unmarshal(elem, v)
	})
	return found, err
}

func (a RawArgs) String() string   { return string(a) }
func (k RawKwargs) String() string { return string(k) }
