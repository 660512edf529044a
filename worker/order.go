package worker

import (
	"cmp"
	"fmt"
	"slices"

	"github.com/lovage-go/lovage/broker"
)

// orderOption is kombu's option of the Redis transport, which every broker has
// here.
const orderOption = "queue_order_strategy"

// readOrder reads how a worker chooses among its queues: by turns, or always the
// first one that has messages, in the order in which they are given or by name.
func (w *Worker) readOrder() error {
	switch v := w.conf.BrokerTransportOptions[orderOption]; v {
	case nil, "", "round_robin":
	case "priority":
		w.strict = true
	case "sorted":
		w.strict, w.sorted = true, true
	default:
		return fmt.Errorf("broker_transport_options: %s is %v: use round_robin, priority (the order of the queues) or sorted (that of their names)", orderOption, v)
	}
	return nil
}

// ordered are the queues as the broker is to be asked for them.
func (w *Worker) ordered(queues []broker.Queue) []broker.Queue {
	if w.sorted {
		slices.SortStableFunc(queues, func(a, b broker.Queue) int { return cmp.Compare(a.Name, b.Name) })
	}
	return queues
}
