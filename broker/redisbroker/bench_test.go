package redisbroker_test

import (
	"context"
	"fmt"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/redis/rueidis"

	"github.com/lovage-go/lovage/broker"
	"github.com/lovage-go/lovage/broker/redisbroker"
	"github.com/lovage-go/lovage/internal/testenv"
	"github.com/lovage-go/lovage/protocol"
)

func task(queue, id string) *broker.Message {
	zero := 0
	return &broker.Message{
		Headers: protocol.Headers{Lang: "go", Task: "demo.tasks.add", ID: id, RootID: id, ArgsRepr: "(2, 3)", KwargsRepr: "{}", Origin: "gen1@host.example"},
		Properties: protocol.Properties{ContentType: protocol.ContentJSON, ContentEncoding: protocol.EncodingUTF8, CorrelationID: id,
			ReplyTo: "7decb27f-c6f2-3f3b-9fc3-7b5322a6f2f0", DeliveryMode: 2, Priority: &zero},
		Body:       []byte(`[[2, 3], {}, {"callbacks": null, "errbacks": null, "chain": null, "chord": null}]`),
		RoutingKey: queue, Queue: queue,
	}
}

func meta(id string) []byte {
	return []byte(`{"status": "SUCCESS", "result": 5, "traceback": null, "children": [], "date_done": "2026-11-21T10:00:00.000000+00:00", "task_id": "` + id + `"}`)
}

func taskID(i int) string { return fmt.Sprintf("4df3aeed-8130-4b61-88a7-%012d", i) }

