package redisconn

import (
	"context"

	"github.com/redis/rueidis"
)

// The client library sends a command that only reads once more when its
// connection is lost, and takes back the memory of one that was answered. The
// writer of the lost connection may still be reading it then. So what may be
// sent twice is never taken back.

// Do implements rueidis.Client.
func (c *Client) Do(ctx context.Context, cmd rueidis.Completed) rueidis.RedisResult {
	return c.Client.Do(ctx, kept(cmd))
}

// DoMulti implements rueidis.Client.
func (c *Client) DoMulti(ctx context.Context, cmds ...rueidis.Completed) []rueidis.RedisResult {
	for i, cmd := range cmds {
		cmds[i] = kept(cmd)
	}
	return c.Client.DoMulti(ctx, cmds...)
}

func kept(cmd rueidis.Completed) rueidis.Completed {
	if cmd.IsRetryable() {
		return cmd.Pin()
	}
	return cmd
}
