package sqlbroker_test

import (
	"context"
	"database/sql/driver"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"modernc.org/sqlite"

	"github.com/lovage-go/lovage/broker"
	"github.com/lovage-go/lovage/protocol"
)

var meta = []byte(`{"status": "SUCCESS", "result": 5, "traceback": null, "children": [], "date_done": "2026-11-21T10:00:00.000000+00:00", "task_id": "0b9f2c5e-8f2f-4b6e-9d53-000000000000"}`)

// ids are made as uuid4: in no order.
func taskID(n int64) string {
	h := uint64(n) * 0x9e3779b97f4a7c15
	return fmt.Sprintf("%08x-%04x-4%03x-a%03x-%012x", uint32(h>>32), uint16(h>>16), uint16(h)&0xfff, uint16(h>>20)&0xfff, uint64(n))
}

// fill publishes n messages, 1000 a call.
func fill(b *testing.B, c broker.Conn, queue string, from, n int, at time.Time) {
	b.Helper()
	for i := 0; i < n; {
		batch := make([]*broker.Message, 0, 1000)
		for ; i < n && len(batch) < cap(batch); i++ {
			m := message(queue, taskID(int64(from+i)))
			m.NotBefore = at
			batch = append(batch, m)
		}
		if err := c.Publish(context.Background(), batch...); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkPublish(b *testing.B) {
	for _, how := range []struct {
		disk    string
		callers int
	}{{"full", 1}, {"full", 32}, {"normal", 1}, {"normal", 32}} {
		b.Run(fmt.Sprintf("%s/callers=%d", how.disk, how.callers), func(b *testing.B) {
			c := open(b, tempURL(b)+"?synchronous="+how.disk)
			var n atomic.Int64
			var wg sync.WaitGroup
			b.ResetTimer()
			for range how.callers {
				wg.Go(func() {
					for {
						i := n.Add(1)
						if i > int64(b.N) {
							return
						}
						if err := c.Publish(context.Background(), message("celery", taskID(i))); err != nil {
							b.Error(err)
							return
						}
					}
				})
			}
			wg.Wait()
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "msgs/s")
		})
	}
}

// BenchmarkWork claims, stores a result and acks, by batches in one loop.
func BenchmarkWork(b *testing.B) {
	for _, batch := range []int{1, 10, 100, 300} {
		b.Run(fmt.Sprintf("batch=%d", batch), func(b *testing.B) {
			c := open(b, tempURL(b))
			fill(b, c, "celery", 0, b.N, time.Time{})
			b.ResetTimer()
			work(b, c, b.N, batch)
		})
	}
}

func BenchmarkWorkBacklog(b *testing.B) {
	backlogs := []int{1_000, 10_000, 100_000}
	if os.Getenv("LOVAGE_BENCH_LARGE") != "" { // a file of 1 GB
		backlogs = append(backlogs, 1_000_000)
	}
	for _, backlog := range backlogs {
		b.Run(fmt.Sprintf("backlog=%d", backlog), func(b *testing.B) {
			c := open(b, tempURL(b))
			fill(b, c, "celery", 0, backlog+b.N, time.Time{})
			b.ResetTimer()
			work(b, c, b.N, 100)
		})
	}
}

func work(b *testing.B, c broker.Conn, n, batch int) {
	b.Helper()
	ctx := context.Background()
	cs := consume(b, c, "celery")
	for done := 0; done < n; {
		ds, err := cs.Claim(ctx, batch)
		if err != nil {
			b.Fatal(err)
		}
		fins := make([]broker.Finish, len(ds))
		for i := range ds {
			h, err := protocol.ParseHeaders(ds[i].Headers)
			if err != nil {
				b.Fatal(err)
			}
			fins[i] = broker.Finish{
				Store:  []*protocol.Record{{TaskID: h.ID, State: protocol.Success, Meta: meta, Expires: 24 * time.Hour}},
				Settle: broker.Settlement{Delivery: &ds[i]},
			}
		}
		if err := cs.(broker.AtomicFinisher).FinishAll(ctx, fins...); err != nil {
			b.Fatal(err)
		}
		done += len(ds)
	}
	b.StopTimer()
	b.ReportMetric(float64(n)/b.Elapsed().Seconds(), "tasks/s")
	if err := cs.Close(); err != nil {
		b.Fatal(err)
	}
}

// BenchmarkPool is a worker's way: one goroutine claims ahead, and each run
// finishes by a call of its own, of which up to 512 are under way; the committer
// brings them together.
func BenchmarkPool(b *testing.B) {
	c := open(b, tempURL(b))
	fill(b, c, "celery", 0, b.N, time.Time{})
	ctx := context.Background()
	cs := consume(b, c, "celery")
	fa := cs.(broker.AtomicFinisher)
	const unfinished, ahead = 512, 256
	jobs := make(chan *broker.Delivery, ahead)
	var wg sync.WaitGroup
	for range unfinished {
		wg.Go(func() {
			for d := range jobs {
				h, err := protocol.ParseHeaders(d.Headers)
				if err != nil {
					b.Error(err)
				}
				err = fa.FinishAll(ctx, broker.Finish{
					Store:  []*protocol.Record{{TaskID: h.ID, State: protocol.Success, Meta: meta, Expires: 24 * time.Hour}},
					Settle: broker.Settlement{Delivery: d},
				})
				if err != nil {
					b.Error(err)
				}
			}
		})
	}
	b.ResetTimer()
	for done := 0; done < b.N; {
		ds, err := cs.Claim(ctx, ahead)
		if err != nil {
			b.Fatal(err)
		}
		for i := range ds {
			jobs <- &ds[i]
		}
		done += len(ds)
	}
	close(jobs)
	wg.Wait()
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "tasks/s")
	if err := cs.Close(); err != nil {
		b.Fatal(err)
	}
}

