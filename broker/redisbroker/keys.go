package redisbroker

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/lovage-go/lovage/broker"
	"github.com/lovage-go/lovage/internal/pyjson"
	"github.com/lovage-go/lovage/internal/transport"
)

// keys are the names of everything in the database. What belongs to queues is
// named by their shard.
type keys struct {
	prefix   string
	sep      string
	steps    []int
	patterns bool   // fanout channels have the routing key in their name
	fanout   string // before the exchange in a channel's name
	spread   bool   // over the slots of a cluster: a shard for each queue

	unacked, index    string // names in a shard
	queues, exchanges string
	whole             *shard // of all queues; nil if spread
}

func newKeys(o *transport.Options, spread bool) (keys, error) {
	steps := o.Wholes("priority_steps", []int{0, 3, 6, 9})
	if !slices.IsSorted(steps) || len(steps) == 0 || steps[0] != 0 || len(steps) > 32 {
		return keys{}, fmt.Errorf("transport option priority_steps is %v: want at most 32 numbers that begin with 0 and rise, the same for all producers and workers", steps)
	}
	p := o.Text("global_keyprefix", "")
	k := keys{
		prefix: p, sep: o.Text("sep", "\x06\x16"), steps: steps, patterns: o.Flag("fanout_patterns", true), spread: spread,
		unacked: o.Text("unacked_key", "unacked"), index: o.Text("unacked_index_key", "unacked_index"),
		queues: p + "lovage.queues", exchanges: p + "lovage.exchanges",
	}
	if !spread {
		k.whole = newShard(&k, p)
	}
	return k, o.Err()
}

// fanoutPrefix is kombu's "/{db}." unless the option says otherwise.
func fanoutPrefix(o *transport.Options, db int) string {
	switch v := o.Value("fanout_prefix").(type) {
	case string:
		return strings.ReplaceAll(v, "{db}", strconv.Itoa(db))
	case bool:
		if !v {
			return ""
		}
	}
	return "/" + strconv.Itoa(db) + "."
}

// list is the name, without the prefix, of the list of a queue for a priority.
func (k *keys) list(queue string, priority int) string {
	step := k.steps[0]
	for _, s := range k.steps {
		if s <= priority {
			step = s
		}
	}
	return k.stepList(queue, step)
}

func (k *keys) stepList(queue string, step int) string {
	if k.spread {
		queue = "{" + queue + "}"
	}
	if step == 0 {
		return queue
	}
	return queue + k.sep + strconv.Itoa(step)
}

// queueOf is the queue of a list's name.
func (k *keys) queueOf(list string) string {
	if i := strings.LastIndex(list, k.sep); i >= 0 {
		if n, err := strconv.Atoi(list[i+len(k.sep):]); err == nil && slices.Contains(k.steps, n) {
			list = list[:i]
		}
	}
	if k.spread {
		return strings.TrimSuffix(strings.TrimPrefix(list, "{"), "}")
	}
	return list
}

func (k *keys) lists(queue string) []string {
	out := make([]string, len(k.steps))
	for i, s := range k.steps {
		out[i] = k.prefix + k.stepList(queue, s)
	}
	return out
}

// check refuses a queue whose name would leave its keys without a common slot.
func (k *keys) check(queue string) error {
	if k.spread && strings.HasPrefix(queue, "}") {
		return fmt.Errorf("queue %q: in a Redis Cluster the name of a queue cannot begin with }: %w", queue, broker.ErrUnsupported)
	}
	return nil
}

func (k *keys) binding(exchange string) string   { return k.prefix + "_kombu.binding." + exchange }
func (k *keys) fanoutSet(exchange string) string { return k.prefix + "lovage.fanout." + exchange }

// member is an entry of an exchange's bindings.
func (k *keys) member(routingKey, pattern, queue string) string {
	return routingKey + k.sep + pattern + k.sep + queue
}

// parts takes such an entry apart; rubbish is not ok.
func (k *keys) parts(member string) (routingKey, pattern, queue string, ok bool) {
	p := strings.Split(member, k.sep)
	if len(p) != 3 || p[2] == "" {
		return "", "", "", false
	}
	return p[0], p[1], p[2], true
}

// channel is where a fanout exchange's messages with a routing key are published.
func (k *keys) channel(exchange, key string) string {
	if key != "" && k.patterns {
		return k.fanout + exchange + "/" + key
	}
	return k.fanout + exchange
}

// tail ends the record of a claim. Its exchange is the anonymous one and its
// routing key the very list, so that kombu's sweep puts a message back to where
// it was, and not once more to all that its exchange is bound to.
func tail(list string) string {
	return string(append(pyjson.AppendString([]byte(`, "", `), list), ']'))
}
