package serializer

import (
	"bytes"
	"compress/bzip2"
	"compress/zlib"
	"fmt"
	"io"
	"strings"

	"github.com/andybalholm/brotli"
	dsnet "github.com/dsnet/compress/bzip2"
	"github.com/klauspost/compress/zstd"
	"github.com/ulikunitz/xz"
)

// The MIME types of kombu's compression methods, as they stand in the header
// compression. What kombu calls gzip is a zlib stream.
const (
	mimeZlib   = "application/x-gzip"
	mimeBzip2  = "application/x-bz2"
	mimeLZMA   = "application/x-lzma"
	mimeZstd   = "application/zstd"
	mimeBrotli = "application/x-brotli"
)

// methods maps kombu's names of compression methods to MIME types.
var methods = map[string]string{
	"zlib": mimeZlib, "gzip": mimeZlib,
	"bzip2": mimeBzip2, "bzip": mimeBzip2,
	"lzma": mimeLZMA, "xz": mimeLZMA,
	"zstd": mimeZstd, "zstandard": mimeZstd,
	"brotli": mimeBrotli,
}

// A text that grows by more than MaxRatio is taken for a bomb once it is over
// RatioFloor bytes.
const (
	MaxRatio   = 250
	RatioFloor = 1 << 20
)

// zstdWindow bounds the memory that a zstd frame may ask for.
const zstdWindow = 32 << 20

// Compression gives the MIME type of a compression method, named as in
// task_compression ("zlib", "gzip", "bzip2", "lzma", "zstd", "brotli") or by
// its MIME type.
func Compression(method string) (mime string, err error) {
	key := strings.ToLower(strings.TrimSpace(method))
	if m, ok := methods[key]; ok {
		return m, nil
	}
	for _, m := range methods {
		if m == key {
			return m, nil
		}
	}
	return "", fmt.Errorf("compression %q: unknown; known are gzip, zlib, bzip2, lzma, xz, zstd and brotli", method)
}

// Compress packs data by a method of [Compression].
func Compress(method string, data []byte) ([]byte, error) {
	mime, err := Compression(method)
	if err != nil {
		return nil, err
	}
	var buf bytes.Buffer
	w, err := packer(mime, &buf)
	if err == nil {
		if _, err = w.Write(data); err == nil {
			err = w.Close()
		}
	}
	if err != nil {
		return nil, fmt.Errorf("compress by %s: %w", method, err)
	}
	return buf.Bytes(), nil
}

func packer(mime string, w io.Writer) (io.WriteCloser, error) {
	switch mime {
	case mimeBzip2:
		return dsnet.NewWriter(w, &dsnet.WriterConfig{Level: dsnet.BestCompression})
	case mimeLZMA:
		return xz.NewWriter(w)
	case mimeZstd:
		return zstd.NewWriter(w, zstd.WithEncoderConcurrency(1))
	case mimeBrotli:
		return brotli.NewWriterLevel(w, brotli.DefaultCompression), nil
	}
	return zlib.NewWriter(w), nil
}

// Decompress unpacks data by the MIME type of its compression header. It stops
// where the result goes over maxBytes (0 means 16 MiB), or is over 1 MiB and
// more than 250 times data; the error is a [*LimitError] or a [*RatioError].
// The memory it takes is bounded by maxBytes and a few windows.
func Decompress(mime string, data []byte, maxBytes int) ([]byte, error) {
	if maxBytes <= 0 {
		maxBytes = DefaultMaxBytes
	}
	mime, err := Compression(mime)
	if err != nil {
		return nil, err
	}
	in := bytes.NewReader(data)
	r, err := unpacker(mime, in, maxBytes)
	if err != nil {
		return nil, fmt.Errorf("decompress %s: %w", mime, err)
	}
	defer r.Close()
	out, err := readBounded(r, len(data), maxBytes)
	if err != nil {
		return nil, fmt.Errorf("decompress %s: %w", mime, err)
	}
	return out, nil
}

func unpacker(mime string, in *bytes.Reader, maxBytes int) (io.ReadCloser, error) {
	switch mime {
	case mimeBzip2:
		return io.NopCloser(bzip2.NewReader(in)), nil
	case mimeLZMA:
		r, err := newXZReader(in, maxBytes)
		return io.NopCloser(r), err
	case mimeZstd:
		d, err := zstd.NewReader(in, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true), zstd.WithDecoderMaxWindow(zstdWindow))
		if err != nil {
			return nil, err
		}
		return d.IOReadCloser(), nil
	case mimeBrotli:
		return io.NopCloser(brotli.NewReader(in)), nil
	}
	return zlib.NewReader(in)
}

// RatioError is a text that grows so much that it must be a bomb.
type RatioError struct{ In, Out int }

func (e *RatioError) Error() string {
	return fmt.Sprintf("%d bytes grow to more than %d, over %d times; send such data uncompressed", e.In, e.Out, MaxRatio)
}

func readBounded(r io.Reader, in, maxBytes int) ([]byte, error) {
	out := make([]byte, 0, min(4*in+512, maxBytes+1, 64<<10))
	for {
		if len(out) == cap(out) {
			out = append(out, 0)[:len(out)]
		}
		n, err := r.Read(out[len(out):cap(out)])
		out = out[:len(out)+n]
		switch {
		case len(out) > maxBytes:
			return nil, &LimitError{Setting: "MaxBytes", Max: maxBytes}
		case len(out) > RatioFloor && len(out)/MaxRatio > in:
			return nil, &RatioError{In: in, Out: len(out)}
		case err == io.EOF:
			return out, nil
		case err != nil:
			return nil, err
		}
	}
}
