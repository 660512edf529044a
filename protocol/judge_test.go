package protocol_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/lovage-go/lovage/internal/golden"
	"github.com/lovage-go/lovage/protocol"
)

const (
	python = "/usr/bin/python3" // the one that has the distribution's Celery
	judge  = "../internal/tools/judge/judge.py"
)

type judged struct {
	File     string `json:"file"`
	Kind     string `json:"kind"`
	Original any    `json:"original"`
	Ours     any    `json:"ours"`
}

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
	if out, err := exec.Command(python, "-c", "import celery, kombu; print(celery.__version__, kombu.__version__)").CombinedOutput(); err != nil {
		t.Fatalf("%s has no Celery to judge with (%v: %s); run the tests by `make test`, which brings it along", python, err, out)
	} else {
		t.Logf("judged by celery and kombu %s", bytes.TrimSpace(out))
	}
	var in bytes.Buffer
	enc := json.NewEncoder(&in)
	cases := 0
	send := func(c judged) {
		cases++
		if err := enc.Encode(c); err != nil {
			t.Fatalf("%s: %v", c.File, err)
		}
	}
	for _, m := range loadMessages(t) {
		if m.JSON() && m.Compression != "application/zstd" { // the distribution's Python has no zstd
			send(judged{m.File, "message", recorded(m), rewritten(t, m)})
		}
	}
	for _, r := range loadResults(t) {
		m, err := protocol.ParseResultMeta(r.Meta)
		if err != nil {
			t.Fatalf("%s: %v", r.File, err)
		}
		send(judged{r.File, "result", string(r.Meta), string(m.AppendJSON(nil))})
	}

	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, python, judge)
	cmd.Stdin = &in
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("judge: %v: %s", err, stderr.String())
	}
	answers, compared := 0, 0
	for lines := bufio.NewScanner(bytes.NewReader(out)); lines.Scan(); answers++ {
		var a struct {
			File        string   `json:"file"`
			Compared    int      `json:"compared"`
			Differences []string `json:"differences"`
		}
		if err := json.Unmarshal(lines.Bytes(), &a); err != nil {
			t.Fatal(err)
		}
		compared += a.Compared
		for _, d := range a.Differences {
			t.Errorf("%s: %s", a.File, d)
		}
		if a.Compared == 0 {
			t.Errorf("%s: nothing was compared", a.File)
		}
	}
	t.Logf("%d cases, %d fields compared", answers, compared)
	if answers != cases || cases < 900 {
		t.Errorf("got %d answers for %d cases, want all of at least 900", answers, cases)
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