// BenchmarkBareLoop is what the same driver gives to a loop with one plain table
// for messages and one for results: claim, store, ack, by batches.
func BenchmarkBareLoop(b *testing.B) {
	for _, batch := range []int{1, 10, 100, 300} {
		b.Run(fmt.Sprintf("publish/batch=%d", batch), func(b *testing.B) {
			l := newBareLoop(b)
			b.ResetTimer()
			l.publish(b.N, batch)
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "msgs/s")
		})
		b.Run(fmt.Sprintf("work/batch=%d", batch), func(b *testing.B) {
			l := newBareLoop(b)
			l.publish(b.N, 1000)
			b.ResetTimer()
			l.work(b.N, batch)
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "tasks/s")
		})
	}
}

type bareLoop struct {
	b     *testing.B
	c     driver.Conn
	stmts map[string]driver.Stmt
}

func newBareLoop(b *testing.B) *bareLoop {
	c, err := (&sqlite.Driver{}).Open("file:" + filepath.Join(b.TempDir(), "bare.db"))
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { c.Close() })
	l := &bareLoop{b: b, c: c, stmts: map[string]driver.Stmt{}}
	for _, s := range []string{
		"PRAGMA journal_mode=WAL", "PRAGMA synchronous=FULL", "PRAGMA cache_size=-8000",
		"CREATE TABLE m(id INTEGER PRIMARY KEY, queue TEXT, priority INTEGER, state INTEGER, headers BLOB, props BLOB, body BLOB)",
		"CREATE INDEX mi ON m(queue, state, priority, id)",
		"CREATE TABLE r(task_id TEXT PRIMARY KEY, state TEXT, meta BLOB, expires INTEGER)",
	} {
		l.exec(s)
	}
	return l
}

func (l *bareLoop) stmt(s string) driver.Stmt {
	st := l.stmts[s]
	if st == nil {
		var err error
		if st, err = l.c.Prepare(s); err != nil {
			l.b.Fatal(s, err)
		}
		l.stmts[s] = st
	}
	return st
}

func named(args []driver.Value) []driver.NamedValue {
	out := make([]driver.NamedValue, len(args))
	for i, a := range args {
		out[i] = driver.NamedValue{Ordinal: i + 1, Value: a}
	}
	return out
}

func (l *bareLoop) exec(s string, args ...driver.Value) {
	if _, err := l.stmt(s).(driver.StmtExecContext).ExecContext(context.Background(), named(args)); err != nil {
		l.b.Fatal(s, err)
	}
}

func (l *bareLoop) publish(n, batch int) {
	for i := 0; i < n; {
		l.exec("BEGIN IMMEDIATE")
		for j := 0; j < batch && i < n; j++ {
			m := message("celery", taskID(int64(i)))
			l.exec("INSERT INTO m(queue, priority, state, headers, props, body) VALUES (?, 0, 0, ?, ?, ?)", "celery", m.Headers.AppendJSON(nil), []byte(m.Headers.ID), m.Body)
			i++
		}
		l.exec("COMMIT")
	}
}

func (l *bareLoop) work(n, batch int) {
	type claimed struct {
		id   int64
		task string
	}
	for done := 0; done < n; {
		l.exec("BEGIN IMMEDIATE")
		rows, err := l.stmt("UPDATE m SET state = 1 WHERE id IN (SELECT id FROM m WHERE queue = ? AND state = 0 ORDER BY priority, id LIMIT ?) RETURNING id, headers, props, body").(driver.StmtQueryContext).
			QueryContext(context.Background(), named([]driver.Value{"celery", int64(batch)}))
		if err != nil {
			l.b.Fatal(err)
		}
		var got []claimed
		for row := make([]driver.Value, 4); rows.Next(row) == nil; {
			h, err := protocol.ParseHeaders(row[1].([]byte))
			if err != nil {
				l.b.Fatal(err)
			}
			got = append(got, claimed{row[0].(int64), h.ID})
		}
		rows.Close()
		l.exec("COMMIT")
		l.exec("BEGIN IMMEDIATE")
		for _, m := range got {
			l.exec("INSERT OR REPLACE INTO r(task_id, state, meta, expires) VALUES (?, 'SUCCESS', ?, ?)", m.task, meta, int64(1))
			l.exec("DELETE FROM m WHERE id = ? AND state = 1", m.id)
		}
		l.exec("COMMIT")
		done += len(got)
	}
}
