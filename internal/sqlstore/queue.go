package sqlstore

import (
	"fmt"

	"github.com/lovage-go/lovage/internal/topic"
)

// Kinds of exchanges, as AMQP names them.
const (
	KindDirect = "direct"
	KindTopic  = "topic"
	KindFanout = "fanout"
)

// Binding ties a queue to an exchange.
type Binding struct{ Exchange, Kind, Pattern string }

// Declare makes the queue and its bindings exist. An exchange keeps the kind
// that it was first bound with.
func (tx *Tx) Declare(queue string, bindings ...Binding) error {
	for _, b := range bindings {
		have := b.Kind
		err := tx.query(stBindingKind, 1, func(row []value) error {
			have = text(row[0])
			return nil
		}, b.Exchange)
		if err != nil {
			return err
		}
		if have != b.Kind {
			return fmt.Errorf("declare queue %q: exchange %q exists with type %s, not %s: use one type or another name", queue, b.Exchange, have, b.Kind)
		}
	}
	id, err := tx.queueID(queue, true)
	if err != nil {
		return err
	}
	for _, b := range bindings {
		if _, err := tx.exec(stBindingInsert, b.Exchange, b.Pattern, id, b.Kind); err != nil {
			return err
		}
	}
	return nil
}

// Bindings lists all bindings, as queue, exchange and pattern.
func (tx *Tx) Bindings(each func(queue, exchange, pattern string)) error {
	return tx.query(stBindingList, 3, func(row []value) error {
		each(text(row[0]), text(row[1]), text(row[2]))
		return nil
	})
}

// HasQueue reports whether a queue exists.
func (tx *Tx) HasQueue(name string) (bool, error) {
	id, err := tx.queueID(name, false)
	return id != 0, err
}

// queueID gives the id of a queue, 0 if there is none and none is to be made.
func (tx *Tx) queueID(name string, create bool) (int64, error) {
	if id := tx.queues[name]; id != 0 {
		return id, nil
	}
	id, ok, err := tx.number(stQueueID, name)
	if err != nil {
		return 0, err
	}
	if !ok {
		if !create {
			return 0, nil
		}
		if id, err = tx.next(); err != nil {
			return 0, err
		}
		if _, err = tx.exec(stQueueInsert, id, name); err != nil {
			return 0, err
		}
	}
	if tx.queues != nil && len(tx.queues) < maxQueuesKept {
		tx.queues[name] = id
	}
	return id, nil
}

// maxQueuesKept bounds the names that the committer remembers.
const maxQueuesKept = 10_000

// queueNames gives all queues by id.
func (tx *Tx) queueNames() (map[int64]string, error) {
	names := map[int64]string{}
	err := tx.query(stQueueNames, 2, func(row []value) error {
		names[integer(row[0])] = text(row[1])
		return nil
	})
	return names, err
}

// Pause stops or resumes claiming from a queue, in all processes.
func (tx *Tx) Pause(queue string, paused bool) error {
	id, err := tx.queueID(queue, true)
	if err != nil {
		return err
	}
	flag := int64(0)
	if paused {
		flag = 1
	} else {
		tx.bells |= BellWork
	}
	_, err = tx.exec(stQueuePause, flag, id)
	return err
}

// Paused lists the paused queues by name.
func (tx *Tx) Paused() (names []string, err error) {
	err = tx.query(stQueuePaused, 2, func(row []value) error {
		names = append(names, text(row[1]))
		return nil
	})
	return names, err
}

// Length counts the messages of a queue by their places.
type Length struct{ Ready, Claimed, Delayed, Dead int }

