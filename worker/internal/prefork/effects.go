package prefork

import (
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"time"

	"github.com/lovage-go/lovage"
	"github.com/lovage-go/lovage/broker"
	"github.com/lovage-go/lovage/protocol"
)

// delivery is what a child needs of a claimed message.
type delivery struct {
	Headers     []byte
	Properties  protocol.Properties
	Body        []byte
	Exchange    string
	RoutingKey  string
	Queue       string
	Redelivered bool
	Losses      int
	Repr        bool // the result is wanted as text too
}

func deliveryOf(j *Job) delivery {
	d := j.Delivery
	return delivery{
		Headers: d.Headers, Properties: d.Properties, Body: d.Body,
		Exchange: d.Exchange, RoutingKey: d.RoutingKey, Queue: d.Queue,
		Redelivered: d.Redelivered, Losses: j.Losses, Repr: j.Repr,
	}
}

func (d *delivery) received() *broker.Delivery {
	return &broker.Delivery{
		Headers: d.Headers, Properties: d.Properties, Body: d.Body,
		Exchange: d.Exchange, RoutingKey: d.RoutingKey, Queue: d.Queue,
		Redelivered: d.Redelivered, Losses: d.Losses,
	}
}

// Two fields of Effects stay behind: each side has its own Request, and the
// Outcome travels as an outcome. All others are written as they are.
var (
	requestType = reflect.TypeFor[*lovage.Request]()
	outcomeType = reflect.TypeFor[*lovage.Outcome]()
)

// ended is the end of a run: its effects, with the outcome beside them.
type ended struct {
	Outcome outcome
	Effects lovage.Effects
	// Free: nothing of the task runs after this, and the child can take the next
	// run. There will be no done. Quiet: nobody there waits for the answer.
	Free  bool
	Quiet bool
	Usage usage
}

// outcome is a lovage.Outcome without the Go values in it.
type outcome struct {
	State   lovage.State
	Result  string // as text, where somebody wants it
	Info    *info
	Runtime time.Duration
	Delay   time.Duration
	Requeue bool
	Timeout bool
	Lost    bool
	Unbound bool

	Cancelled bool
	Stored    []byte
	Fenced    *fault
}

// info is a lovage.ErrorInfo; the error itself is its text.
type info struct {
	Err       fault
	Type      string
	Module    string
	Args      []byte // JSON
	Traceback string
	Expected  bool
}

func outcomeOf(o *lovage.Outcome, repr bool) outcome {
	w := outcome{
		State: o.State, Runtime: o.Runtime, Delay: o.Delay, Requeue: o.Requeue,
		Timeout: o.Timeout, Lost: o.Lost, Unbound: o.Unbound, Cancelled: o.Cancelled, Stored: o.Stored,
	}
	if repr && o.State == lovage.Success {
		w.Result = o.Repr()
	}
	if o.Fenced != nil {
		f := faultOf(o.Fenced)
		w.Fenced = &f
	}
	if i := o.Info; i != nil {
		w.Info = &info{Type: i.Type, Module: i.Module, Traceback: i.Traceback, Expected: i.Expected, Args: []byte(i.Form().Message)}
		if i.Err != nil {
			w.Info.Err = faultOf(i.Err)
		}
	}
	return w
}

func (w *outcome) outcome() lovage.Outcome {
	o := lovage.Outcome{
		State: w.State, Runtime: w.Runtime, Delay: w.Delay, Requeue: w.Requeue,
		Timeout: w.Timeout, Lost: w.Lost, Unbound: w.Unbound, Cancelled: w.Cancelled, Stored: w.Stored,
	}
	if w.State == lovage.Success && w.Stored == nil {
		o.Result = lovage.Shown(w.Result)
	}
	if w.Fenced != nil {
		o.Fenced = w.Fenced.error()
	}
	if i := w.Info; i != nil {
		o.Info = &lovage.ErrorInfo{Err: i.Err.error(), Type: i.Type, Module: i.Module, Traceback: i.Traceback, Expected: i.Expected}
		if json.Unmarshal(i.Args, &o.Info.Args) != nil {
			o.Info.Args = []any{string(i.Args)}
		}
	}
	return o
}

// causes are the errors that keep their identity on the way between parent and
// child. The order is the protocol.
var causes = []error{
	lovage.ErrSoftTimeLimit, lovage.ErrTimeLimit, lovage.ErrRevoked, lovage.ErrShutdown, lovage.ErrLeaseLost, lovage.ErrWorkerLost, broker.ErrLeaseLost,
}

// fault is an error as text, and which of the causes it is.
type fault struct {
	Is   int // place in causes, from 1; 0 for none
	Text string
}

func faultOf(err error) fault {
	f := fault{Text: err.Error()}
	for i, c := range causes {
		if errors.Is(err, c) {
			f.Is = i + 1
			break
		}
	}
	return f
}

func (f *fault) error() error {
	if f.Is < 1 || f.Is > len(causes) {
		return errors.New(f.Text)
	}
	if c := causes[f.Is-1]; c.Error() == f.Text {
		return c
	}
	return &remoteError{text: f.Text, is: causes[f.Is-1]}
}

// remoteError is an error of the other side.
type remoteError struct {
	text string
	is   error
}

func (e *remoteError) Error() string { return e.text }
func (e *remoteError) Unwrap() error { return e.is }

// errorOf is the error that an answer brings, nil for none.
func errorOf(payload []byte) error {
	if len(payload) == 0 {
		return nil
	}
	f, err := readFlat[fault](payload)
	if err != nil {
		return fmt.Errorf("read an answer: %w", err)
	}
	return f.error()
}
