package redisbroker

import (
	"encoding/base64"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"time"
	"unsafe"

	"github.com/lovage-go/lovage/broker"
	"github.com/lovage-go/lovage/internal/pyjson"
	"github.com/lovage-go/lovage/protocol"
)

// appendEnvelope writes a message as kombu does, in its order. What is not set
// is left out, where kombu has a priority of 0 for none given.
func (c *Conn) appendEnvelope(b []byte, m *broker.Message) []byte {
	b = append(b, `{"body": "`...)
	b = base64.StdEncoding.AppendEncode(b, m.Body)
	b = appendText(append(b, `", "content-encoding": `...), m.Properties.ContentEncoding)
	b = appendText(append(b, `, "content-type": `...), m.Properties.ContentType)
	b = m.Headers.AppendJSON(append(b, `, "headers": `...))
	b = append(b, `, "properties": {`...)
	p := &m.Properties
	if p.CorrelationID != "" {
		b = append(pyjson.AppendString(append(b, `"correlation_id": `...), p.CorrelationID), ", "...)
	}
	if p.ReplyTo != "" {
		b = append(pyjson.AppendString(append(b, `"reply_to": `...), p.ReplyTo), ", "...)
	}
	if len(p.Extra) > 0 {
		b = appendExtra(b, p.Extra)
	}
	if p.DeliveryMode != 0 {
		b = append(strconv.AppendInt(append(b, `"delivery_mode": `...), int64(p.DeliveryMode), 10), ", "...)
	}
	if p.HasExpiration {
		b = strconv.AppendInt(append(b, `"expiration": "`...), p.Expiration.Milliseconds(), 10)
		b = append(b, `", `...)
	}
	b = pyjson.AppendString(append(b, `"delivery_info": {"exchange": `...), m.Exchange)
	b = pyjson.AppendString(append(b, `, "routing_key": `...), m.RoutingKey)
	b = append(b, "}, "...)
	if p.Priority != nil {
		b = append(strconv.AppendInt(append(b, `"priority": `...), int64(*p.Priority), 10), ", "...)
	}
	b = append(b, `"body_encoding": "base64", "delivery_tag": "`...)
	b = c.newTag(b)
	return append(b, `"}}`...)
}

func appendExtra(b []byte, extra map[string]string) []byte {
	for _, k := range slices.Sorted(maps.Keys(extra)) {
		if !ownProperty(k) {
			b = append(pyjson.AppendString(b, k), ": "...)
			b = append(pyjson.AppendString(b, extra[k]), ", "...)
		}
	}
	return b
}

func appendText(b []byte, s string) []byte {
	if s == "" {
		return append(b, "null"...)
	}
	return pyjson.AppendString(b, s)
}

// ownProperty are the properties that the envelope writes itself.
func ownProperty(key string) bool {
	switch key {
	case "correlation_id", "reply_to", "delivery_mode", "expiration", "delivery_info", "priority", "body_encoding", "delivery_tag":
		return true
	}
	return false
}

// span is a part of the raw text.
type span struct{ from, to int }

// envelope is a message read from its raw text.
type envelope struct {
	text       []byte // the raw text, not to be written to
	headers    span
	info       span // delivery_info; empty if there is none
	encoding   string
	bodyRaw    span // inside of the string
	plain      bool // without escapes
	body       []byte
	props      protocol.Properties
	exchange   string
	routingKey string
	marks      marks
}

// errShape is for JSON that is no message.
func errShape(what string) error {
	return fmt.Errorf("the envelope is no message of kombu's: %s", what)
}

// parseEnvelope reads a list item.
func parseEnvelope(raw string) (e envelope, err error) {
	e.text = unsafe.Slice(unsafe.StringData(raw), len(raw))
	s := pyjson.Scanner{Data: e.text, LimitDepth: protocol.MaxDepth, LimitItems: protocol.MaxItems}
	if err := s.ValidUTF8(); err != nil {
		return e, fmt.Errorf("envelope: %w", err)
	}
	e.bodyRaw.from = -1
	more, err := s.Enter('{')
	for more && err == nil {
		var key []byte
		if key, err = s.Key(); err != nil {
			break
		}
		switch string(key) {
		case "body":
			if s.Peek() == '"' {
				e.bodyRaw.from, e.bodyRaw.to, e.plain, err = s.String()
			} else {
				err = errShape("its body is " + pyjson.Kind(s.Peek()))
			}
		case "content-encoding":
			err = text(&s, &e.props.ContentEncoding)
		case "content-type":
			err = text(&s, &e.props.ContentType)
		case "headers":
			if s.Peek() == '{' {
				e.headers.from = s.Pos
				err = s.Skip()
				e.headers.to = s.Pos
			} else {
				err = s.Skip()
			}
		case "properties":
			err = e.properties(&s)
		default:
			err = s.Skip()
		}
		if err == nil {
			more, err = s.More('{')
		}
	}
	if err == nil {
		err = s.End()
	}
	if err != nil {
		return e, fmt.Errorf("envelope: %w", err)
	}
	if e.bodyRaw.from < 0 {
		return e, errShape("it has no body")
	}
	return e, e.decodeBody()
}

