package amqpbroker_test

import (
	"bytes"
	"encoding/base64"
	"os"
	"path/filepath"
	"testing"

	"github.com/lovage-go/lovage/broker/amqpbroker"
	"github.com/lovage-go/lovage/serializer"
)

// recorded are the messages of real Celery clients and workers.
const recorded = "../../protocol/testdata/golden/messages/amqp"

type recordedFile struct {
	Declares []map[string]any `json:"client_declares"`
	Messages []recordedMessage
}

type recordedMessage struct {
	Exchange   string
	RoutingKey string         `json:"routing_key"`
	Headers    map[string]any `json:"headers_typed"`
	Properties map[string]any
	Frame      string `json:"content_header_frame_b64"`
	Body       string `json:"body_b64"`
}

func recordedFiles(t testing.TB) map[string]recordedFile {
	t.Helper()
	names, err := filepath.Glob(recorded + "/*.json")
	if err != nil || len(names) < 100 {
		t.Fatalf("%d recorded files, %v", len(names), err)
	}
	files := map[string]recordedFile{}
	for _, name := range names {
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		var f recordedFile
		if err := serializer.JSON.Unmarshal(text, &f); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		files[filepath.Base(name)] = f
	}
	return files
}

// FuzzMendHeaders: whatever comes in, at most the type L becomes l.
func FuzzMendHeaders(f *testing.F) {
	for _, file := range recordedFiles(f) {
		for _, m := range file.Messages {
			if raw, err := base64.StdEncoding.DecodeString(m.Frame); err == nil {
				f.Add(raw)
			}
		}
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		got := bytes.Clone(raw)
		amqpbroker.MendHeaders(got)
		for i := range raw {
			if raw[i] != got[i] && (raw[i] != 'L' || got[i] != 'l') {
				t.Fatalf("byte %d of %x became %x", i, raw, got)
			}
		}
	})
}
