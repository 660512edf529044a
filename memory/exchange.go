package memory

import (
	"bytes"
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/lovage-go/lovage/broker"
)

func itoa(n uint64) string { return strconv.FormatUint(n, 10) }

// exchange is guarded by store.mu.
type exchange struct {
	kind     string
	bindings []binding
}

type binding struct {
	key   string
	queue *queue
}

// declare makes a queue with its exchanges and bindings. The caller holds s.mu.
func (s *Store) declare(d broker.Queue) error {
	if d.Name == "" {
		return fmt.Errorf("declare queue: it has no name: %w", broker.ErrNoQueue)
	}
	if d.NoDeclare {
		if s.queues[d.Name] == nil {
			return fmt.Errorf("queue %q is marked no_declare and does not exist: %w", d.Name, broker.ErrNoQueue)
		}
		return nil
	}
	binds := append([]broker.Binding{{Exchange: d.Exchange, RoutingKey: d.RoutingKey}}, d.Bindings...)
	for _, b := range binds {
		kind := cmp.Or(b.Exchange.Type, "direct")
		if kind != "direct" && kind != "topic" && kind != "fanout" {
			return fmt.Errorf("declare queue %q: exchange %q is of type %q, the memory broker has direct, topic and fanout: %w",
				d.Name, b.Exchange.Name, kind, broker.ErrUnsupported)
		}
		if x := s.exchanges[b.Exchange.Name]; x != nil && x.kind != kind {
			return fmt.Errorf("declare queue %q: exchange %q exists with type %s, not %s: use one type or another name",
				d.Name, b.Exchange.Name, x.kind, kind)
		}
	}
	q := s.queue(d.Name)
	for _, b := range binds {
		if b.Exchange.Name == "" {
			continue // every queue is bound to the anonymous exchange by its name
		}
		x := s.exchanges[b.Exchange.Name]
		if x == nil {
			x = &exchange{kind: cmp.Or(b.Exchange.Type, "direct")}
			s.exchanges[b.Exchange.Name] = x
		}
		if nb := (binding{key: b.RoutingKey, queue: q}); !slices.Contains(x.bindings, nb) {
			x.bindings = append(x.bindings, nb)
		}
	}
	return nil
}

// queue returns the queue of a name, made if it is not there.
func (s *Store) queue(name string) *queue {
	q := s.queues[name]
	if q == nil {
		q = newQueue(s, name)
		s.queues[name] = q
	}
	return q
}

// route finds the queues that take a message; each queue once.
func (s *Store) route(m *broker.Message) []*queue {
	if m.Exchange == "" {
		if name := cmp.Or(m.Queue, m.RoutingKey); name != "" {
			if m.Mandatory && s.queues[name] == nil {
				return nil
			}
			return []*queue{s.queue(name)}
		}
		return nil
	}
	var qs []*queue
	if x := s.exchanges[m.Exchange]; x != nil {
		for _, b := range x.bindings {
			hit := x.kind == "fanout" || b.key == m.RoutingKey
			if x.kind == "topic" {
				hit = broker.MatchTopic(b.key, m.RoutingKey)
			}
			if hit && !slices.Contains(qs, b.queue) {
				qs = append(qs, b.queue)
			}
		}
	}
	if len(qs) == 0 && m.Queue != "" && (!m.Mandatory || s.queues[m.Queue] != nil) {
		qs = append(qs, s.queue(m.Queue))
	}
	return qs
}

// encoded is a message as the store keeps it, made before the store is locked.
type encoded struct {
	item item
	msg  *broker.Message
}

func (s *Store) encode(m *broker.Message) (encoded, error) {
	if len(m.Body) > s.maxBody {
		return encoded{}, fmt.Errorf("message %s has a body of %d bytes, the memory broker takes %d: send a reference to the data or raise WithMaxBody: %w",
			m.Headers.ID, len(m.Body), s.maxBody, broker.ErrTooLarge)
	}
	it := item{
		headers:    m.Headers.AppendJSON(nil),
		props:      cloneProperties(m.Properties),
		body:       bytes.Clone(m.Body),
		exchange:   m.Exchange,
		routingKey: m.RoutingKey,
		taskID:     cmp.Or(m.Headers.ID, m.Properties.CorrelationID),
		task:       m.Headers.Task,
		due:        m.NotBefore,
	}
	if p := m.Properties.Priority; p != nil {
		it.priority = *p
	}
	return encoded{item: it, msg: m}, nil
}

// target finds the queues for a message or the reason why it is refused.
func (s *Store) target(e encoded) ([]*queue, error) {
	qs := s.route(e.msg)
	if len(qs) == 0 && e.msg.Mandatory {
		return nil, fmt.Errorf("publish message %s: no queue takes exchange %q, routing key %q, queue %q: declare one or bind it: %w",
			e.msg.Headers.ID, e.msg.Exchange, e.msg.RoutingKey, e.msg.Queue, broker.ErrNoQueue)
	}
	if s.held+len(qs) > s.capacity {
		return nil, fmt.Errorf("publish message %s: the memory broker holds %d messages, its capacity: consume, purge or raise WithCapacity: %w",
			e.msg.Headers.ID, s.held, broker.ErrUnavailable)
	}
	return qs, nil
}

// put adds a message to its queues; with none it is dropped aloud.
func (s *Store) put(e encoded, qs []*queue, now time.Time) {
	if len(qs) == 0 {
		s.unroutable++
		s.logger().Warn("memory: message dropped, no queue takes it",
			"id", e.msg.Headers.ID, "task", e.msg.Headers.Task, "exchange", e.msg.Exchange, "routing_key", e.msg.RoutingKey)
		return
	}
	for _, q := range qs {
		q.advance(now)
		it := e.item
		it.seq = s.nextSeq()
		it.first = it.seq
		q.add(&it, now)
		s.held++
	}
}
