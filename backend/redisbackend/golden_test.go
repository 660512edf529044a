package redisbackend_test

import (
	"testing"
	"time"

	"github.com/redis/rueidis"

	"github.com/lovage-go/lovage/backend"
	"github.com/lovage-go/lovage/internal/golden"
	"github.com/lovage-go/lovage/internal/redisconn"
	"github.com/lovage-go/lovage/internal/testenv"
	"github.com/lovage-go/lovage/protocol"
)

var recorded = []string{
	"../../protocol/testdata/golden/results/redis", "../../protocol/testdata/golden/results/redis_chord",
	"../../protocol/testdata/golden/v5.2/results/redis", "../../protocol/testdata/golden/v5.2/results/redis_chord",
}

// TestGoldenResults stores every result that Celery 5.6 and 5.2 stored, and sees
// it with a plain client where Celery looks, with its time to live, published on
// its channel; then it reads what Celery wrote.
func TestGoldenResults(t *testing.T) {
	t.Parallel()
	server := testenv.Redis(t)
	url := server.URL(server.DB(t))
	b := open(t, url, nil)
	defer b.Close()
	opt, _, err := redisconn.ParseURL(url, nil)
	if err != nil {
		t.Fatal(err)
	}
	opt.DisableCache = true
	rdb, err := rueidis.NewClient(opt)
	if err != nil {
		t.Fatal(err)
	}
	defer rdb.Close()
	ctx := t.Context()
	do := func(cmd rueidis.Completed) rueidis.RedisResult { return rdb.Do(ctx, cmd) }
	for _, dir := range recorded {
		results, files, err := golden.Results(dir)
		if err != nil {
			t.Fatal(err)
		}
		if want, err := golden.Count(dir); err != nil || files != want || files == 0 {
			t.Fatalf("%s: read %d files, want %d, %v", dir, files, want, err)
		}
		t.Logf("%s: %d files, %d results", dir, files, len(results))
		for _, r := range results {
			m, err := protocol.ParseResultMeta(r.Meta)
			if err != nil {
				t.Errorf("%s: %v", r.File, err)
				continue
			}
			key := "celery-task-meta-" + m.TaskID
			if err := b.Forget(ctx, m.TaskID); err != nil {
				t.Fatal(err)
			}
			w, err := b.Watch(ctx, m.TaskID)
			if err != nil {
				t.Fatal(err)
			}
			if err := b.Store(ctx, &backend.Record{TaskID: m.TaskID, State: m.Status, Meta: r.Meta, Expires: 24 * time.Hour}); err != nil {
				t.Fatal(err)
			}
			select {
			case <-w.Ring():
			case <-time.After(time.Minute):
				t.Errorf("%s: not published", r.File)
			}
			if err := w.Close(); err != nil {
				t.Error(err)
			}
			if got, err := do(rdb.B().Get().Key(key).Build()).ToString(); err != nil || got != string(r.Meta) {
				t.Errorf("%s: stored %q, %v", r.File, got, err)
			}
			if ttl, err := do(rdb.B().Ttl().Key(key).Build()).AsInt64(); err != nil || ttl < 86390 || ttl > 86400 {
				t.Errorf("%s: time to live %d, %v", r.File, ttl, err)
			}
			if err := do(rdb.B().Setex().Key(key).Seconds(60).Value(string(r.Meta)).Build()).Error(); err != nil {
				t.Fatal(err)
			}
			recs, err := b.Fetch(ctx, m.TaskID)
			if err != nil || string(recs[0].Meta) != string(r.Meta) || recs[0].State != m.Status {
				t.Errorf("%s: fetched %+v, %v", r.File, recs, err)
			}
			// Celery's own success stays.
			if err := b.Store(ctx, &backend.Record{TaskID: m.TaskID, State: protocol.Failure, Meta: []byte(`{"status": "FAILURE"}`), Expires: time.Hour}); err != nil {
				t.Fatal(err)
			}
			recs, err = b.Fetch(ctx, m.TaskID)
			if stays := string(recs[0].Meta) == string(r.Meta); err != nil || stays != (m.Status == protocol.Success) {
				t.Errorf("%s: a failure after %s: kept %v, %v", r.File, m.Status, stays, err)
			}
		}
	}
}
