package lovage

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/lovage-go/lovage/internal/saferepr"
	"github.com/lovage-go/lovage/protocol"
	"github.com/lovage-go/lovage/serializer"
)

// message builds the message of a call.
func (a *App) message(ctx context.Context, c *call, o *options) (*protocol.Message, error) {
	now := time.Now()
	if err := a.router.route(c, o); err != nil {
		return nil, err
	}
	id := or(o.taskID, "")
	if id == "" {
		id = a.rand.uuid()
	}
	h := protocol.Headers{
		Lang: "go", Task: c.name, ID: id, RootID: id, Origin: a.origin,
		Shadow:       or(o.shadow, ""),
		IgnoreResult: or(o.ignoreResult, a.conf.TaskIgnoreResult),
		Group:        or(o.groupID, ""), GroupIndex: c.groupIndex,
		Retries: max(or(o.retries, 0), 0),
		Stamps:  c.stamps, StampedHeaders: c.stampedHeaders,
	}
	c.ignored = h.IgnoreResult
	if r := runFrom(ctx); r != nil && r.ID != "" {
		h.RootID, h.ParentID = r.RootID, r.ID
		if h.RootID == "" {
			h.RootID = r.ID
		}
		if o.priority == nil && a.conf.TaskInheritParentPriority {
			o.priority = r.priority
		}
	}
	h.RootID = or(o.rootID, h.RootID)
	h.ParentID = or(o.parentID, h.ParentID)
	h.TimeLimit = protocol.TimeLimit{Hard: seconds(o.timeLimit), Soft: seconds(o.softLimit)}
	if hard, soft := h.TimeLimit.Hard, h.TimeLimit.Soft; hard != nil && soft != nil && *soft > *hard {
		return nil, fmt.Errorf("the soft time limit %gs is above the hard one %gs", *soft, *hard)
	}
	var err error
	if h.Extra, err = encodeHeaders(o.headers); err != nil {
		return nil, err
	}
	h.ArgsRepr = reprOf(o.argsRepr, saferepr.AppendArgs, c.args)
	h.KwargsRepr = reprOf(o.kwargsRepr, saferepr.AppendKwargs, c.kwargs)

	m := &protocol.Message{}
	switch {
	case o.countdown != nil && *o.countdown > 0:
		m.NotBefore = now.Add(*o.countdown)
	case o.eta != nil:
		m.NotBefore = *o.eta
	}
	if !m.NotBefore.IsZero() {
		h.ETA = a.wireTime(m.NotBefore)
	}
	body := protocol.Body{Args: c.args, Kwargs: c.kwargs, Embed: c.embed}
	if body.Embed.Callbacks, err = a.signatures(body.Embed.Callbacks, o.links); err != nil {
		return nil, fmt.Errorf("link: %w", err)
	}
	if body.Embed.Errbacks, err = a.signatures(body.Embed.Errbacks, o.linkErrors); err != nil {
		return nil, fmt.Errorf("link_error: %w", err)
	}
	m.Headers = h
	a.setExpiry(m, o.expiry(now), now)
	if err := a.encodeBody(m, &body, o); err != nil {
		return nil, err
	}
	m.Properties.CorrelationID = id
	m.Properties.ReplyTo = or(o.replyTo, "")
	m.Mandatory = or(o.mandatory, false)
	if err := a.router.address(m, o); err != nil {
		return nil, err
	}
	return m, nil
}

// expiry is the moment that the options name; zero is none.
func (o *options) expiry(now time.Time) time.Time {
	switch {
	case o.expires != nil && *o.expires != NoLimit:
		return now.Add(*o.expires)
	case o.expiresAt != nil:
		return *o.expiresAt
	}
	return time.Time{}
}

// setExpiry writes an expiry as Celery does: a header for the worker, and the
// time left for the broker, 0 for what has expired already.
func (a *App) setExpiry(m *protocol.Message, at, now time.Time) {
	if at.IsZero() {
		return
	}
	m.ExpiresAt = at
	m.Headers.Expires = a.wireTime(at)
	m.Properties.HasExpiration, m.Properties.Expiration = true, max(at.Sub(now), 0)
}

// wireTime writes a time for a header: in UTC, or in the App's zone if
// enable_utc is off.
func (a *App) wireTime(t time.Time) string {
	if a.conf.EnableUTC {
		return protocol.FormatTime(t.UTC())
	}
	return protocol.FormatTime(t.In(a.conf.Location))
}

// encodeBody writes the body as the options ask, protocol 2 or 1.
func (a *App) encodeBody(m *protocol.Message, body *protocol.Body, o *options) error {
	codec, err := a.codecs.Lookup(or(o.serializer, a.conf.TaskSerializer))
	if err != nil {
		return err
	}
	m.Properties.ContentType, m.Properties.ContentEncoding = codec.ContentType(), codec.Encoding()
	if a.conf.TaskProtocol == 1 {
		m.Body = protocol.AppendV1(nil, &m.Headers, body)
	} else {
		m.Body = body.AppendJSON(make([]byte, 0, len(body.Args)+len(body.Kwargs)+80))
	}
	if method := or(o.compression, a.conf.TaskCompression); method != "" {
		mime, err := serializer.Compression(method)
		if err != nil {
			return err
		}
		data, err := serializer.Compress(method, m.Body)
		if err != nil {
			return fmt.Errorf("compress the body: %w", err)
		}
		m.Body, m.Headers.Compression = data, mime
	}
	if limit := a.conf.TaskMaxMessageSize; limit > 0 && len(m.Body) > limit {
		return fmt.Errorf("the message body has %d bytes, more than task_max_message_size (%d): store the data elsewhere and send a reference to it", len(m.Body), limit)
	}
	return nil
}

// signatures adds links to those that a signature brought.
func (a *App) signatures(have []protocol.Signature, links []Linkable) ([]protocol.Signature, error) {
	if len(links) == 0 {
		return have, nil
	}
	out := append(make([]protocol.Signature, 0, len(have)+len(links)), have...)
	for _, l := range links {
		s, err := l.signature(a)
		if err != nil {
			return nil, err
		}
		out = append(out, s)
	}
	return out, nil
}

// onWire is the message as it is sent. Version 1 has everything in its body:
// headers that name a task would make the receiver take it for version 2.
func (a *App) onWire(m *protocol.Message) *protocol.Message {
	if a.conf.TaskProtocol != 1 || m.Headers.Task == "" {
		return m
	}
	w := *m
	w.Headers = protocol.Headers{Compression: m.Headers.Compression, Extra: m.Headers.Extra}
	return &w
}

func encodeHeaders(h map[string]any) (map[string]json.RawMessage, error) {
	if len(h) == 0 {
		return nil, nil
	}
	out := make(map[string]json.RawMessage, len(h))
	for k, v := range h {
		if raw, ok := v.(json.RawMessage); ok {
			out[k] = raw
			continue
		}
		text, err := jsonCodec.Marshal(v)
		if err != nil {
			return nil, fmt.Errorf("header %q: %w", k, err)
		}
		out[k] = text
	}
	return out, nil
}

func reprOf(given *string, repr func([]byte, json.RawMessage, int) []byte, raw json.RawMessage) string {
	if given != nil {
		return *given
	}
	var buf [128]byte
	return string(repr(buf[:0], raw, defaultReprSize))
}

func seconds(d *time.Duration) *float64 {
	if d == nil || *d <= 0 {
		return nil
	}
	s := d.Seconds()
	return &s
}
