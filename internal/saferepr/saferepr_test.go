package saferepr_test

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/lovage-go/lovage/internal/golden"
	"github.com/lovage-go/lovage/internal/saferepr"
	"github.com/lovage-go/lovage/protocol"
	"github.com/lovage-go/lovage/serializer"
)

// brackets forgets the difference between tuples and lists, which JSON loses.
var brackets = strings.NewReplacer(",)", "]", "(", "[", ")", "]")

// TestGoldenRepr compares with what Celery wrote into the headers, but for
// calls that set their own text, are not JSON, or lose an int key in it, and
// one where Celery leaves out the commas after an empty tuple.
func TestGoldenRepr(t *testing.T) {
	t.Parallel()
	list, _, err := golden.Messages("../../protocol/testdata/golden/messages/redis")
	if err != nil {
		t.Fatal(err)
	}
	own := map[string]bool{"argsrepr.json#0": true, "json_tuple_and_int_keys.json#0": true, "json_signature_arg.json#0": true}
	compared, exact := 0, 0
	for _, m := range list {
		h, err := protocol.ParseHeaders(m.Headers)
		if err != nil {
			t.Fatal(err)
		}
		if !m.JSON() || h.Task == "" || own[m.File] {
			continue
		}
		raw := m.Body
		if m.Compression != "" {
			if raw, err = serializer.Decompress(m.Compression, raw, 0); err != nil {
				t.Fatal(err)
			}
		}
		b, err := protocol.ParseBody(raw)
		if err != nil {
			t.Fatal(err)
		}
		compared++
		args, kwargs := string(saferepr.AppendArgs(nil, b.Args, 0)), string(saferepr.AppendKwargs(nil, b.Kwargs, 0))
		if args == h.ArgsRepr && kwargs == h.KwargsRepr {
			exact++
		}
		if brackets.Replace(args) != brackets.Replace(h.ArgsRepr) {
			t.Errorf("%s args:\n got %s\nwant %s", m.File, args, h.ArgsRepr)
		}
		if brackets.Replace(kwargs) != brackets.Replace(h.KwargsRepr) {
			t.Errorf("%s kwargs:\n got %s\nwant %s", m.File, kwargs, h.KwargsRepr)
		}
	}
	t.Logf("%d messages compared, %d to the letter", compared, exact)
	if compared < 200 || exact < 150 {
		t.Errorf("got %d messages compared, %d to the letter; want at least 200 and 150", compared, exact)
	}
}

// TestCut has what Celery 5.2.6 printed for saferepr(args, maxlen).
func TestCut(t *testing.T) {
	t.Parallel()
	for _, c := range cuts {
		if got := string(saferepr.AppendArgs(nil, json.RawMessage(c.args), c.max)); got != c.want {
			t.Errorf("%s at %d:\n got %s\nwant %s", c.args, c.max, got, c.want)
		}
	}
}

func TestNotJSON(t *testing.T) {
	t.Parallel()
	for _, raw := range []string{"[", "[1", `["`, "{", `[{"a"`, "[1,]", "x"} {
		if got := string(saferepr.AppendArgs(nil, json.RawMessage(raw), 0)); got != "<not JSON>" {
			t.Errorf("%s: got %s, want <not JSON>", raw, got)
		}
	}
}

func BenchmarkArgsRepr(b *testing.B) {
	buf := make([]byte, 0, 256)
	for name, args := range map[string]string{"Ints": "[2, 3]", "Mixed": `["a@b.example", {"retries": 3, "x": [1.5, null]}, true]`} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				buf = saferepr.AppendArgs(buf[:0], json.RawMessage(args), 0)
			}
		})
	}
}