func (e *envelope) decodeBody() error {
	inside := e.text[e.bodyRaw.from:e.bodyRaw.to]
	if !e.plain {
		inside = []byte(pyjson.Unquote(inside))
	}
	switch e.encoding {
	case "base64":
		e.body = make([]byte, base64.StdEncoding.DecodedLen(len(inside)))
		n, err := base64.StdEncoding.Decode(e.body, inside)
		if err != nil {
			return errShape("its body is not base64: " + err.Error())
		}
		e.body = e.body[:n]
	case "":
		e.body = slices.Clone(inside)
	default:
		return errShape("its body_encoding is " + strconv.Quote(e.encoding))
	}
	return nil
}

func (e *envelope) properties(s *pyjson.Scanner) error {
	if s.Peek() != '{' {
		return s.Skip()
	}
	p := &e.props
	more, err := s.Enter('{')
	for more && err == nil {
		var key []byte
		if key, err = s.Key(); err != nil {
			break
		}
		switch string(key) {
		case "correlation_id":
			err = text(s, &p.CorrelationID)
		case "reply_to":
			err = text(s, &p.ReplyTo)
		case "body_encoding":
			err = text(s, &e.encoding)
		case "delivery_tag":
			err = s.Skip()
		case "delivery_mode":
			if n, ok := whole(s, &err); ok {
				p.DeliveryMode = int(n)
			}
		case "priority":
			if n, ok := whole(s, &err); ok {
				v := int(n)
				p.Priority = &v
			}
		case "expiration":
			if n, ok := whole(s, &err); ok {
				p.Expiration, p.HasExpiration = time.Duration(n)*time.Millisecond, true
			}
		case "delivery_info":
			err = e.deliveryInfo(s)
		default:
			if s.Peek() != '"' {
				err = s.Skip() // none that AMQP has
				break
			}
			if p.Extra == nil {
				p.Extra = map[string]string{}
			}
			var v string
			k := string(key)
			err = text(s, &v)
			p.Extra[k] = v
		}
		if err == nil {
			more, err = s.More('{')
		}
	}
	return err
}

func (e *envelope) deliveryInfo(s *pyjson.Scanner) error {
	if s.Peek() != '{' {
		return s.Skip()
	}
	e.info.from = s.Pos
	more, err := s.Enter('{')
	for more && err == nil {
		var key []byte
		if key, err = s.Key(); err != nil {
			break
		}
		switch string(key) {
		case "exchange":
			err = text(s, &e.exchange)
		case "routing_key":
			err = text(s, &e.routingKey)
		case keyRedelivered:
			e.marks.redelivered = s.Peek() == 't'
			err = s.Skip()
		case keyOrphaned:
			e.marks.orphaned = s.Peek() == 't'
			err = s.Skip()
		case keyLosses:
			if n, ok := whole(s, &err); ok {
				e.marks.losses = int(n)
			}
		default:
			err = s.Skip()
		}
		if err == nil {
			more, err = s.More('{')
		}
	}
	e.info.to = s.Pos
	return err
}

// text reads a string; anything else is as none.
func text(s *pyjson.Scanner, dst *string) error {
	if s.Peek() != '"' {
		return s.Skip()
	}
	from, to, plain, err := s.String()
	if err != nil {
		return err
	}
	switch inside := s.Data[from:to]; {
	case !plain:
		*dst = pyjson.Unquote(inside)
	case string(inside) == protocol.ContentJSON:
		*dst = protocol.ContentJSON
	case string(inside) == protocol.EncodingUTF8:
		*dst = protocol.EncodingUTF8
	case string(inside) == "base64":
		*dst = "base64"
	default:
		*dst = string(inside)
	}
	return nil
}

// whole reads a number or its text; anything else is as none.
func whole(s *pyjson.Scanner, err *error) (n int64, ok bool) {
	var raw []byte
	if raw, *err = s.Raw(); *err != nil {
		return 0, false
	}
	if len(raw) > 1 && raw[0] == '"' {
		raw = raw[1 : len(raw)-1]
	}
	n, bad := strconv.ParseInt(string(raw), 10, 64)
	return n, bad == nil
}

// eachMember hands out the members of an object that is known to be one, each
// as its whole text.
func eachMember(object []byte, f func(key string, member []byte)) {
	s := pyjson.Scanner{Data: object}
	more, err := s.Enter('{')
	for more && err == nil {
		s.Peek()
		from := s.Pos
		var key []byte
		if key, err = s.Key(); err != nil {
			return
		}
		if err = s.Skip(); err != nil {
			return
		}
		f(string(key), object[from:s.Pos])
		more, err = s.More('{')
	}
}
