package lovage

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/lovage-go/lovage/broker"
	"github.com/lovage-go/lovage/internal/saferepr"
	"github.com/lovage-go/lovage/protocol"
	"github.com/lovage-go/lovage/serializer"
)

// MessageError tells why a message cannot become a run. Its text names the
// thing, the reason and the mend; the message itself is for the dead letters.
type MessageError struct {
	// Kind is one of malformed, not accepted, too large, unsupported.
	Kind string
	ID   string // task id, if it could be read
	Task string
	Err  error

	request *Request
}

// Request is the message as far as it could be read, or nil: its place in a
// chord, what follows it.
func (e *MessageError) Request() *Request { return e.request }

func (e *MessageError) Error() string {
	text := e.Kind + " message: "
	if e.Task != "" {
		text = fmt.Sprintf("%s message for task %q: ", e.Kind, e.Task)
	}
	text += e.Err.Error()
	if e.Kind == Malformed {
		text += "; mend its sender, which must follow Celery's message protocol 2 or 1, and send it again"
	}
	return text
}

// Unwrap returns Err.
func (e *MessageError) Unwrap() error { return e.Err }

// Kinds of MessageError.
const (
	Malformed   = "malformed"
	NotAccepted = "not accepted"
	TooLarge    = "too large"
	Unsupported = "unsupported"
)

// Receive reads a delivery as a request: headers are parsed, version 1 is
// lifted to version 2, the body is checked against the limits and split, its
// arguments stay encoded. The error is a *MessageError. A task that is not
// registered here is no error: Request.Definition is nil.
func (a *App) Receive(d *broker.Delivery) (*Request, error) {
	if err := a.Freeze(); err != nil {
		return nil, &MessageError{Kind: Unsupported, Err: err}
	}
	p := &d.Properties
	h, err := protocol.ParseHeaders(d.Headers)
	fail := func(kind string, err error) (*Request, error) {
		// Celery's correlation id is the task's id, and all that can be read
		// where the headers cannot, or where version 1 keeps them in the body.
		return nil, &MessageError{Kind: kind, ID: cmp.Or(h.ID, p.CorrelationID), Task: h.Task, Err: err}
	}
	limit := a.limits.MaxBytes
	tooLong := limit > 0 && len(d.Body) > limit
	if d.Malformed != nil && !(tooLong && errors.Is(d.Malformed, broker.ErrTooLarge)) {
		return fail(kindOf(d.Malformed))
	}
	if err != nil {
		return fail(Malformed, err)
	}
	if err := a.accept.Check(p.ContentType, p.ContentEncoding); err != nil {
		return fail(NotAccepted, err)
	}
	if _, err := a.codecs.Lookup(p.ContentType); err != nil {
		return fail(Unsupported, err)
	}
	if tooLong {
		return fail(TooLarge, fmt.Errorf("the body has %d bytes, more than task_max_message_size (%d): store the data elsewhere and send a reference to it, or raise the setting", len(d.Body), limit))
	}
	raw := d.Body
	if h.Compression != "" {
		if raw, err = serializer.Decompress(h.Compression, d.Body, a.limits.MaxBytes); err != nil {
			return fail(kindOf(err))
		}
	}
	if err := a.limits.CheckJSON(raw); err != nil {
		return fail(kindOf(fmt.Errorf("the body is %w", err)))
	}
	var body protocol.Body
	kept := d.Body
	if h.Task == "" {
		kept = nil // a retry is sent as this App's version: the retries are in a version 1 body
		extra := h.Extra
		if h, body, err = protocol.ParseV1(raw); err == nil {
			h.Extra = extra
		}
	} else {
		body, err = protocol.ParseBody(raw)
	}
	if err != nil {
		return fail(Malformed, err)
	}
	if h.Task == "" || h.ID == "" {
		return fail(Malformed, errors.New("it has no task name or no id: headers need both, see Celery's message protocol"))
	}
	r, err := a.request(&h, &body)
	if err != nil {
		_, err := fail(Malformed, err)
		r.def = nil // no hook of the task sees what it cannot read
		err.(*MessageError).request = r
		return nil, err
	}
	if err := a.supported(h.Task, &body.Embed); err != nil {
		return fail(Unsupported, err)
	}
	r.body, r.contentType, r.encoding, r.compression = kept, p.ContentType, p.ContentEncoding, h.Compression
	r.deliveryMode = p.DeliveryMode
	r.ReplyTo, r.CorrelationID, r.priority = p.ReplyTo, p.CorrelationID, p.Priority
	r.Delivery = DeliveryInfo{
		Exchange: d.Exchange, RoutingKey: d.RoutingKey, Queue: d.Queue,
		Priority: or(p.Priority, 0), Redelivered: d.Redelivered, Losses: d.Losses,
	}
	return r, nil
}

