package protocol_test

import (
	"bytes"
	"testing"
	"time"

	"github.com/lovage-go/lovage/protocol"
	"github.com/lovage-go/lovage/serializer"
)

// Each target demands that what was read and written once reads and writes the
// same from then on, and that what we write is JSON.

func FuzzHeaders(f *testing.F) {
	for _, m := range loadMessages(f) {
		f.Add([]byte(m.Headers))
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		h, err := protocol.ParseHeaders(raw)
		if err != nil {
			return
		}
		once := h.AppendJSON(nil)
		h, err = protocol.ParseHeaders(once)
		if err != nil {
			t.Fatalf("%v in %s", err, once)
		}
		settled(t, once, h.AppendJSON(nil))
	})
}

func FuzzBody(f *testing.F) {
	for _, m := range loadMessages(f) {
		if m.JSON() && m.Compression == "" {
			f.Add(m.Body)
		}
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		b, err := protocol.ParseBody(raw)
		if err != nil {
			return
		}
		once := b.AppendJSON(nil)
		b, err = protocol.ParseBody(once)
		if err != nil {
			t.Fatalf("%v in %s", err, once)
		}
		settled(t, once, b.AppendJSON(nil))
	})
}

func FuzzV1(f *testing.F) {
	for _, m := range loadMessages(f) {
		if m.JSON() && bytes.HasPrefix(m.Body, []byte("{")) {
			f.Add(m.Body)
		}
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		h, b, err := protocol.ParseV1(raw)
		if err != nil {
			return
		}
		once := protocol.AppendV1(nil, &h, &b)
		h, b, err = protocol.ParseV1(once)
		if err != nil {
			t.Fatalf("%v in %s", err, once)
		}
		again := protocol.AppendV1(nil, &h, &b)
		if h.ETA == "" && h.Expires == "" { // a mix of zones settles on one
			settled(t, once, again)
		}
	})
}

func FuzzResult(f *testing.F) {
	for _, r := range loadResults(f) {
		f.Add(r.Meta)
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		m, err := protocol.ParseResultMeta(raw)
		if err != nil {
			return
		}
		if e, ok := m.Error(); ok {
			e.Arguments()
		}
		once := m.AppendJSON(nil)
		m, err = protocol.ParseResultMeta(once)
		if err != nil {
			t.Fatalf("%v in %s", err, once)
		}
		settled(t, once, m.AppendJSON(nil))
	})
}

func FuzzTime(f *testing.F) {
	for _, s := range []string{"2026-11-21T10:30:00.000123+00:00", "2026-11-21", "2026-11-21 10:30Z", "2026-11-21T10:30:00,5-03:30"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		got, err := protocol.ParseTime(s, time.UTC)
		if err != nil {
			return
		}
		again, err := protocol.ParseTime(protocol.FormatTime(got), time.UTC)
		if err != nil || !again.Equal(got.Truncate(time.Microsecond)) {
			t.Fatalf("%q: got %v, then %v, %v", s, got, again, err)
		}
	})
}

func settled(t *testing.T, once, again []byte) {
	t.Helper()
	if err := (serializer.Limits{MaxDepth: 100}).CheckJSON(once); err != nil {
		t.Fatalf("%v in %s", err, once)
	}
	if !bytes.Equal(once, again) {
		t.Fatalf("got %s\nthen %s", once, again)
	}
}
