package redisbroker

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/lovage-go/lovage/internal/pyjson"
	"github.com/lovage-go/lovage/internal/redisconn"
)

// keys are the names of everything in the database.
type keys struct {
	prefix   string
	sep      string
	steps    []int
	patterns bool   // fanout channels have the routing key in their name
	fanout   string // before the exchange in a channel's name

	unacked, index, workers, paused, queues, exchanges string
	dead, deadIndex, deadID                            string
}

func newKeys(o redisconn.Options) (keys, error) {
	steps, err := o.Ints("priority_steps", []int{0, 3, 6, 9})
	if err != nil {
		return keys{}, err
	}
	if !slices.IsSorted(steps) || len(steps) == 0 || steps[0] != 0 || len(steps) > 32 {
		return keys{}, fmt.Errorf("transport option priority_steps is %v: want at most 32 numbers that begin with 0 and rise, the same for all producers and workers", steps)
	}
	p := o.String("global_keyprefix", "")
	return keys{
		prefix: p, sep: o.String("sep", "\x06\x16"), steps: steps, patterns: o.Bool("fanout_patterns", true),
		unacked: p + o.String("unacked_key", "unacked"), index: p + o.String("unacked_index_key", "unacked_index"),
		workers: p + "lovage.workers", paused: p + "lovage.paused", queues: p + "lovage.queues", exchanges: p + "lovage.exchanges",
		dead: p + "lovage.dead", deadIndex: p + "lovage.dead.index", deadID: p + "lovage.dead.id",
	}, nil
}

// fanoutPrefix is kombu's "/{db}." unless the option says otherwise.
func fanoutPrefix(o redisconn.Options, db int) string {
	switch v := o["fanout_prefix"].(type) {
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
	if step == 0 {
		return queue
	}
	return queue + k.sep + strconv.Itoa(step)
}

// queueOf is the queue of a list's name.
func (k *keys) queueOf(list string) string {
	i := strings.LastIndex(list, k.sep)
	if i < 0 {
		return list
	}
	if n, err := strconv.Atoi(list[i+len(k.sep):]); err != nil || !slices.Contains(k.steps, n) {
		return list
	}
	return list[:i]
}

func (k *keys) lists(queue string) []string {
	out := make([]string, len(k.steps))
	for i, s := range k.steps {
		out[i] = k.prefix + k.stepList(queue, s)
	}
	return out
}

func (k *keys) binding(exchange string) string   { return k.prefix + "_kombu.binding." + exchange }
func (k *keys) fanoutSet(exchange string) string { return k.prefix + "lovage.fanout." + exchange }
func (k *keys) parked(queue string) string       { return k.prefix + "lovage.parked." + queue }
func (k *keys) parkedRaw(queue string) string    { return k.parked(queue) + ".raw" }
func (k *keys) consumers(queue string) string    { return k.prefix + "lovage.consumers." + queue }
func (k *keys) deadOf(queue string) string       { return k.deadIndex + "." + queue }

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