// fill puts n tasks into a queue.
func fill(b *testing.B, c *redisbroker.Conn, n int) {
	b.Helper()
	for at := 0; at < n; at += 500 {
		msgs := make([]*broker.Message, min(500, n-at))
		for i := range msgs {
			msgs[i] = task("bench", taskID(at+i))
		}
		if err := c.Publish(b.Context(), msgs...); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkClaimFinish claims 50 tasks, decodes them, and finishes them with a
// result, by the driver and by a bare loop of the same client that does the
// same: script, decode, one pipeline of SETEX, PUBLISH, ZREM and HDEL.
func BenchmarkClaimFinish(b *testing.B) {
	for _, loops := range []int{1, 4} {
		b.Run(fmt.Sprintf("driver/loops=%d", loops), func(b *testing.B) {
			server := testenv.Redis(b)
			c := open(b, server.URL(server.DB(b)), nil)
			defer c.Close()
			fill(b, c, b.N)
			b.ResetTimer()
			share(b, loops, func(n int) error {
				cs, err := c.Consume(b.Context(), broker.ConsumeConfig{Worker: "bench", Queues: []broker.Queue{broker.Named("bench")}})
				if err != nil {
					return err
				}
				defer cs.Close()
				fins := make([]broker.Finish, 0, 50)
				for done := 0; done < n; done += len(fins) {
					ds, err := cs.Claim(b.Context(), min(50, n-done))
					if err != nil {
						return err
					}
					fins = fins[:0]
					for i := range ds {
						h, err := protocol.ParseHeaders(ds[i].Headers)
						if err != nil {
							return err
						}
						fins = append(fins, broker.Finish{
							Store:  []*protocol.Record{{TaskID: h.ID, State: protocol.Success, Meta: meta(h.ID), Expires: 24 * time.Hour}},
							Settle: broker.Settlement{Delivery: &ds[i]},
						})
					}
					if err := cs.(broker.AtomicFinisher).FinishAll(b.Context(), fins...); err != nil {
						return err
					}
				}
				return nil
			})
		})
		b.Run(fmt.Sprintf("bare/loops=%d", loops), func(b *testing.B) {
			server := testenv.Redis(b)
			db := server.DB(b)
			c := open(b, server.URL(db), nil)
			defer c.Close()
			fill(b, c, b.N)
			rdb, err := rueidis.NewClient(rueidis.ClientOption{InitAddress: []string{server.Addr}, SelectDB: db, ForceSingleClient: true, DisableCache: true})
			if err != nil {
				b.Fatal(err)
			}
			defer rdb.Close()
			b.ResetTimer()
			share(b, loops, func(n int) error { return bare(b.Context(), rdb, n) })
		})
	}
}

func share(b *testing.B, loops int, f func(n int) error) {
	b.Helper()
	var wg sync.WaitGroup
	errs := make([]error, loops)
	for i := range loops {
		n := b.N / loops
		if i == 0 {
			n += b.N % loops
		}
		wg.Go(func() { errs[i] = f(n) })
	}
	wg.Wait()
	for _, err := range errs {
		if err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "tasks/s")
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

func bare(ctx context.Context, rdb rueidis.Client, n int) error {
	for done, round := 0, 0; done < n; round++ {
		got, err := bareClaim.Exec(ctx, rdb, []string{"bench", "unacked", "unacked_index"},
			[]string{strconv.Itoa(min(50, n-done)), fmt.Sprintf("%p:%d:", &done, round), redisbroker.Tail("bench")}).AsStrSlice()
		if err != nil {
			return err
		}
		cmds := make(rueidis.Commands, 0, len(got)+2)
		zrem, hdel := rdb.B().Zrem().Key("unacked_index"), rdb.B().Hdel().Key("unacked")
		var fields []string
		for i := 0; i < len(got); i += 2 {
			headers, _, err := redisbroker.ReadEnvelope(got[i+1])
			if err != nil {
				return err
			}
			h, err := protocol.ParseHeaders(headers)
			if err != nil {
				return err
			}
			key, value := "celery-task-meta-"+h.ID, rueidis.BinaryString(meta(h.ID))
			cmds = append(cmds, rdb.B().Setex().Key(key).Seconds(86400).Value(value).Build(), rdb.B().Publish().Channel(key).Message(value).Build())
			fields = append(fields, got[i])
		}
		cmds = append(cmds, zrem.Member(fields...).Build(), hdel.Field(fields...).Build())
		for _, r := range rdb.DoMulti(ctx, cmds...) {
			if err := r.Error(); err != nil {
				return err
			}
		}
		done += len(fields)
	}
	return nil
}

// BenchmarkPublish is one caller, 32 callers, and batches, beside the client
// alone.
func BenchmarkPublish(b *testing.B) {
	server := testenv.Redis(b)
	c := open(b, server.URL(server.DB(b)), nil)
	defer c.Close()
	raw := c.WriteEnvelope(task("bench", taskID(1)))
	rdb, err := rueidis.NewClient(rueidis.ClientOption{InitAddress: []string{server.Addr}, SelectDB: server.DB(b), ForceSingleClient: true, DisableCache: true})
	if err != nil {
		b.Fatal(err)
	}
	defer rdb.Close()
	lpush := func(ctx context.Context) error {
		return rdb.Do(ctx, rdb.B().Lpush().Key("bench").Element(raw).Build()).Error()
	}
	publish := func(ctx context.Context) error { return c.Publish(ctx, task("bench", taskID(1))) }
	for _, callers := range []int{1, 32} {
		for _, way := range []struct {
			name string
			f    func(context.Context) error
		}{{"driver", publish}, {"bare", lpush}} {
			b.Run(fmt.Sprintf("%s/callers=%d", way.name, callers), func(b *testing.B) {
				share(b, callers, func(n int) error {
					for range n {
						ctx, cancel := context.WithTimeout(b.Context(), 5*time.Second)
						err := way.f(ctx)
						cancel()
						if err != nil {
							return err
						}
					}
					return nil
				})
			})
		}
	}
	b.Run("driver/batch=500", func(b *testing.B) {
		fill(b, c, b.N)
		b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "tasks/s")
	})
}

func BenchmarkEnvelope(b *testing.B) {
	server := testenv.Redis(b)
	c := open(b, server.URL(server.DB(b)), nil)
	defer c.Close()
	m := task("bench", taskID(1))
	raw := c.WriteEnvelope(m)
	b.Run("write", func(b *testing.B) {
		b.ReportAllocs()
		for range b.N {
			c.WriteEnvelope(m)
		}
	})
	b.Run("read", func(b *testing.B) {
		b.ReportAllocs()
		for range b.N {
			if _, _, err := redisbroker.ReadEnvelope(raw); err != nil {
				b.Fatal(err)
			}
		}
	})
}
