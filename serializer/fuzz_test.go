package serializer_test

import (
	"bytes"
	"encoding/json"
	"reflect"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/lovage-go/lovage/internal/golden"
	"github.com/lovage-go/lovage/serializer"
)

const folder = "../protocol/testdata/golden/messages"

func seeds(f *testing.F) []golden.Message {
	f.Helper()
	list, _, err := golden.Messages(folder)
	if err != nil {
		f.Fatal(err)
	}
	return list
}

// FuzzCheckJSON holds the checker against the standard library: what that takes
// in UTF-8 we take, and what we take beyond it has one of Python's bare words.
func FuzzCheckJSON(f *testing.F) {
	for _, m := range seeds(f) {
		f.Add([]byte(m.Headers))
		if m.JSON() && m.Compression == "" {
			f.Add(m.Body)
		}
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		err := (serializer.Limits{MaxDepth: 1000}).CheckJSON(data)
		std := json.Valid(data)
		switch {
		case err == nil && !std && !bytes.Contains(data, []byte("NaN")) && !bytes.Contains(data, []byte("Infinity")):
			t.Fatalf("took %q, encoding/json does not", data)
		case err != nil && std && bytes.Equal(data, bytes.ToValidUTF8(data, nil)) && bytes.Count(data, []byte("[")) < 900 && bytes.Count(data, []byte("{")) < 900:
			t.Fatalf("%v for %q, encoding/json takes it", err, data)
		}
	})
}

// FuzzJSON reads into any and into a struct, writes, and reads the same again.
func FuzzJSON(f *testing.F) {
	for _, m := range seeds(f) {
		if m.JSON() && m.Compression == "" {
			f.Add(m.Body)
		}
	}
	f.Add([]byte(`{"T": "2024-02-29", "B": "x", "N": NaN, "U": {"hex": "12345678123456781234567812345678"}, "L": [{}], "M": {"a": null}}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		var v any
		if serializer.JSON.Unmarshal(data, &v) == nil {
			roundTrip(t, v, new(any))
		}
		type form struct {
			T time.Time
			B []byte
			N float64
			U uuid.UUID
			L []map[string]any
			M map[string]*serializer.Decimal
		}
		var s form
		if serializer.JSON.Unmarshal(data, &s) == nil && s.T.Year() > 1 && s.T.Year() < 9999 {
			if _, err := serializer.JSON.Marshal(s); err != nil {
				t.Fatal(err)
			}
		}
	})
}

func roundTrip(t *testing.T, v any, again *any) {
	t.Helper()
	once, err := serializer.JSON.Marshal(v)
	if err != nil {
		return // such as a time in the year 0 after its zone is applied
	}
	if err := serializer.JSON.Unmarshal(once, again); err != nil {
		t.Fatalf("%v in %s", err, once)
	}
	twice, err := serializer.JSON.Marshal(*again)
	if err != nil || !bytes.Equal(once, twice) {
		t.Fatalf("got %s\nthen %s, %v", once, twice, err)
	}
	if reflect.TypeOf(v) != reflect.TypeOf(*again) {
		t.Fatalf("got a %T, then a %T", v, *again)
	}
}

func FuzzDecompress(f *testing.F) {
	mimes := []string{"zlib", "bzip2", "lzma", "zstd", "brotli"}
	for _, m := range seeds(f) {
		if m.Compression == "" {
			continue
		}
		for i, name := range mimes {
			if mime, _ := serializer.Compression(name); mime == m.Compression {
				f.Add(i, m.Body)
			}
		}
	}
	f.Fuzz(func(t *testing.T, method int, data []byte) {
		mime, err := serializer.Compression(mimes[uint(method)%uint(len(mimes))])
		if err != nil {
			t.Fatal(err)
		}
		out, err := serializer.Decompress(mime, data, 1<<16)
		if err == nil && len(out) > 1<<16 {
			t.Fatalf("got %d bytes, over the cap", len(out))
		}
	})
}
