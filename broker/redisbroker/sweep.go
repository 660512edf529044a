package redisbroker

import (
	"context"
	"strconv"

	"github.com/lovage-go/lovage/internal/jsontext"
	"github.com/lovage-go/lovage/internal/pyjson"
)

// sweepBatch is how many claims one sweep gives back.
const sweepBatch = 100

// sweep gives back what Python workers claimed and showed no sign of life for
// longer than the option visibility_timeout, as they do for one another. Without
// the option it is left to them: theirs may be longer than kombu's default.
//
// kombu sweeps under a lock that outlives a worker which is killed meanwhile by
// five minutes. Here the script alone decides, claim by claim, who gives it back.
func (c *Conn) sweep(ctx context.Context) error {
	sh := c.keys.whole
	if c.visibility <= 0 || sh == nil { // Python has no clusters
		return nil
	}
	stale, err := sweepScript.Exec(ctx, c.rdb, []string{sh.index},
		[]string{strconv.Itoa(int(c.visibility.Seconds())), itoa(sweepBatch)}).AsStrSlice()
	if err != nil || len(stale) == 0 {
		return fault(ctx, err)
	}
	var tags []string
	for i := 0; i < len(stale); i += 2 {
		tags = append(tags, stale[i])
	}
	records, err := c.rdb.Do(ctx, c.rdb.B().Hmget().Key(sh.unacked).Field(tags...).Build()).ToArray()
	if err != nil {
		return fault(ctx, err)
	}
	args := []string{c.keys.prefix}
	for i, r := range records {
		record, err := r.ToString()
		if err != nil { // it has just been acknowledged, or its worker died in the middle of that
			args = append(args, tags[i], stale[2*i+1], "0")
			continue
		}
		back, ok, err := c.restored(ctx, record)
		if err != nil {
			return err
		}
		if ok {
			args = append(append(args, tags[i], stale[2*i+1], itoa(len(back)/2)), back...)
		}
	}
	return fault(ctx, restoreScript.Exec(ctx, c.rdb, []string{sh.unacked, sh.index}, args).Error())
}

// restored is what a record of kombu's is given back as: lists and messages in
// turn. It is not ok if it cannot be read, or leads nowhere.
func (c *Conn) restored(ctx context.Context, record string) (back []string, ok bool, err error) {
	raw, exchange, key, ok := parseRecord(record)
	if !ok {
		return nil, false, nil
	}
	queues := []string{key}
	if exchange != "" {
		t, err := c.bound(ctx, exchange, key)
		if err != nil {
			return nil, false, err
		}
		queues = t.queues
	}
	e, err := parseEnvelope(raw)
	if err != nil {
		return nil, false, nil
	}
	e.marks.redelivered = true
	priority := 0
	if e.props.Priority != nil {
		priority = *e.props.Priority
	}
	for _, q := range queues {
		back = append(back, c.keys.list(c.keys.queueOf(q), priority), mark(raw, e.marks))
	}
	return back, len(back) > 0, nil
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
