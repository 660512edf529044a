package lovage

import (
	crand "crypto/rand"
	"encoding/binary"
	"io"
	"sync"
)

// randomness is the App's one source of chance: ids, jitter, tickets.
type randomness struct {
	mu  sync.Mutex
	src io.Reader
	buf [1024]byte // unread bytes of src
	n   int
}

func newRandomness(src io.Reader) *randomness {
	if src == nil {
		src = crand.Reader
	}
	return &randomness{src: src}
}

func (r *randomness) read(p []byte) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.n < len(p) {
		if _, err := io.ReadFull(r.src, r.buf[:]); err != nil {
			panic("lovage: the source of randomness failed: " + err.Error())
		}
		r.n = len(r.buf)
	}
	copy(p, r.buf[len(r.buf)-r.n:][:len(p)])
	r.n -= len(p)
}

// int64n returns a number in [0, n], or 0 if n is not positive.
func (r *randomness) int64n(n int64) int64 {
	if n <= 0 {
		return 0
	}
	var b [8]byte
	r.read(b[:])
	return int64(binary.LittleEndian.Uint64(b[:]) % uint64(n+1))
}

const hexDigits = "0123456789abcdef"

// uuid returns a random UUID, version 4, in its usual text form.
func (r *randomness) uuid() string {
	var u [16]byte
	r.read(u[:])
	u[6] = u[6]&0x0f | 0x40
	u[8] = u[8]&0x3f | 0x80
	var s [36]byte
	j := 0
	for i, b := range u {
		if i == 4 || i == 6 || i == 8 || i == 10 {
			s[j] = '-'
			j++
		}
		s[j], s[j+1] = hexDigits[b>>4], hexDigits[b&15]
		j += 2
	}
	return string(s[:])
}
