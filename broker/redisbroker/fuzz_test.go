package redisbroker_test

import (
	"bytes"
	"testing"

	"github.com/lovage-go/lovage/broker/redisbroker"
	"github.com/lovage-go/lovage/internal/jsontext"
)

// FuzzEnvelope: whatever is on a list is read or refused, and what is read can be
// marked without a change to what it says.
func FuzzEnvelope(f *testing.F) {
	for _, raw := range []string{
		`{"body": "W10=", "content-encoding": "utf-8", "content-type": "application/json", "headers": {"task": "t"}, "properties": {"body_encoding": "base64", "delivery_info": {"exchange": "", "routing_key": "q", "redelivered": true}, "priority": 3, "expiration": "5"}}`,
		`{"body":"\u0000ü","headers":{"redelivered": true},"properties":{"delivery_info":{}}}`,
		`{"properties":{"delivery_info":{"a":1}},"headers":null,"body":""}`, `{}`, `[`, `{"body": 1}`,
	} {
		f.Add(raw)
	}
	f.Fuzz(func(t *testing.T, raw string) {
		headers, body, err := redisbroker.ReadEnvelope(raw)
		if err != nil {
			return
		}
		marked := redisbroker.Mark(raw, true, true, 3)
		if err := jsontext.Valid([]byte(marked)); err != nil {
			t.Fatalf("marked, %q is no JSON any more: %v", marked, err)
		}
		h, b, err := redisbroker.ReadEnvelope(marked)
		if err != nil || !bytes.Equal(b, body) || !bytes.Equal(bytes.TrimSpace(h), bytes.TrimSpace(headers)) {
			t.Fatalf("marked, headers %q and body %q read as %q and %q, %v", headers, body, h, b, err)
		}
		if again := redisbroker.Mark(marked, true, true, 3); again != marked {
			t.Fatalf("marked twice: %q, once: %q", again, marked)
		}
	})
}
