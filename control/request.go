package control

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"time"

	"github.com/lovage-go/lovage/internal/jsontext"
	"github.com/lovage-go/lovage/protocol"
)

// Namespace is Celery's base name of the pidbox exchanges (control_exchange).
const Namespace = "celery"

// exchangeOf is the fan-out exchange of requests.
func exchangeOf(namespace string) string { return namespace + ".pidbox" }

// replyExchangeOf is the direct exchange of replies.
func replyExchangeOf(namespace string) string { return "reply." + namespace + ".pidbox" }

// Request is a command to all workers, or to those it names.
type Request struct {
	Method    string
	Arguments Args
	// Destination names the nodes that are meant; none: all, or those whose name
	// Pattern matches in the way of Matcher, glob or pcre.
	Destination []string
	Pattern     string
	Matcher     string
	// Ticket and ReplyTo are set if a reply is wanted.
	Ticket  string
	ReplyTo *Address

	// In the headers.
	Clock   int64
	Expires time.Time // zero: the sender did not say; nodes heed it no more than kombu's
}

// Address is where replies go.
type Address struct {
	Exchange   string `json:"exchange"`
	RoutingKey string `json:"routing_key"`
}

// requestBody is the wire form; ticket and reply_to are left out, not null, if
// no reply is wanted.
type requestBody struct {
	Method      string   `json:"method"`
	Arguments   Args     `json:"arguments"`
	Destination []string `json:"destination"`
	Pattern     *string  `json:"pattern"`
	Matcher     *string  `json:"matcher"`
	Ticket      *string  `json:"ticket,omitempty"`
	ReplyTo     *Address `json:"reply_to,omitempty"`
}

// Message is the request as it is broadcast.
func (r *Request) Message() (*protocol.Message, error) {
	body := requestBody{
		Method: r.Method, Arguments: r.Arguments, Destination: r.Destination,
		Pattern: orNull(r.Pattern), Matcher: orNull(r.Matcher), Ticket: orNull(r.Ticket), ReplyTo: r.ReplyTo,
	}
	if body.Arguments == nil {
		body.Arguments = Args{}
	}
	text, err := encode(body)
	if err != nil {
		return nil, fmt.Errorf("control request %s: %w", r.Method, err)
	}
	expires := json.RawMessage("0")
	if !r.Expires.IsZero() {
		expires = json.RawMessage(fmt.Sprintf("%d.%06d", r.Expires.Unix(), r.Expires.Nanosecond()/1000))
	}
	return message(text, 2, map[string]json.RawMessage{"clock": number(r.Clock), "expires": expires}), nil
}

// ParseRequest reads a request from headers and body of a message.
func ParseRequest(headers, body []byte) (*Request, error) {
	if err := jsontext.Valid(body); err != nil {
		return nil, fmt.Errorf("control request: %w", err)
	}
	var b requestBody
	if err := json.Unmarshal(body, &b); err != nil {
		return nil, fmt.Errorf("control request: %w", err)
	}
	if b.Method == "" {
		return nil, errors.New("control request: it names no method")
	}
	r := &Request{Method: b.Method, Arguments: b.Arguments, Destination: b.Destination, ReplyTo: b.ReplyTo,
		Pattern: orEmpty(b.Pattern), Matcher: orEmpty(b.Matcher), Ticket: orEmpty(b.Ticket)}
	h := parseHeaders(headers)
	r.Clock = h.Clock
	if s := h.Expires; s > 0 && s < 1<<40 {
		whole, part := math.Modf(s)
		r.Expires = time.Unix(int64(whole), int64(part*1e9)).UTC().Round(time.Microsecond)
	}
	return r, nil
}

// headers are those of requests and replies.
type headers struct {
	Clock   int64
	Expires float64
	Ticket  string
}

// parseHeaders takes what it can read: a header of another type is as if absent.
func parseHeaders(raw []byte) (h headers) {
	var m map[string]json.RawMessage
	if json.Unmarshal(raw, &m) != nil {
		return h
	}
	_ = json.Unmarshal(m["clock"], &h.Clock)
	_ = json.Unmarshal(m["expires"], &h.Expires)
	_ = json.Unmarshal(m["ticket"], &h.Ticket)
	return h
}

func message(body []byte, mode int, extra map[string]json.RawMessage) *protocol.Message {
	return &protocol.Message{
		Headers: protocol.Headers{Extra: extra}, Body: body,
		Properties: protocol.Properties{ContentType: protocol.ContentJSON, ContentEncoding: protocol.EncodingUTF8, DeliveryMode: mode},
	}
}

func number(n int64) json.RawMessage { return fmt.Appendf(nil, "%d", n) }

// encode makes JSON without escapes for HTML.
func encode(v any) ([]byte, error) {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	err := enc.Encode(v)
	return bytes.TrimSuffix(b.Bytes(), []byte("\n")), err
}

func orNull(s string) *string {
	if s == "" {
		return nil
	}
	return &s
}

func orEmpty(s *string) string {
	if s == nil {
		return ""
	}
	return *s
}