// Lengths counts the queues named, or all.
func (tx *Tx) Lengths(queues ...string) (map[string]Length, error) {
	names, err := tx.queueNames()
	if err != nil {
		return nil, err
	}
	wanted := make(map[string]bool, len(queues))
	out := make(map[string]Length, len(names))
	for _, q := range queues {
		wanted[q] = true
		out[q] = Length{}
	}
	claimed, dead := map[int64]int64{}, map[int64]int64{}
	for st, counts := range map[statement]map[int64]int64{stClaimCount: claimed, stDeadCount: dead} {
		err := tx.query(st, 2, func(row []value) error {
			counts[integer(row[0])] = integer(row[1])
			return nil
		})
		if err != nil {
			return nil, err
		}
	}
	for id, name := range names {
		if len(queues) > 0 && !wanted[name] {
			continue
		}
		ready, _, err := tx.number(stReadyCount, id)
		if err != nil {
			return nil, err
		}
		delayed, _, err := tx.number(stDelayedCount, id)
		if err != nil {
			return nil, err
		}
		out[name] = Length{Ready: int(ready), Delayed: int(delayed), Claimed: int(claimed[id]), Dead: int(dead[id])}
	}
	return out, nil
}

// PurgeSome deletes up to limit of a queue's waiting messages and returns how
// many there were; fewer than limit means that it is empty.
func (tx *Tx) PurgeSome(queue string, limit int) (int, error) {
	id, err := tx.queueID(queue, false)
	if err != nil || id == 0 {
		return 0, err
	}
	total := 0
	var last []value
	collect := func(row []value) error {
		total++
		last = append(last[:0], row...)
		return nil
	}
	if err := tx.query(stReadyBatch, 3, collect, id, int64(limit)); err != nil {
		return 0, err
	}
	if total > 0 {
		args := append([]value{id}, last...)
		if _, err := tx.exec(stReadyBatchMessages, args...); err != nil {
			return 0, err
		}
		if _, err := tx.exec(stReadyDelete, args...); err != nil {
			return 0, err
		}
	}
	if total >= limit {
		return total, nil
	}
	ready := total
	if err := tx.query(stDelayedBatch, 2, collect, id, int64(limit-ready)); err != nil {
		return 0, err
	}
	if total > ready {
		args := append([]value{id}, last...)
		if _, err := tx.exec(stDelayedBatchMessages, args...); err != nil {
			return 0, err
		}
		if _, err := tx.exec(stDelayedDelete, args...); err != nil {
			return 0, err
		}
	}
	return total, nil
}

// route gives the ids of the queues that take a message; none is no error
// unless it is mandatory. The anonymous exchange knows every queue by its name
// and makes what it does not know, as Celery's task_create_missing_queues has
// it; what no binding takes goes to the queue that the sender named.
func (tx *Tx) route(m *Message) ([]int64, error) {
	ids := tx.core.routed[:0]
	name := m.Queue
	if m.Exchange != "" {
		err := tx.query(stBindings, 3, func(row []value) error {
			if id := integer(row[2]); matches(text(row[0]), text(row[1]), m.RoutingKey) && !contains(ids, id) {
				ids = append(ids, id)
			}
			return nil
		}, m.Exchange)
		if tx.core.routed = ids; err != nil || len(ids) > 0 {
			return ids, err
		}
	} else if name == "" {
		name = m.RoutingKey
	}
	if name != "" {
		id, err := tx.queueID(name, !m.Mandatory)
		if err != nil {
			return nil, err
		}
		if id != 0 {
			ids = append(ids, id)
			tx.core.routed = ids
			return ids, nil
		}
	}
	if !m.Mandatory {
		return nil, nil
	}
	return nil, fmt.Errorf("%w: exchange %q, routing key %q, queue %q: declare one or bind it", ErrNoQueue, m.Exchange, m.RoutingKey, m.Queue)
}

func contains(ids []int64, id int64) bool {
	for _, have := range ids {
		if have == id {
			return true
		}
	}
	return false
}

func matches(kind, pattern, key string) bool {
	switch kind {
	case KindFanout:
		return true
	case KindTopic:
		return topic.Match(pattern, key)
	}
	return pattern == key
}
