package redisbroker_test

import (
	"bytes"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"strconv"
	"testing"

	"github.com/redis/rueidis"

	"github.com/lovage-go/lovage/broker"
	"github.com/lovage-go/lovage/broker/redisbroker"
	"github.com/lovage-go/lovage/internal/golden"
	"github.com/lovage-go/lovage/internal/testenv"
	"github.com/lovage-go/lovage/protocol"
	"github.com/lovage-go/lovage/serializer"
)

// recorded are the messages of real Celery clients and workers, as they were
// pushed.
var recorded = []string{"../../protocol/testdata/golden/messages/redis", "../../protocol/testdata/golden/v5.2/messages/redis"}

// rawMessages loads every message of a folder, exactly as it was sent.
func rawMessages(t *testing.T, dir string) (raws map[string]string) {
	t.Helper()
	raws = map[string]string{}
	files := 0
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || filepath.Ext(path) != ".json" {
			return err
		}
		files++
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		var f map[string]any
		if err := serializer.JSON.Unmarshal(text, &f); err != nil {
			return err
		}
		for i, m := range f["messages"].([]any) {
			raws[filepath.Base(path)+"#"+strconv.Itoa(i)] = m.(map[string]any)["raw"].(string)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	want, err := golden.Count(dir)
	if err != nil {
		t.Fatal(err)
	}
	if files != want || files == 0 {
		t.Fatalf("%s: read %d files, want the %d there are", dir, files, want)
	}
	t.Logf("%s: %d files, %d messages", dir, files, len(raws))
	return raws
}

func object(t *testing.T, raw string) map[string]any {
	t.Helper()
	var v map[string]any
	if err := serializer.JSON.Unmarshal([]byte(raw), &v); err != nil {
		t.Fatalf("%v in %.300s", err, raw)
	}
	return v
}

// TestGoldenMessages takes each message that Celery 5.6 and 5.2 sent through the
// driver on a real server, and writes it anew. What comes out must mean the same.
func TestGoldenMessages(t *testing.T) {
	t.Parallel()
	server := testenv.Redis(t)
	url := server.URL(server.DB(t))
	c := open(t, url, nil)
	defer c.Close()
	cs := consume(t, c, "q")
	stranger := client(t, url)
	for _, dir := range recorded {
		for name, raw := range rawMessages(t, dir) {
			headers, body, err := redisbroker.ReadEnvelope(raw)
			if err != nil {
				t.Errorf("%s: %v", name, err)
				continue
			}
			want := object(t, raw)
			if got := object(t, string(headers)); !reflect.DeepEqual(got, want["headers"]) {
				t.Errorf("%s: headers\n got %v\nwant %v", name, got, want["headers"])
			}
			m := rewritten(t, stranger, cs, raw, body)
			if m == nil {
				continue
			}
			got := object(t, c.WriteEnvelope(m))
			for _, o := range []map[string]any{got, want} {
				p := o["properties"].(map[string]any)
				delete(p, "delivery_tag")          // new for each sending
				delete(p, "replaced_task_nesting") // 5.2 leaves this number there by mistake
				if h := o["headers"].(map[string]any); h["task"] != nil {
					if dir == recorded[1] || h["replaced_task_nesting"] == nil { // 5.2 does not send these
						for _, k := range []string{"replaced_task_nesting", "stamped_headers", "stamps"} {
							delete(h, k)
						}
					}
				}
			}
			if !reflect.DeepEqual(got, want) {
				t.Errorf("%s:\n got %v\nwant %v", name, got, want)
			}
		}
	}
}

// rewritten sends a raw message through a queue and gives it as a new message.
func rewritten(t *testing.T, stranger rueidis.Client, cs broker.Consumer, raw string, body []byte) *broker.Message {
	t.Helper()
	if err := stranger.Do(t.Context(), stranger.B().Lpush().Key("q").Element(raw).Build()).Error(); err != nil {
		t.Fatal(err)
	}
	ds, err := cs.Claim(limit(t), 1)
	if err != nil || len(ds) != 1 {
		t.Fatalf("claimed %d, %v", len(ds), err)
	}
	d := ds[0]
	if d.Malformed != nil || !bytes.Equal(d.Body, body) {
		t.Errorf("delivered as malformed %v, body %q, want %q", d.Malformed, d.Body, body)
		return nil
	}
	h, err := protocol.ParseHeaders(d.Headers)
	if err != nil {
		t.Error(err)
		return nil
	}
	if err := cs.Settle(t.Context(), broker.Settlement{Delivery: &d}); err != nil {
		t.Error(err)
	}
	return &broker.Message{Headers: h, Properties: d.Properties, Body: d.Body, Exchange: d.Exchange, RoutingKey: d.RoutingKey}
}

// TestMarksLeaveTheRest marks each recorded message and takes the marks away
// again: not a byte may have changed.
func TestMarksLeaveTheRest(t *testing.T) {
	t.Parallel()
	for _, dir := range recorded {
		for name, raw := range rawMessages(t, dir) {
			marked := redisbroker.Mark(raw, true, true, 12)
			if redisbroker.Mark(marked, false, false, 0) != raw {
				t.Errorf("%s: marks leave traces in\n%s", name, marked)
			}
			o := object(t, marked)
			info := o["properties"].(map[string]any)["delivery_info"].(map[string]any)
			if o["headers"].(map[string]any)["redelivered"] != true || info["redelivered"] != true {
				t.Errorf("%s: not marked as kombu does: %s", name, marked)
			}
		}
	}
}
