package protocol_test

import (
	"bytes"
	"context"
	"encoding/json"
	"os/exec"
	"testing"
	"time"

	"github.com/lovage-go/lovage/internal/golden"
	"github.com/lovage-go/lovage/protocol"
)

const judge = "../internal/tools/judge/judge.py"

type judgedMessage struct {
	Headers     json.RawMessage `json:"headers"`
	Body        []byte          `json:"body"`
	ContentType string          `json:"content_type"`
	Encoding    string          `json:"content_encoding"`
	Compression string          `json:"compression"`
}

// TestPythonJudges lets kombu and Celery load what was recorded and what we
// make of it, and compare field by field with types.
func TestPythonJudges(t *testing.T) {
	t.Parallel()
	if out, err := exec.Command(golden.Python, "-c", "import celery, kombu; print(celery.__version__, kombu.__version__)").CombinedOutput(); err != nil {
		t.Fatalf("%s has no Celery to judge with (%v: %s); run the tests by `make test`, which brings it along", golden.Python, err, out)
	} else {
		t.Logf("judged by celery and kombu %s", bytes.TrimSpace(out))
	}
	var cases []golden.Case
	for _, m := range loadMessages(t) {
		if m.JSON() && m.Compression != "application/zstd" { // the distribution's Python has no zstd
			cases = append(cases, golden.Case{File: m.File, Kind: "message", Original: recorded(m), Ours: rewritten(t, m)})
		}
	}
	for _, r := range loadResults(t) {
		m, err := protocol.ParseResultMeta(r.Meta)
		if err != nil {
			t.Fatalf("%s: %v", r.File, err)
		}
		cases = append(cases, golden.Case{File: r.File, Kind: "result", Original: string(r.Meta), Ours: string(m.AppendJSON(nil))})
	}

	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	verdicts, err := golden.Judge(ctx, judge, cases)
	if err != nil {
		t.Fatal(err)
	}
	compared := 0
	for _, v := range verdicts {
		compared += v.Compared
		for _, d := range v.Differences {
			t.Errorf("%s: %s", v.File, d)
		}
		if v.Compared == 0 {
			t.Errorf("%s: nothing was compared", v.File)
		}
	}
	t.Logf("%d cases, %d fields compared", len(verdicts), compared)
	if len(verdicts) < 900 {
		t.Errorf("got %d cases, want at least 900", len(verdicts))
	}
}

func recorded(m golden.Message) judgedMessage {
	return judgedMessage{m.Headers, m.Body, m.ContentType, m.Encoding, m.Compression}
}

// rewritten is the message after a journey through our structs, uncompressed.
func rewritten(t *testing.T, m golden.Message) judgedMessage {
	t.Helper()
	raw := plainBody(t, m)
	h, err := protocol.ParseHeaders(m.Headers)
	if err != nil {
		t.Fatalf("%s: %v", m.File, err)
	}
	ours := judgedMessage{Headers: h.AppendJSON(nil), ContentType: m.ContentType, Encoding: m.Encoding}
	if h.Task == "" {
		v1, b, err := protocol.ParseV1(raw)
		if err != nil {
			t.Fatalf("%s: %v", m.File, err)
		}
		ours.Body = protocol.AppendV1(nil, &v1, &b)
		return ours
	}
	b, err := protocol.ParseBody(raw)
	if err != nil {
		t.Fatalf("%s: %v", m.File, err)
	}
	ours.Body = b.AppendJSON(nil)
	return ours
}
