package redisbroker

import (
	"context"
	"slices"

	"github.com/redis/rueidis"
)

// shard is what one script may touch: on a server all queues, in a cluster,
// where a script is confined to a slot, one queue with everything of its own.
type shard struct {
	home                                      string // begins all its keys but the lists
	all                                       []string
	unacked, index, workers, paused           string
	dead, deadIndex, deadID, parkedID, spread string
}

func newShard(k *keys, home string) *shard {
	return &shard{
		home: home, unacked: home + k.unacked, index: home + k.index,
		workers: home + "lovage.workers", paused: home + "lovage.paused", parkedID: home + "lovage.parked.id",
		dead: home + "lovage.dead", deadIndex: home + "lovage.dead.index", deadID: home + "lovage.dead.id", spread: flag(k.spread),
	}
}

// shard is where a queue is.
func (k *keys) shard(queue string) *shard {
	if k.whole != nil {
		return k.whole
	}
	s := newShard(k, k.prefix+"{"+queue+"}.")
	s.all = append([]string{s.unacked, s.index, s.workers, s.paused, s.parkedID, s.dead, s.deadIndex, s.deadID,
		s.deadOf(queue), s.parked(queue), s.parkedRaw(queue), s.consumers(queue)}, k.lists(queue)...)
	return s
}

func (s *shard) parked(queue string) string    { return s.home + "lovage.parked." + queue }
func (s *shard) parkedRaw(queue string) string { return s.parked(queue) + ".raw" }
func (s *shard) consumers(queue string) string { return s.home + "lovage.consumers." + queue }
func (s *shard) deadOf(queue string) string    { return s.deadIndex + "." + queue }

// portion is some queues of one shard.
type portion struct {
	*shard
	queues []string
}

// portions sorts queues by their shards.
func (k *keys) portions(queues []string) []portion {
	if k.whole != nil {
		return []portion{{k.whole, queues}}
	}
	out := make([]portion, len(queues))
	for i, q := range queues {
		out[i] = portion{k.shard(q), []string{q}}
	}
	return out
}

// everyQueue lists the queues that a Go program has declared or published to.
func (c *Conn) everyQueue(ctx context.Context) ([]string, error) {
	names, err := c.rdb.Do(ctx, c.rdb.B().Smembers().Key(c.keys.queues).Build()).AsStrSlice()
	slices.Sort(names)
	return names, fault(ctx, err)
}

// shards are all there are.
func (c *Conn) shards(ctx context.Context) ([]portion, error) {
	if c.keys.whole != nil {
		return []portion{{c.keys.whole, nil}}, nil
	}
	names, err := c.everyQueue(ctx)
	return c.keys.portions(names), err
}

// exec runs a script on a shard. In a cluster all the shard's keys are declared,
// so that a node that has given some of them away refuses, and does not take
// them for empty.
func (c *Conn) exec(ctx context.Context, script *rueidis.Lua, s *shard, args []string) rueidis.RedisResult {
	return script.Exec(ctx, c.rdb, s.all, args)
}
