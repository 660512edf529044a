package redisconn

import (
	"context"

	"github.com/redis/rueidis"
)

// Values reads string keys by one command, or in a cluster, where they are in
// many slots, by one for each.
func (c *Client) Values(ctx context.Context, keys []string) ([]rueidis.RedisMessage, error) {
	if !c.Cluster {
		return c.Do(ctx, c.B().Mget().Key(keys...).Build()).ToArray()
	}
	cmds := make(rueidis.Commands, len(keys))
	for i, k := range keys {
		cmds[i] = c.B().Get().Key(k).Build()
	}
	values := make([]rueidis.RedisMessage, len(keys))
	for i, r := range c.DoMulti(ctx, cmds...) {
		v, err := r.ToMessage()
		if err != nil && !rueidis.IsRedisNil(err) {
			return nil, err
		}
		values[i] = v
	}
	return values, nil
}

// Delete deletes keys, as Values reads them.
func (c *Client) Delete(ctx context.Context, keys []string) error {
	if !c.Cluster {
		return c.Do(ctx, c.B().Del().Key(keys...).Build()).Error()
	}
	cmds := make(rueidis.Commands, len(keys))
	for i, k := range keys {
		cmds[i] = c.B().Del().Key(k).Build()
	}
	for _, r := range c.DoMulti(ctx, cmds...) {
		if err := r.Error(); err != nil {
			return err
		}
	}
	return nil
}
