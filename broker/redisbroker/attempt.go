package redisbroker

import (
	"context"
	"errors"
	"strconv"
	"strings"
	"sync"

	"github.com/lovage-go/lovage/broker"
	"github.com/lovage-go/lovage/internal/redisconn"
	"github.com/redis/rueidis"
)

// attempt is one run of the apply script that ends claims. The script writes it
// down with which changes it did, so that who did not get the answer can find out
// later: a claim that is gone was ended by this very attempt, or it was lost.
type attempt struct {
	shard      *shard
	key, value string
}

// doubt is an attempt without an answer that may have ended a claim, by its
// change of that number.
type doubt struct {
	attempt
	change int
}

// ended reports whether what the script wrote down says that it did.
func (d doubt) ended(text string) bool {
	did, ours := strings.CutPrefix(text, d.value+":")
	return ours && d.change < len(did) && did[d.change] == '1'
}

// attempts gives attempts their keys. A key whose last attempt was answered is
// used again, so that a connection needs as many as it runs scripts at once;
// one in doubt keeps its key, for a day.
type attempts struct {
	mu   sync.Mutex
	name string
	keys int
	last uint64
	free map[string][]string // by the home of the shard
}

// next is a new attempt on a shard, where its key is, too.
func (a *attempts) next(sh *shard) attempt {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.last++
	at := attempt{shard: sh, value: strconv.FormatUint(a.last, 10)}
	if free := a.free[sh.home]; len(free) > 0 {
		at.key, a.free[sh.home] = free[len(free)-1], free[:len(free)-1]
		return at
	}
	if a.free == nil {
		a.name, a.free = redisconn.Token(), map[string][]string{}
	}
	a.keys++
	at.key = sh.home + "lovage.attempt." + a.name + "." + strconv.Itoa(a.keys)
	return at
}

func (a *attempts) answered(at attempt) {
	if at.key == "" {
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.free[at.shard.home] = append(a.free[at.shard.home], at.key)
}

// forget deletes the keys that nobody will ask for.
func (a *attempts) forget(ctx context.Context, c *Conn) error {
	a.mu.Lock()
	var dels rueidis.Commands
	for _, keys := range a.free {
		for _, key := range keys {
			dels = append(dels, c.rdb.B().Del().Key(key).Build())
		}
	}
	clear(a.free)
	a.mu.Unlock()
	for _, r := range c.rdb.DoMulti(ctx, dels...) {
		if err := r.Error(); err != nil {
			return fault(ctx, err)
		}
	}
	return nil
}

// failed notes which claims an attempt without an answer may have ended.
func (a *attempts) failed(at attempt, changes []change, err error) {
	if at.key == "" {
		return
	}
	if redisconn.Answered(err) {
		a.answered(at)
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	for i, ch := range changes {
		if ch.claim != nil {
			ch.claim.doubts = append(ch.claim.doubts, doubt{at, i})
		}
	}
}

// settleDoubts clears the error of the claims that are gone because an earlier
// attempt ended them. If that cannot be found out now they are to be tried again.
func (a *attempts) settleDoubts(ctx context.Context, c *Conn, claims []*claim, errs []error) {
	known := map[string]string{} // what the server has, by key
	var keys []string
	doubted := func(i int) (list []doubt) {
		if claims[i] == nil || !errors.Is(errs[i], broker.ErrLeaseLost) {
			return nil
		}
		a.mu.Lock()
		defer a.mu.Unlock()
		return claims[i].doubts
	}
	for i := range claims {
		for _, at := range doubted(i) {
			if _, listed := known[at.key]; !listed {
				known[at.key] = ""
				keys = append(keys, at.key)
			}
		}
	}
	if len(keys) == 0 {
		return
	}
	limited, cancel := c.rdb.Deadline(ctx)
	defer cancel()
	var err error
	gets := make(rueidis.Commands, len(keys))
	for i, key := range keys {
		gets[i] = c.rdb.B().Get().Key(key).Build()
	}
	for i, r := range c.rdb.DoMulti(limited, gets...) {
		value, e := r.ToString()
		if e != nil && !rueidis.IsRedisNil(e) {
			err = e
		}
		known[keys[i]] = value
	}
	for i := range claims {
		for _, at := range doubted(i) {
			switch {
			case err != nil:
				errs[i] = fault(ctx, err)
			case at.ended(known[at.key]):
				errs[i] = nil // and the next one is told that the claim has ended
				a.clear(claims[i])
			}
		}
	}
}

func (a *attempts) clear(cl *claim) {
	a.mu.Lock()
	defer a.mu.Unlock()
	cl.doubts = nil
}
