package redisbroker

import (
	"context"
	"sync/atomic"
	"time"

	"github.com/lovage-go/lovage/internal/redisconn"
	"github.com/redis/rueidis"
)

const (
	// safetyPoll is how often an idle consumer looks although it heard nothing.
	safetyPoll = time.Second
	// firstPoll and lastPoll are the pauses where the server cannot tell.
	firstPoll = 2 * time.Millisecond
	lastPoll  = 500 * time.Millisecond
)

// ear hears of changed keys on a connection of its own. Its methods are for the
// holder of the consumer's turn.
type ear struct {
	rdb   *redisconn.Client
	ded   rueidis.DedicatedClient
	ring  chan struct{} // one token, for all ears of a consumer
	armed atomic.Bool   // nothing has changed since the keys were looked at
	deaf  time.Time     // until then the server is taken to know no tracking
}

func newEar(rdb *redisconn.Client, ring chan struct{}) *ear { return &ear{rdb: rdb, ring: ring} }

// arm asks the server to tell of the next change of each key. Changes before it
// returns may go unheard, so the caller looks once more. It reports false where
// that is not to be had.
func (e *ear) arm(ctx context.Context, keys []string) bool {
	if time.Now().Before(e.deaf) {
		return false
	}
	ctx, cancel := e.rdb.Limit(ctx)
	defer cancel()
	var cmds rueidis.Commands
	if e.ded == nil {
		e.ded, _ = e.rdb.Dedicate()
		e.ded.SetOnInvalidations(func([]rueidis.RedisMessage) {
			e.armed.Store(false)
			select {
			case e.ring <- struct{}{}:
			default:
			}
		})
		cmds = append(cmds, e.rdb.B().ClientTracking().On().Build())
	}
	select {
	case <-e.ring:
	default:
	}
	e.armed.Store(true)
	cmds = append(cmds, e.rdb.B().Exists().Key(keys...).Build())
	for i, r := range e.ded.DoMulti(ctx, cmds...) {
		err := r.Error()
		if err == nil {
			continue
		}
		e.close()
		if i < len(cmds)-1 {
			e.deaf = time.Now().Add(time.Second)
			if _, refused := rueidis.IsRedisErr(err); refused {
				e.deaf = time.Now().Add(time.Minute)
			}
		}
		return false
	}
	return true
}

func (e *ear) close() {
	e.armed.Store(false)
	if e.ded != nil {
		e.ded.Close()
		e.ded = nil
	}
}
