package redisbroker_test

import (
	"context"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/redis/rueidis"

	"github.com/lovage-go/lovage/broker"
	"github.com/lovage-go/lovage/internal/testenv"
	"github.com/lovage-go/lovage/protocol"
)

// BenchmarkServer is what the scripts cost the server, in CPU time a task: claims
// of 200, and finishes of 200 with a result each.
func BenchmarkServer(b *testing.B) {
	server := testenv.PrivateRedis(b)
	c := open(b, server.URL(0), nil)
	defer c.Close()
	rdb, err := rueidis.NewClient(rueidis.ClientOption{InitAddress: []string{server.Addr}, ForceSingleClient: true, DisableCache: true})
	if err != nil {
		b.Fatal(err)
	}
	defer rdb.Close()
	ctx := b.Context()
	fill(b, c, b.N)
	opened, err := c.Consume(ctx, broker.ConsumeConfig{Worker: "bench", Queues: []broker.Queue{broker.Named("bench")}})
	if err != nil {
		b.Fatal(err)
	}
	cs := opened.(broker.AtomicFinisher)
	var claims, finishes, done time.Duration
	for n := 0; n < b.N; {
		done = serverCPU(b, rdb)
		ds, err := opened.Claim(ctx, min(200, b.N-n))
		if err != nil {
			b.Fatal(err)
		}
		claims += serverCPU(b, rdb) - done
		fins := make([]broker.Finish, len(ds))
		for i := range ds {
			h, err := protocol.ParseHeaders(ds[i].Headers)
			if err != nil {
				b.Fatal(err)
			}
			fins[i] = broker.Finish{
				Store:  []*protocol.Record{{TaskID: h.ID, State: protocol.Success, Meta: meta(h.ID), Expires: 24 * time.Hour}},
				Settle: broker.Settlement{Delivery: &ds[i]},
			}
		}
		done = serverCPU(b, rdb)
		if err := cs.FinishAll(ctx, fins...); err != nil {
			b.Fatal(err)
		}
		finishes += serverCPU(b, rdb) - done
		n += len(ds)
	}
	b.ReportMetric(float64(claims.Nanoseconds())/float64(b.N)/1e3, "claim-us")
	b.ReportMetric(float64(finishes.Nanoseconds())/float64(b.N)/1e3, "finish-us")
}

// serverCPU is the CPU time that the server has used.
func serverCPU(b *testing.B, rdb rueidis.Client) (d time.Duration) {
	b.Helper()
	info, err := rdb.Do(context.Background(), rdb.B().Info().Section("cpu").Build()).ToString()
	if err != nil {
		b.Fatal(err)
	}
	for line := range strings.Lines(info) {
		for _, name := range []string{"used_cpu_sys_main_thread:", "used_cpu_user_main_thread:"} {
			if v, ok := strings.CutPrefix(line, name); ok {
				s, err := strconv.ParseFloat(strings.TrimSpace(v), 64)
				if err != nil {
					b.Fatal(err)
				}
				d += time.Duration(s * float64(time.Second))
			}
		}
	}
	return d
}
