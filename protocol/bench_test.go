package protocol_test

import (
	"testing"

	"github.com/lovage-go/lovage/protocol"
)

const (
	benchHeaders = `{"lang": "py", "task": "demo.tasks.add", "id": "02275e37-c289-46c7-a5bc-e6e9a740712e", "shadow": null, "eta": null, "expires": null, "group": "d5980aa2-77c5-48a5-a227-30d03f25a49c", "group_index": 1, "retries": 0, "timelimit": [null, null], "root_id": "02275e37-c289-46c7-a5bc-e6e9a740712e", "parent_id": null, "argsrepr": "(1, 1)", "kwargsrepr": "{}", "origin": "gen26683@worker.example", "ignore_result": false, "replaced_task_nesting": 0, "stamped_headers": null, "stamps": {}}`
	benchBody    = `[[1, 1], {}, {"callbacks": null, "errbacks": null, "chain": null, "chord": null}]`
)

func BenchmarkParseHeaders(b *testing.B) {
	b.ReportAllocs()
	raw := []byte(benchHeaders)
	for b.Loop() {
		if _, err := protocol.ParseHeaders(raw); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkAppendHeaders(b *testing.B) {
	b.ReportAllocs()
	h, err := protocol.ParseHeaders([]byte(benchHeaders))
	if err != nil {
		b.Fatal(err)
	}
	buf := make([]byte, 0, 1024)
	for b.Loop() {
		buf = h.AppendJSON(buf[:0])
	}
}

func BenchmarkParseBody(b *testing.B) {
	b.ReportAllocs()
	raw := []byte(benchBody)
	for b.Loop() {
		if _, err := protocol.ParseBody(raw); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkAppendBody(b *testing.B) {
	b.ReportAllocs()
	body, err := protocol.ParseBody([]byte(benchBody))
	if err != nil {
		b.Fatal(err)
	}
	buf := make([]byte, 0, 1024)
	for b.Loop() {
		buf = body.AppendJSON(buf[:0])
	}
}
