package redisbackend

import (
	"context"
	_ "embed"
	"fmt"
	"strconv"
	"time"

	"github.com/lovage-go/lovage/internal/redisconn"
	"github.com/redis/rueidis"
)

//go:embed once.lua
var onceLua string

//go:embed losses.lua
var lossesLua string

var (
	onceScript = rueidis.NewLuaScript(onceLua)
	lossScript = rueidis.NewLuaScript(lossesLua)
)

// ClaimOnce takes an id for an owner until the lease ends; its owner may take it
// again. What is done is nobody's.
func (b *Backend) ClaimOnce(ctx context.Context, id, owner string, lease time.Duration) (bool, error) {
	ok, err := b.once(ctx, id, owner, lease, "")
	if err != nil {
		return false, fmt.Errorf("claim %s: %w", id, err)
	}
	return ok, nil
}

// DoneOnce marks an id as done for keep.
func (b *Backend) DoneOnce(ctx context.Context, id, owner string, keep time.Duration) error {
	if _, err := b.once(ctx, id, owner, keep, "1"); err != nil {
		return fmt.Errorf("mark %s as done: %w", id, err)
	}
	return nil
}

func (b *Backend) once(ctx context.Context, id, owner string, keep time.Duration, done string) (bool, error) {
	if err := b.alive(); err != nil {
		return false, err
	}
	limited, cancel := b.rdb.Deadline(ctx)
	defer cancel()
	ms := redisconn.Milliseconds(max(keep, time.Millisecond))
	n, err := onceScript.Exec(limited, b.rdb, []string{b.prefix + "lovage.once." + id}, []string{owner, ms, done}).AsInt64()
	return n == 1, fault(ctx, err)
}

// CountLoss counts lost workers by task id; each count keeps them for keep.
func (b *Backend) CountLoss(ctx context.Context, taskID string, known int, keep time.Duration) (int, error) {
	if err := b.alive(); err != nil {
		return 0, err
	}
	limited, cancel := b.rdb.Deadline(ctx)
	defer cancel()
	ms := redisconn.Milliseconds(max(keep, time.Millisecond))
	n, err := lossScript.Exec(limited, b.rdb, []string{b.losses(taskID)}, []string{strconv.Itoa(known), ms}).AsInt64()
	if err != nil {
		return 0, fmt.Errorf("count a loss of %s: %w", taskID, fault(ctx, err))
	}
	return int(n), nil
}

// Losses is how many lost workers were counted for a task.
func (b *Backend) Losses(ctx context.Context, taskID string) (int, error) {
	if err := b.alive(); err != nil {
		return 0, err
	}
	limited, cancel := b.rdb.Deadline(ctx)
	defer cancel()
	n, err := b.rdb.Do(limited, b.rdb.B().Get().Key(b.losses(taskID)).Build()).AsInt64()
	if err != nil && !rueidis.IsRedisNil(err) {
		return 0, fmt.Errorf("read the losses of %s: %w", taskID, fault(ctx, err))
	}
	return int(n), nil
}

// ForgetLosses drops the count of a task.
func (b *Backend) ForgetLosses(ctx context.Context, taskID string) error {
	if err := b.alive(); err != nil {
		return err
	}
	limited, cancel := b.rdb.Deadline(ctx)
	defer cancel()
	if err := b.rdb.Do(limited, b.rdb.B().Del().Key(b.losses(taskID)).Build()).Error(); err != nil {
		return fmt.Errorf("forget the losses of %s: %w", taskID, fault(ctx, err))
	}
	return nil
}

func (b *Backend) losses(taskID string) string { return b.prefix + "lovage.losses." + taskID }
