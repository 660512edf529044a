package serializer_test

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"testing"

	"github.com/lovage-go/lovage/serializer"
)

func TestCompressRoundTrip(t *testing.T) {
	t.Parallel()
	noise := make([]byte, 300_000)
	rnd := rand.NewChaCha8([32]byte{1})
	_, _ = rnd.Read(noise)
	for _, method := range []string{"zlib", "gzip", "bzip2", "bzip", "lzma", "xz", "zstd", "zstandard", "brotli", "application/x-gzip"} {
		for name, data := range map[string][]byte{"empty": {}, "text": []byte("[[1, 2], {}, {}]"), "noise": noise} {
			t.Run(method+"/"+name, func(t *testing.T) {
				t.Parallel()
				packed, err := serializer.Compress(method, data)
				if err != nil {
					t.Fatal(err)
				}
				mime, err := serializer.Compression(method)
				if err != nil {
					t.Fatal(err)
				}
				got, err := serializer.Decompress(mime, packed, 0)
				if err != nil {
					t.Fatal(err)
				}
				if !bytes.Equal(got, data) {
					t.Fatalf("got %d other bytes, want the %d given", len(got), len(data))
				}
			})
		}
	}
}

func TestDecompressIsBounded(t *testing.T) {
	t.Parallel()
	for _, method := range []string{"zlib", "bzip2", "lzma", "zstd", "brotli"} {
		t.Run(method, func(t *testing.T) {
			t.Parallel()
			packed, err := serializer.Compress(method, make([]byte, 8<<20))
			if err != nil {
				t.Fatal(err)
			}
			mime, _ := serializer.Compression(method)
			_, err = serializer.Decompress(mime, packed, 1000)
			if _, ok := errors.AsType[*serializer.LimitError](err); !ok {
				t.Errorf("cap: got %v, want a LimitError", err)
			}
			_, err = serializer.Decompress(mime, packed, 0)
			if _, ok := errors.AsType[*serializer.RatioError](err); !ok {
				t.Errorf("ratio: got %v, want a RatioError", err)
			}
			_, err = serializer.Decompress(mime, packed[:len(packed)/2], 0)
			if err == nil {
				t.Error("half a stream: got no error")
			}
		})
	}
}

func TestUnknownCompression(t *testing.T) {
	t.Parallel()
	if _, err := serializer.Decompress("application/x-rar", nil, 0); err == nil {
		t.Fatal("got no error, want one that names the method")
	}
}
