package redisbroker

import (
	"context"
	"strconv"
	"strings"
	"time"

	"github.com/lovage-go/lovage/internal/jsontext"
	"github.com/lovage-go/lovage/internal/pyjson"
	"github.com/lovage-go/lovage/internal/redisconn"
	"github.com/redis/rueidis"
)

const (
	// sweepBatch is how many claims one sweep gives back.
	sweepBatch = 100
	// sweepLock is how long a sweep may take that nobody ends.
	sweepLock = 30 * time.Second
)

// sweep gives back what Python workers claimed and showed no sign of life for
// longer than the option visibility_timeout, as they do for one another, under
// the lock that they take for it: one sweep at a time. Without the option it is left to them: theirs may be longer than kombu's default.
func (c *Conn) sweep(ctx context.Context) error {
	sh := c.keys.whole
	if c.visibility <= 0 || sh == nil { // Python has no clusters
		return nil
	}
	mine := redisconn.Token()
	err := c.rdb.Do(ctx, c.rdb.B().Set().Key(c.keys.mutex).Value(mine).Nx().PxMilliseconds(sweepLock.Milliseconds()).Build()).Error()
	if rueidis.IsRedisNil(err) {
		return nil // somebody sweeps
	}
	if err != nil {
		return fault(ctx, err)
	}
	defer releaseScript.Exec(ctx, c.rdb, []string{c.keys.mutex}, []string{mine})
	fields, err := sweepScript.Exec(ctx, c.rdb, []string{sh.index},
		[]string{strconv.Itoa(int(c.visibility.Seconds())), itoa(sweepBatch)}).AsStrSlice()
	if err != nil || len(fields) == 0 {
		return fault(ctx, err)
	}
	records, err := c.rdb.Do(ctx, c.rdb.B().Hmget().Key(sh.unacked).Field(fields...).Build()).ToArray()
	if err != nil {
		return fault(ctx, err)
	}
	var changes []change
	for i, r := range records {
		if strings.HasPrefix(fields[i], "lv1:") {
			continue // those of Go consumers end with their leases
		}
		ch := change{field: fields[i]}
		if record, err := r.ToString(); err == nil {
			raw, exchange, key, ok := parseRecord(record)
			if !ok {
				continue
			}
			queues := []string{key}
			if exchange != "" {
				t, err := c.bound(ctx, exchange, key)
				if err != nil {
					return err
				}
				queues = t.queues
			}
			e, err := parseEnvelope(raw)
			if err != nil || len(queues) == 0 {
				continue
			}
			e.marks.redelivered = true
			priority := 0
			if e.props.Priority != nil {
				priority = *e.props.Priority
			}
			for _, q := range queues {
				ch.op("R", c.keys.list(c.keys.queueOf(q), priority), mark(raw, e.marks))
			}
		}
		changes = append(changes, ch)
	}
	_, err = c.apply(ctx, sh, changes)
	return err
}

// parseRecord takes kombu's record apart: [envelope, exchange, routing key].
func parseRecord(record string) (raw, exchange, key string, ok bool) {
	n := 0
	err := jsontext.ScanArray([]byte(record), func(i int, elem []byte) error {
		n++
		switch {
		case i == 0:
			raw = string(elem)
		case len(elem) > 1 && elem[0] == '"':
			text := pyjson.Unquote(elem[1 : len(elem)-1])
			if i == 1 {
				exchange = text
			} else {
				key = text
			}
		}
		return nil
	})
	return raw, exchange, key, err == nil && n == 3 && key != ""
}
