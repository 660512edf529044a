package protocol_test

import (
	"encoding/json"
	"testing"

	"github.com/lovage-go/lovage/internal/golden"
	"github.com/lovage-go/lovage/protocol"
)

func TestChordPartIsCelerys(t *testing.T) {
	t.Parallel()
	p := protocol.ChordPart{TaskID: "f8", State: protocol.Success, Result: json.RawMessage("[2, NaN]")}
	const want = `[1, "f8", "SUCCESS", [2, NaN]]`
	if got := string(p.AppendJSON(nil)); got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	back, err := protocol.ParseChordPart([]byte(want))
	if err != nil || back.TaskID != p.TaskID || back.State != p.State || string(back.Result) != string(p.Result) {
		t.Errorf("got %+v, %v", back, err)
	}
	for _, bad := range []string{"", "{}", "[]", `[1, "a", "SUCCESS"]`, `[1, "a", "SUCCESS", 1, 2]`, `[1, 2, "SUCCESS", 1]`, `[1, "", "SUCCESS", 1]`, `[1, "a", "SUCCESS", 1] x`} {
		if p, err := protocol.ParseChordPart([]byte(bad)); err == nil {
			t.Errorf("%s is read as %+v", bad, p)
		}
	}
}

func FuzzChordPart(f *testing.F) {
	for _, dir := range []string{"testdata/golden/results/redis_chord", "testdata/golden/v5.2/results/redis_chord"} {
		parts, err := golden.ChordParts(dir)
		if err != nil || len(parts) == 0 {
			f.Fatalf("%s: %d parts, %v", dir, len(parts), err)
		}
		for _, p := range parts {
			f.Add([]byte(p))
		}
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		p, err := protocol.ParseChordPart(raw)
		if err != nil {
			return
		}
		again, err := protocol.ParseChordPart(p.AppendJSON(nil))
		if err != nil || again.TaskID != p.TaskID || again.State != p.State || string(again.Result) != string(p.Result) {
			t.Errorf("%q: %+v became %+v, %v", raw, p, again, err)
		}
	})
}
