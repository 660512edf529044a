package redisbackend

import (
	"context"
	_ "embed"
	"fmt"
	"strconv"
	"time"

	"github.com/lovage-go/lovage/backend"
	"github.com/lovage-go/lovage/internal/redisconn"
	"github.com/redis/rueidis"
)

//go:embed chord.lua
var chordLua string

// endLua marks the end of a chord, once, and deletes what it kept.
// KEYS: end, parts, added, size. ARGV: ms to live.
const endLua = `
if not redis.call('SET', KEYS[1], '1', 'NX', 'PX', ARGV[1]) then return 0 end
redis.call('DEL', KEYS[2], KEYS[3], KEYS[4])
return 1
`

var (
	chordScript = rueidis.NewLuaScript(chordLua)
	endScript   = rueidis.NewLuaScript(endLua)
)

// StartChord sets the size under Celery's key.
func (b *Backend) StartChord(ctx context.Context, group string, size int, keep time.Duration) error {
	if err := b.alive(); err != nil {
		return err
	}
	limited, cancel := b.rdb.Deadline(ctx)
	defer cancel()
	set := b.rdb.B().Set().Key(b.rdb.Chord(b.prefix, group).Size).Value(strconv.Itoa(size))
	var cmd rueidis.Completed
	if keep > 0 {
		cmd = set.PxMilliseconds(max(keep.Milliseconds(), 1)).Build()
	} else {
		cmd = set.Build()
	}
	if err := b.rdb.Do(limited, cmd).Error(); err != nil {
		return fmt.Errorf("start the chord %s: %w", group, fault(ctx, err))
	}
	return nil
}

// CountPart keeps a part under Celery's keys, ordered by its index, or with
// result_chord_ordered=false by time.
func (b *Backend) CountPart(ctx context.Context, p *backend.ChordPart) (n backend.ChordCount, err error) {
	if err := b.alive(); err != nil {
		return n, err
	}
	score, again := "", "0"
	switch {
	case !b.ordered:
	case p.Index == nil:
		score = "+inf"
	default:
		score = strconv.Itoa(*p.Index)
	}
	if p.Again {
		again = "1"
	}
	args := []string{string(p.AppendJSON(nil)), string(p.AppendPrefix(nil)), score, redisconn.Milliseconds(p.Keep), again}
	limited, cancel := b.rdb.Deadline(ctx)
	defer cancel()
	out, err := chordScript.Exec(limited, b.rdb, b.rdb.Chord(b.prefix, p.Group).List(), args).AsIntSlice()
	if err == nil && len(out) != 3 {
		err = fmt.Errorf("the script gave %d values", len(out))
	}
	if err != nil {
		return n, fmt.Errorf("count task %s in the chord %s: %w", p.TaskID, p.Group, fault(ctx, err))
	}
	return backend.ChordCount{Parts: int(out[0]), Size: int(out[1]), Ended: out[2] == 1}, nil
}

// ChordParts returns the parts in order.
func (b *Backend) ChordParts(ctx context.Context, group string) ([][]byte, error) {
	if err := b.alive(); err != nil {
		return nil, err
	}
	limited, cancel := b.rdb.Deadline(ctx)
	defer cancel()
	key := b.rdb.Chord(b.prefix, group).Parts
	cmd := b.rdb.B().Zrange().Key(key).Min("0").Max("-1").Build()
	if !b.ordered {
		cmd = b.rdb.B().Lrange().Key(key).Start(0).Stop(-1).Build()
	}
	list, err := b.rdb.Do(limited, cmd).AsStrSlice()
	if err != nil {
		return nil, fmt.Errorf("read the parts of the chord %s: %w", group, fault(ctx, err))
	}
	parts := make([][]byte, len(list))
	for i, p := range list {
		parts[i] = []byte(p)
	}
	return parts, nil
}

// EndChord marks the end.
func (b *Backend) EndChord(ctx context.Context, group string, keep time.Duration) (bool, error) {
	if err := b.alive(); err != nil {
		return false, err
	}
	limited, cancel := b.rdb.Deadline(ctx)
	defer cancel()
	ms := redisconn.Milliseconds(redisconn.EndFor(keep))
	n, err := endScript.Exec(limited, b.rdb, b.rdb.Chord(b.prefix, group).List(), []string{ms}).AsInt64()
	if err != nil {
		return false, fmt.Errorf("end the chord %s: %w", group, fault(ctx, err))
	}
	return n == 1, nil
}
