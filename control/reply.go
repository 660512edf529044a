package control

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/lovage-go/lovage/internal/jsontext"
	"github.com/lovage-go/lovage/protocol"
)

// Reply is one node's answer to a request.
type Reply struct {
	Node  string
	Value json.RawMessage
	// In the headers.
	Ticket string
	Clock  int64
}

// OK is the text of a reply {"ok": text}, which commands that only do something
// give; "" for any other reply.
func (r *Reply) OK() string {
	var v struct{ OK string }
	_ = json.Unmarshal(r.Value, &v)
	return v.OK
}

// Err is the error of a reply {"error": text}, nil for any other reply.
func (r *Reply) Err() error {
	var v map[string]json.RawMessage
	var text string
	if json.Unmarshal(r.Value, &v) != nil || len(v) != 1 || json.Unmarshal(v["error"], &text) != nil {
		return nil
	}
	return &NodeError{Node: r.Node, Text: text}
}

// Decode reads the value.
func (r *Reply) Decode(v any) error {
	if err := r.Err(); err != nil {
		return err
	}
	if err := json.Unmarshal(r.Value, v); err != nil {
		return fmt.Errorf("reply of %s: %w", r.Node, err)
	}
	return nil
}

// NodeError is what a node says went wrong. Python's nodes send the repr of an
// exception.
type NodeError struct{ Node, Text string }

func (e *NodeError) Error() string { return e.Node + ": " + e.Text }

// Message is the reply as it is sent.
func (r *Reply) Message() (*protocol.Message, error) {
	value := r.Value
	if len(value) == 0 {
		value = json.RawMessage("null")
	}
	text, err := encode(map[string]json.RawMessage{r.Node: value})
	if err != nil {
		return nil, fmt.Errorf("control reply: %w", err)
	}
	ticket, err := encode(r.Ticket)
	if err != nil {
		return nil, fmt.Errorf("control reply: %w", err)
	}
	return message(text, 1, map[string]json.RawMessage{"ticket": ticket, "clock": number(r.Clock)}), nil
}

// ParseReply reads a reply from headers and body of a message.
func ParseReply(headers, body []byte) (*Reply, error) {
	if err := jsontext.Valid(body); err != nil {
		return nil, fmt.Errorf("control reply: %w", err)
	}
	if !json.Valid(body) {
		body = finite(body)
	}
	var m map[string]json.RawMessage
	if err := json.Unmarshal(body, &m); err != nil {
		return nil, fmt.Errorf("control reply: %w", err)
	}
	if len(m) != 1 {
		return nil, errors.New("control reply: want an object with one node's name")
	}
	h := parseHeaders(headers)
	r := &Reply{Ticket: h.Ticket, Clock: h.Clock}
	for r.Node, r.Value = range m {
	}
	return r, nil
}

// finite writes null for Python's bare words Infinity and NaN, which are no JSON
// and which the settings of a Python node have.
func finite(body []byte) []byte {
	out := make([]byte, 0, len(body))
	for i := 0; i < len(body); i++ {
		if body[i] == '"' {
			from := i
			for i++; i < len(body) && body[i] != '"'; i++ {
				if body[i] == '\\' {
					i++
				}
			}
			out = append(out, body[from:min(i+1, len(body))]...)
			continue
		}
		word := ""
		for _, w := range [...]string{"-Infinity", "Infinity", "NaN"} {
			if bytes.HasPrefix(body[i:], []byte(w)) {
				word = w
				break
			}
		}
		if word == "" {
			out = append(out, body[i])
			continue
		}
		out = append(out, "null"...)
		i += len(word) - 1
	}
	return out
}