// kindOf tells what is too large from what is malformed, and says what to do
// about the first.
func kindOf(err error) (string, error) {
	var limit *serializer.LimitError
	var ratio *serializer.RatioError
	switch {
	case errors.As(err, &ratio), errors.Is(err, broker.ErrTooLarge):
		return TooLarge, err
	case !errors.As(err, &limit):
		return Malformed, err
	case limit.Setting == "MaxBytes":
		return TooLarge, fmt.Errorf("the body has more than task_max_message_size (%d) bytes: store the data elsewhere and send a reference to it, or raise the setting", limit.Max)
	case limit.Setting == "MaxDepth":
		return TooLarge, fmt.Errorf("the body is nested deeper than %d levels: send flatter data, or the deep part as a string", limit.Max)
	}
	return TooLarge, fmt.Errorf("the body holds more than %d values: send fewer at a time, or a reference to the data", limit.Max)
}

// request makes a Request of parsed headers and body.
func (a *App) request(h *protocol.Headers, body *protocol.Body) (*Request, error) {
	r := &Request{
		ID: h.ID, Task: h.Task, RootID: h.RootID, ParentID: h.ParentID,
		Args: RawArgs(body.Args), Kwargs: RawKwargs(body.Kwargs),
		Retries: h.Retries, Group: h.Group, GroupIndex: h.GroupIndex,
		TimeLimit: duration(h.TimeLimit.Hard), SoftLimit: duration(h.TimeLimit.Soft),
		ReplacedTaskNesting: h.ReplacedTaskNesting,
		StampedHeaders:      h.StampedHeaders, Stamps: h.Stamps,
		Shadow: h.Shadow, ArgsRepr: h.ArgsRepr, KwargsRepr: h.KwargsRepr,
		Origin: h.Origin, Lang: h.Lang, IgnoreResult: h.IgnoreResult,
		Headers: h.Extra, embed: body.Embed, app: a,
	}
	var err error
	if h.ETA != "" {
		if r.ETA, err = protocol.ParseTime(h.ETA, a.conf.Location); err != nil {
			return r, fmt.Errorf("header \"eta\": %w", err)
		}
	}
	if h.Expires != "" {
		if r.Expires, err = protocol.ParseTime(h.Expires, a.conf.Location); err != nil {
			return r, fmt.Errorf("header \"expires\": %w", err)
		}
	}
	if r.RootID == "" {
		r.RootID = r.ID
	}
	if d, ok := a.tasks[r.Task]; ok && !d.remote {
		r.def = d
	}
	return r, nil
}

// Describe fills in the text forms of the arguments where the sender gave none.
func (r *Request) Describe() (args, kwargs string) {
	args, kwargs = r.ArgsRepr, r.KwargsRepr
	if args == "" {
		args = reprOf(nil, saferepr.AppendArgs, json.RawMessage(r.Args))
	}
	if kwargs == "" {
		kwargs = reprOf(nil, saferepr.AppendKwargs, json.RawMessage(r.Kwargs))
	}
	return args, kwargs
}

func duration(s *float64) time.Duration {
	if s == nil || *s <= 0 {
		return 0
	}
	if *s > float64(1<<62)/float64(time.Second) {
		return 0
	}
	return time.Duration(*s * float64(time.Second))
}
