package serializer

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"hash"
	"hash/crc32"
	"hash/crc64"
	"io"

	"github.com/ulikunitz/xz/lzma"
)

// An xzReader reads one xz stream of one block, which is what Python's
// lzma.compress writes. It parses the container itself, because the library's
// reader lets every block header ask for up to 4 GiB of memory; here the
// dictionary is never larger than the result may be.
type xzReader struct {
	in    *bytes.Reader
	body  io.Reader
	check hash.Hash // nil for none
	mark  int       // where the block begins, as bytes left
}

var errXZ = errors.New("not an xz stream of one block")

func newXZReader(in *bytes.Reader, maxBytes int) (*xzReader, error) {
	head := make([]byte, 12)
	if _, err := io.ReadFull(in, head); err != nil || !bytes.Equal(head[:6], []byte("\xfd7zXZ\x00")) || head[6] != 0 ||
		crc32.ChecksumIEEE(head[6:8]) != binary.LittleEndian.Uint32(head[8:]) {
		return nil, errXZ
	}
	x := &xzReader{in: in, mark: in.Len()}
	switch head[7] {
	case 0:
	case 1:
		x.check = crc32.NewIEEE()
	case 4:
		x.check = crc64.New(crc64.MakeTable(crc64.ECMA))
	case 10:
		x.check = sha256.New()
	default:
		return nil, errors.New("unknown check of the xz stream")
	}
	size, err := in.ReadByte()
	if err != nil {
		return nil, errXZ
	}
	if size == 0 { // the index: a stream without blocks
		x.body, x.check = bytes.NewReader(nil), nil
		return x, nil
	}
	block := make([]byte, (int(size)+1)*4)
	block[0] = size
	if _, err := io.ReadFull(in, block[1:]); err != nil {
		return nil, errXZ
	}
	end := len(block) - 4
	if crc32.ChecksumIEEE(block[:end]) != binary.LittleEndian.Uint32(block[end:]) {
		return nil, errXZ
	}
	dict, err := xzDictionary(block[1:end])
	if err != nil {
		return nil, err
	}
	dict = min(dict, int64(max(maxBytes, lzma.MinDictCap)))
	x.body, err = lzma.Reader2Config{DictCap: int(dict)}.NewReader2(in)
	return x, err
}

// xzDictionary reads the flags, sizes and the one filter of a block header.
func xzDictionary(b []byte) (int64, error) {
	flags := b[0]
	if flags&0x3f != 0 {
		return 0, errors.New("the xz block has filters other than LZMA2")
	}
	b = b[1:]
	for _, bit := range []byte{0x40, 0x80} {
		if flags&bit != 0 {
			_, n := binary.Uvarint(b)
			if n <= 0 {
				return 0, errXZ
			}
			b = b[n:]
		}
	}
	if len(b) < 3 || b[0] != 0x21 || b[1] != 1 {
		return 0, errors.New("the xz block has filters other than LZMA2")
	}
	dict, err := lzma.DecodeDictCap(b[2])
	return max(dict, lzma.MinDictCap), err
}

// Read gives the content, and checks its sum at the end.
func (x *xzReader) Read(p []byte) (int, error) {
	n, err := x.body.Read(p)
	if x.check == nil {
		return n, err
	}
	x.check.Write(p[:n])
	if err != io.EOF {
		return n, err
	}
	if pad := (x.mark - x.in.Len()) % 4; pad != 0 {
		if _, err := x.in.Seek(int64(4-pad), io.SeekCurrent); err != nil {
			return n, err
		}
	}
	sum := make([]byte, x.check.Size())
	if _, err := io.ReadFull(x.in, sum); err != nil {
		return n, io.ErrUnexpectedEOF
	}
	want := x.check.Sum(nil)
	if x.check.Size() < sha256.Size { // the CRCs are little endian
		for i, j := 0, len(want)-1; i < j; i, j = i+1, j-1 {
			want[i], want[j] = want[j], want[i]
		}
	}
	if !bytes.Equal(sum, want) {
		return n, errors.New("the xz stream's check sum is wrong")
	}
	x.check = nil
	return n, io.EOF
}
