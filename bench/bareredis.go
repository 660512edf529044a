package main

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"os"
	"strconv"
	"time"

	"github.com/goccy/go-json"
	"github.com/google/uuid"
	"github.com/redis/rueidis"
)

// barePeer is the limit: loops over the same client library that claim with a
// script into kombu's records, decode with the quickest codec that we know, add,
// write and publish the result, and acknowledge, one pipeline for a batch. There
// are no leases, no fences, no limits, no wake-ups and no user's types.
type barePeer struct {
	title        string
	batch, loops int
}

func (p barePeer) name() string { return p.title }

func (barePeer) server(b *bed) *server { return b.redis }

func (p barePeer) worker(ctx context.Context, b *bed, results bool) (*process, error) {
	return startSelf(ctx, "bare", b.redis.addr, results, strconv.Itoa(p.batch), strconv.Itoa(p.loops))
}

// open has Lovage's client fill the queue.
func (p barePeer) open(ctx context.Context, b *bed, results bool) (queue, error) {
	q, err := lovagePeer{}.open(ctx, b, results)
	if err != nil {
		return nil, err
	}
	return &bareQueue{q.(*lovageQueue)}, nil
}

// bareQueue sends one envelope again and again: what the client library can do.
type bareQueue struct{ *lovageQueue }

func (q *bareQueue) envelope(ctx context.Context) (string, error) {
	if _, err := q.lovageQueue.enqueue(ctx, 1, 1); err != nil {
		return "", err
	}
	return q.rdb.Do(ctx, q.rdb.B().Rpop().Key(workList).Build()).ToString()
}

func (q *bareQueue) enqueue(ctx context.Context, n, callers int) (time.Duration, error) {
	raw, err := q.envelope(ctx)
	if err != nil {
		return 0, err
	}
	return share(ctx, n, callers, func(ctx context.Context) error {
		ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
		defer cancel()
		return q.rdb.Do(ctx, q.rdb.B().Lpush().Key(workList).Element(raw).Build()).Error()
	})
}

func (q *bareQueue) bulk(ctx context.Context, n int) (time.Duration, error) {
	raw, err := q.envelope(ctx)
	if err != nil {
		return 0, err
	}
	start := time.Now()
	for at := 0; at < n; at += 100 {
		cmds := make(rueidis.Commands, min(100, n-at))
		for i := range cmds {
			cmds[i] = q.rdb.B().Lpush().Key(workList).Element(raw).Build()
		}
		for _, r := range q.rdb.DoMulti(ctx, cmds...) {
			if err := r.Error(); err != nil {
				return 0, err
			}
		}
	}
	return time.Since(start), nil
}

var bareClaim = rueidis.NewLuaScript(`
local t = redis.call('TIME')
local score = t[1] .. '.' .. string.format('%06d', t[2])
local items = redis.call('RPOP', KEYS[1], ARGV[1])
if not items then return {} end
local h, z, out = {}, {}, {}
for i, raw in ipairs(items) do
  local f = ARGV[2] .. i
  h[2*i-1], h[2*i], z[2*i-1], z[2*i], out[2*i-1], out[2*i] = f, '[' .. raw .. ARGV[3], score, f, f, raw
end
redis.call('HSET', KEYS[2], unpack(h))
redis.call('ZADD', KEYS[3], unpack(z))
return out`)

// bareWorker runs the loops; args are batch and loops.
func bareWorker(ctx context.Context, addr string, results bool, args []string, ready func()) error {
	batch, err := strconv.Atoi(args[0])
	if err != nil {
		return err
	}
	loops, err := strconv.Atoi(args[1])
	if err != nil {
		return err
	}
	rdb, err := rueidis.NewClient(rueidis.ClientOption{InitAddress: []string{addr}, ForceSingleClient: true, DisableCache: true})
	if err != nil {
		return err
	}
	defer rdb.Close()
	ready()
	errs := make(chan error, loops)
	for i := range loops {
		go func() { errs <- bareLoop(ctx, rdb, i, batch, results) }()
	}
	for range loops {
		err = errors.Join(err, <-errs)
	}
	return err
}

func bareLoop(ctx context.Context, rdb rueidis.Client, loop, batch int, results bool) error {
	for round := 0; ctx.Err() == nil; round++ {
		got, err := bareClaim.Exec(ctx, rdb, []string{workList, "unacked", "unacked_index"},
			[]string{strconv.Itoa(batch), fmt.Sprintf("%d:%d:%d:", os.Getpid(), loop, round), `, "", "` + workList + `"]`}).AsStrSlice()
		switch {
		case ctx.Err() != nil:
			return nil
		case err != nil:
			return err
		case len(got) == 0:
			time.Sleep(200 * time.Microsecond)
			continue
		}
		if err := bareBatch(ctx, rdb, got, results); err != nil {
			return err
		}
	}
	return nil
}

func bareBatch(ctx context.Context, rdb rueidis.Client, got []string, results bool) error {
	cmds := make(rueidis.Commands, 0, len(got)+2)
	fields := make([]string, 0, len(got)/2)
	for i := 0; i < len(got); i += 2 {
		id, sum, err := bareDecode(got[i+1])
		if err != nil {
			return err
		}
		fields = append(fields, got[i])
		if !results {
			continue
		}
		key, value := "celery-task-meta-"+id, rueidis.BinaryString(bareResult(id, sum))
		cmds = append(cmds, rdb.B().Setex().Key(key).Seconds(86400).Value(value).Build(), rdb.B().Publish().Channel(key).Message(value).Build())
	}
	cmds = append(cmds, rdb.B().Zrem().Key("unacked_index").Member(fields...).Build(), rdb.B().Hdel().Key("unacked").Field(fields...).Build())
	for _, r := range rdb.DoMulti(context.WithoutCancel(ctx), cmds...) {
		if err := r.Error(); err != nil {
			return err
		}
	}
	return nil
}

func bareDecode(raw string) (id string, sum int, err error) {
	var e struct {
		Body    string `json:"body"`
		Headers struct {
			ID      string      `json:"id"`
			Task    string      `json:"task"`
			RootID  string      `json:"root_id"`
			ETA     *string     `json:"eta"`
			Expires *string     `json:"expires"`
			Retries int         `json:"retries"`
			Limits  [2]*float64 `json:"timelimit"`
		} `json:"headers"`
		Properties struct {
			BodyEncoding string `json:"body_encoding"`
			ReplyTo      string `json:"reply_to"`
		} `json:"properties"`
	}
	if err := json.Unmarshal([]byte(raw), &e); err != nil {
		return "", 0, err
	}
	body, err := base64.StdEncoding.DecodeString(e.Body)
	if err != nil {
		return "", 0, err
	}
	var parts [3]json.RawMessage
	if err := json.Unmarshal(body, &parts); err != nil {
		return "", 0, err
	}
	var args [2]int
	if err := json.Unmarshal(parts[0], &args); err != nil {
		return "", 0, err
	}
	if _, err := uuid.Parse(e.Headers.ID); err != nil {
		return "", 0, err
	}
	return e.Headers.ID, args[0] + args[1], nil
}

func bareResult(id string, sum int) []byte {
	b := make([]byte, 0, 220)
	b = append(b, `{"status": "SUCCESS", "result": `...)
	b = strconv.AppendInt(b, int64(sum), 10)
	b = append(b, `, "traceback": null, "children": [], "date_done": "`...)
	b = time.Now().UTC().AppendFormat(b, "2006-01-02T15:04:05.000000+00:00")
	return append(append(append(b, `", "task_id": "`...), id...), `"}`...)
}
