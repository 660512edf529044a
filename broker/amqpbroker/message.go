package amqpbroker

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/lovage-go/lovage/broker"
	amqp "github.com/rabbitmq/amqp091-go"
)

// marks are what a message has been through, in the header x-lovage.
type marks struct {
	requeued   bool
	expiration string // that of a message under way in delay or dead-letter queues
	exchange   string // where a dead letter came from
	routingKey string
	queue      string
	reason     string
	id         string
	at         time.Time
	losses     int
	counted    bool // this copy was made to count a loss
}

func (m *marks) table() amqp.Table {
	t := amqp.Table{}
	for k, v := range map[string]string{"expiration": m.expiration, "exchange": m.exchange, "routing_key": m.routingKey,
		"queue": m.queue, "reason": m.reason, "id": m.id} {
		if v != "" {
			t[k] = v
		}
	}
	if m.requeued {
		t["requeued"] = true
	}
	if m.losses > 0 {
		t["losses"] = int32(m.losses)
	}
	if m.counted {
		t["counted"] = true
	}
	if !m.at.IsZero() {
		t["at"] = m.at.UnixMilli()
	}
	return t
}

func marksOf(t amqp.Table) marks {
	if own, ok := t[ownMarks].(amqp.Table); ok {
		return readMarks(own)
	}
	return marks{}
}

func readMarks(own amqp.Table) (m marks) {
	m.requeued, _ = own["requeued"].(bool)
	m.counted, _ = own["counted"].(bool)
	m.losses = int(integer(own["losses"]))
	if at := integer(own["at"]); at != 0 {
		m.at = time.UnixMilli(at).UTC()
	}
	for k, dst := range map[string]*string{"expiration": &m.expiration, "exchange": &m.exchange, "routing_key": &m.routingKey,
		"queue": &m.queue, "reason": &m.reason, "id": &m.id} {
		*dst, _ = own[k].(string)
	}
	return m
}

func integer(v any) int64 {
	switch n := v.(type) {
	case int8:
		return int64(n)
	case int16:
		return int64(n)
	case int32:
		return int64(n)
	case int64:
		return n
	case byte:
		return int64(n)
	}
	return 0
}

// publishing is a message in the library's form, with a body of its own.
func (c *Conn) publishing(m *broker.Message) (amqp.Publishing, error) {
	t, err := table(&m.Headers)
	if err != nil {
		return amqp.Publishing{}, err
	}
	p := &m.Properties
	out := amqp.Publishing{
		Headers: t, ContentType: p.ContentType, ContentEncoding: p.ContentEncoding, CorrelationId: p.CorrelationID, ReplyTo: p.ReplyTo,
		DeliveryMode: uint8(p.DeliveryMode), Body: slices.Clone(m.Body),
	}
	if p.Priority != nil {
		if *p.Priority < 0 || *p.Priority > 255 {
			return out, fmt.Errorf("priority %d: AMQP has 0 to 255", *p.Priority)
		}
		out.Priority = uint8(*p.Priority)
	}
	if p.HasExpiration {
		out.Expiration = strconv.FormatInt(max(p.Expiration.Milliseconds(), 0), 10)
	}
	for k, v := range p.Extra {
		switch k {
		case "message_id":
			out.MessageId = v
		case "app_id":
			out.AppId = v
		case "type":
			out.Type = v
		case "user_id":
			if v == c.at.user { // the server closes the channel for another's
				out.UserId = v
			}
		}
	}
	return out, nil
}

// again is a message that was delivered, to be published once more.
func again(d *amqp.Delivery, m marks) amqp.Publishing {
	t := make(amqp.Table, len(d.Headers)+1)
	for k, v := range d.Headers {
		if !ownHeader(k) && !deathHeader(k) {
			t[k] = v
		}
	}
	if own := m.table(); len(own) > 0 {
		t[ownMarks] = own
	}
	return amqp.Publishing{
		Headers: t, ContentType: d.ContentType, ContentEncoding: d.ContentEncoding, DeliveryMode: d.DeliveryMode, Priority: d.Priority,
		CorrelationId: d.CorrelationId, ReplyTo: d.ReplyTo, Expiration: d.Expiration, MessageId: d.MessageId, Timestamp: d.Timestamp,
		Type: d.Type, UserId: "", AppId: d.AppId, Body: slices.Clone(d.Body),
	}
}

// deathHeader: RabbitMQ's diary of a dead-lettered message.
func deathHeader(key string) bool {
	return key == "x-death" || strings.HasPrefix(key, "x-first-death-") || strings.HasPrefix(key, "x-last-death-")
}

// delivery is a message as the contract has it.
func (c *Conn) delivery(queue string, a *amqp.Delivery) broker.Delivery {
	m := marksOf(a.Headers)
	d := broker.Delivery{Queue: queue, Exchange: a.Exchange, RoutingKey: a.RoutingKey, Body: a.Body, Losses: m.losses}
	if undelay(&d) {
		for k := range a.Headers {
			if deathHeader(k) {
				delete(a.Headers, k)
			}
		}
	}
	if m.expiration != "" {
		a.Expiration = m.expiration
	}
	if m.routingKey != "" || m.exchange != "" {
		d.Exchange, d.RoutingKey = m.exchange, m.routingKey
	}
	d.Headers = appendTable(make([]byte, 0, 512), a.Headers)
	p := &d.Properties
	p.ContentType, p.ContentEncoding, p.CorrelationID, p.ReplyTo = a.ContentType, a.ContentEncoding, a.CorrelationId, a.ReplyTo
	p.DeliveryMode = int(a.DeliveryMode)
	if a.Priority != 0 {
		v := int(a.Priority)
		p.Priority = &v
	}
	if ms, err := strconv.ParseInt(a.Expiration, 10, 64); err == nil {
		p.Expiration, p.HasExpiration = time.Duration(ms)*time.Millisecond, true
	}
	for k, v := range map[string]string{"message_id": a.MessageId, "app_id": a.AppId, "type": a.Type, "user_id": a.UserId} {
		if v != "" {
			if p.Extra == nil {
				p.Extra = map[string]string{}
			}
			p.Extra[k] = v
		}
	}
	d.Redelivered = a.Redelivered || m.requeued || m.counted
	d.Orphaned = a.Redelivered
	if len(a.Body) > c.maxBody {
		d.Malformed = fmt.Errorf("its body has %d bytes, the limit is %d: %w", len(a.Body), c.maxBody, broker.ErrTooLarge)
	}
	return d
}
