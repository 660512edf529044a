package sqlstore

import (
	"encoding/json"
	"fmt"
	"strconv"
	"time"

	"github.com/lovage-go/lovage/protocol"
)

// Envelope is what a message has besides headers and body. It is stored as a
// JSON object without its empty members.
type Envelope struct {
	Exchange   string
	RoutingKey string
	Properties protocol.Properties
}

// AppendJSON appends the stored form.
func (e *Envelope) AppendJSON(b []byte) []byte {
	p := &e.Properties
	b = append(b, '{')
	b = appendMember(b, "exchange", e.Exchange)
	b = appendMember(b, "routing_key", e.RoutingKey)
	b = appendMember(b, "content_type", p.ContentType)
	b = appendMember(b, "content_encoding", p.ContentEncoding)
	b = appendMember(b, "correlation_id", p.CorrelationID)
	b = appendMember(b, "reply_to", p.ReplyTo)
	if p.DeliveryMode != 0 {
		b = appendInt(b, "delivery_mode", int64(p.DeliveryMode))
	}
	if p.Priority != nil {
		b = appendInt(b, "priority", int64(*p.Priority))
	}
	if p.HasExpiration {
		b = appendInt(b, "expiration_us", p.Expiration.Microseconds())
	}
	if len(p.Extra) > 0 {
		extra, _ := json.Marshal(p.Extra) // a map of strings
		b = append(appendKey(b, "extra"), extra...)
	}
	return append(b, '}')
}

func appendKey(b []byte, key string) []byte {
	if b[len(b)-1] != '{' {
		b = append(b, ',')
	}
	b = append(b, '"')
	b = append(b, key...)
	return append(b, '"', ':')
}

func appendMember(b []byte, key, v string) []byte {
	if v == "" {
		return b
	}
	b = appendKey(b, key)
	for i := range len(v) {
		if c := v[i]; c < ' ' || c > '~' || c == '"' || c == '\\' {
			quoted, _ := json.Marshal(v) // a string
			return append(b, quoted...)
		}
	}
	b = append(b, '"')
	b = append(b, v...)
	return append(b, '"')
}

func appendInt(b []byte, key string, n int64) []byte {
	return strconv.AppendInt(appendKey(b, key), n, 10)
}

// ParseEnvelope reads the stored form.
func ParseEnvelope(raw []byte) (Envelope, error) {
	if e, ok := parsePlain(raw); ok {
		return e, nil
	}
	var w struct {
		Exchange        string            `json:"exchange"`
		RoutingKey      string            `json:"routing_key"`
		ContentType     string            `json:"content_type"`
		ContentEncoding string            `json:"content_encoding"`
		CorrelationID   string            `json:"correlation_id"`
		ReplyTo         string            `json:"reply_to"`
		DeliveryMode    int               `json:"delivery_mode"`
		Priority        *int              `json:"priority"`
		Expiration      *int64            `json:"expiration_us"`
		Extra           map[string]string `json:"extra"`
	}
	if err := json.Unmarshal(raw, &w); err != nil {
		return Envelope{}, fmt.Errorf("envelope: %w", err)
	}
	e := Envelope{Exchange: w.Exchange, RoutingKey: w.RoutingKey, Properties: protocol.Properties{
		ContentType: w.ContentType, ContentEncoding: w.ContentEncoding, CorrelationID: w.CorrelationID,
		ReplyTo: w.ReplyTo, DeliveryMode: w.DeliveryMode, Priority: w.Priority, Extra: w.Extra,
	}}
	if w.Expiration != nil {
		e.Properties.Expiration, e.Properties.HasExpiration = time.Duration(*w.Expiration)*time.Microsecond, true
	}
	return e, nil
}

// parsePlain reads what AppendJSON writes when nothing needs escapes; anything
// else is not ok.
func parsePlain(raw []byte) (e Envelope, ok bool) {
	if len(raw) < 2 || raw[0] != '{' {
		return e, false
	}
	p := &e.Properties
	for i := 1; ; {
		if i < len(raw) && raw[i] == '}' {
			return e, i == len(raw)-1
		}
		if i > 1 {
			if i >= len(raw) || raw[i] != ',' {
				return e, false
			}
			i++
		}
		key, next, good := plainString(raw, i)
		if !good || next >= len(raw) || raw[next] != ':' {
			return e, false
		}
		i = next + 1
		if i < len(raw) && raw[i] == '"' {
			v, next, good := plainString(raw, i)
			if !good {
				return e, false
			}
			i = next
			switch string(key) {
			case "exchange":
				e.Exchange = string(v)
			case "routing_key":
				e.RoutingKey = string(v)
			case "content_type":
				p.ContentType = intern(v)
			case "content_encoding":
				p.ContentEncoding = intern(v)
			case "correlation_id":
				p.CorrelationID = string(v)
			case "reply_to":
				p.ReplyTo = string(v)
			default:
				return e, false
			}
			continue
		}
		start := i
		for i < len(raw) && (raw[i] >= '0' && raw[i] <= '9' || raw[i] == '-') {
			i++
		}
		n, err := strconv.ParseInt(string(raw[start:i]), 10, 64)
		if err != nil {
			return e, false
		}
		switch string(key) {
		case "delivery_mode":
			p.DeliveryMode = int(n)
		case "priority":
			v := int(n)
			p.Priority = &v
		case "expiration_us":
			p.Expiration, p.HasExpiration = time.Duration(n)*time.Microsecond, true
		default:
			return e, false
		}
	}
}

// plainString reads a JSON string without escapes at i.
func plainString(raw []byte, i int) (s []byte, next int, ok bool) {
	if i >= len(raw) || raw[i] != '"' {
		return nil, i, false
	}
	for j := i + 1; j < len(raw); j++ {
		switch c := raw[j]; {
		case c == '"':
			return raw[i+1 : j], j + 1, true
		case c == '\\' || c < ' ' || c > '~':
			return nil, i, false
		}
	}
	return nil, i, false
}

// intern saves the allocation for the values that nearly every message has.
func intern(v []byte) string {
	switch string(v) {
	case protocol.ContentJSON:
		return protocol.ContentJSON
	case protocol.EncodingUTF8:
		return protocol.EncodingUTF8
	}
	return string(v)
}
