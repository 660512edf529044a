package lovage

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strconv"
	"time"

	"github.com/lovage-go/lovage/protocol"
)

// wireExtra are the options of a signature that are no option of a call.
type wireExtra struct {
	embed      protocol.Embed
	groupIndex *int
}

// wire writes options under the names that Celery's signatures use.
func (o *options) wire(app *App) (map[string]json.RawMessage, error) {
	w := map[string]json.RawMessage{}
	put := func(name string, v any) error {
		text, err := jsonCodec.Marshal(v)
		if err != nil {
			return fmt.Errorf("option %s: %w", name, err)
		}
		w[name] = text
		return nil
	}
	var errs []error
	add := func(name string, v any) { errs = append(errs, put(name, v)) }
	for name, p := range map[string]*string{
		"task_id": o.taskID, "queue": o.queue, "exchange": o.exchange, "routing_key": o.routingKey, "serializer": o.serializer,
		"compression": o.compression, "shadow": o.shadow, "reply_to": o.replyTo, "root_id": o.rootID, "parent_id": o.parentID,
		"argsrepr": o.argsRepr, "kwargsrepr": o.kwargsRepr, "group_id": o.groupID,
	} {
		if p != nil {
			add(name, *p)
		}
	}
	for name, p := range map[string]*int{"priority": o.priority, "delivery_mode": o.deliveryMode, "retries": o.retries} {
		if p != nil {
			add(name, *p)
		}
	}
	for name, p := range map[string]*time.Duration{"countdown": o.countdown, "expires": o.expires, "time_limit": o.timeLimit, "soft_time_limit": o.softLimit} {
		if p != nil && *p >= 0 {
			add(name, p.Seconds())
		}
	}
	for name, p := range map[string]*time.Time{"eta": o.eta, "expires": o.expiresAt} {
		if p != nil {
			add(name, app.wireTime(*p))
		}
	}
	for name, p := range map[string]*bool{"ignore_result": o.ignoreResult, "add_to_parent": o.addToParent, "mandatory": o.mandatory} {
		if p != nil {
			add(name, *p)
		}
	}
	if len(o.headers) > 0 {
		add("headers", o.headers)
	}
	for name, links := range map[string][]Linkable{"link": o.links, "link_error": o.linkErrors} {
		if len(links) > 0 {
			sigs, err := app.signatures(nil, links)
			errs = append(errs, err)
			add(name, sigs)
		}
	}
	for _, err := range errs {
		if err != nil {
			return nil, err
		}
	}
	return w, nil
}

// parseWireOptions reads the options of a signature. Options that this version
// does not know are left alone: they are for whoever made the signature.
func parseWireOptions(w map[string]json.RawMessage) (o options, x wireExtra, err error) {
	for name, raw := range w {
		if bytes.Equal(bytes.TrimSpace(raw), []byte("null")) {
			continue
		}
		if err = o.setWire(name, raw, &x); err != nil {
			return o, x, fmt.Errorf("option %s = %.60s: %w", name, raw, err)
		}
	}
	return o, x, nil
}

func (o *options) setWire(name string, raw json.RawMessage, x *wireExtra) error {
	switch name {
	case "task_id":
		return json.Unmarshal(raw, &o.taskID)
	case "queue":
		return json.Unmarshal(raw, &o.queue)
	case "exchange":
		return json.Unmarshal(raw, &o.exchange)
	case "routing_key":
		return json.Unmarshal(raw, &o.routingKey)
	case "serializer":
		return json.Unmarshal(raw, &o.serializer)
	case "compression":
		return json.Unmarshal(raw, &o.compression)
	case "shadow":
		return json.Unmarshal(raw, &o.shadow)
	case "reply_to":
		return json.Unmarshal(raw, &o.replyTo)
	case "root_id":
		return json.Unmarshal(raw, &o.rootID)
	case "parent_id":
		return json.Unmarshal(raw, &o.parentID)
	case "group_id":
		return json.Unmarshal(raw, &o.groupID)
	case "argsrepr":
		return json.Unmarshal(raw, &o.argsRepr)
	case "kwargsrepr":
		return json.Unmarshal(raw, &o.kwargsRepr)
	case "group_index":
		return json.Unmarshal(raw, &x.groupIndex)
	case "priority":
		return json.Unmarshal(raw, &o.priority)
	case "delivery_mode":
		return json.Unmarshal(raw, &o.deliveryMode)
	case "retries":
		return json.Unmarshal(raw, &o.retries)
	case "ignore_result":
		return json.Unmarshal(raw, &o.ignoreResult)
	case "add_to_parent":
		return json.Unmarshal(raw, &o.addToParent)
	case "mandatory":
		return json.Unmarshal(raw, &o.mandatory)
	case "countdown":
		return wireSeconds(raw, &o.countdown)
	case "time_limit":
		return wireSeconds(raw, &o.timeLimit)
	case "soft_time_limit":
		return wireSeconds(raw, &o.softLimit)
	case "expires":
		if err := wireSeconds(raw, &o.expires); err == nil {
			return nil
		}
		return wireTime(raw, &o.expiresAt)
	case "eta":
		return wireTime(raw, &o.eta)
	case "headers":
		var h map[string]json.RawMessage
		if err := json.Unmarshal(raw, &h); err != nil {
			return err
		}
		m := make(map[string]any, len(h))
		for k, v := range h {
			m[k] = v
		}
		o.headers = m
	case "link":
		return wireSignatures(raw, &x.embed.Callbacks)
	case "link_error":
		return wireSignatures(raw, &x.embed.Errbacks)
	case "chain":
		return wireSignatures(raw, &x.embed.Chain)
	case "chord":
		s, err := protocol.ParseSignature(raw)
		x.embed.Chord = &s
		return err
	}
	return nil
}

func wireSeconds(raw json.RawMessage, dst **time.Duration) error {
	s, err := strconv.ParseFloat(string(bytes.TrimSpace(raw)), 64)
	if err != nil {
		return fmt.Errorf("not a number of seconds")
	}
	d := time.Duration(s * float64(time.Second))
	*dst = &d
	return nil
}

func wireTime(raw json.RawMessage, dst **time.Time) error {
	var t time.Time
	if err := jsonCodec.Unmarshal(raw, &t); err != nil {
		return fmt.Errorf("not a date: %w", err)
	}
	*dst = &t
	return nil
}

// wireSignatures reads one signature or a list of them.
func wireSignatures(raw json.RawMessage, dst *[]protocol.Signature) (err error) {
	*dst, err = protocol.ParseSignatures(raw)
	return err
}
