package amqpbroker

import (
	"bufio"
	"encoding/binary"
	"io"
	"net"
	"sync"
	"sync/atomic"
)

const (
	frameMethod = 1
	frameHeader = 2
	frameStart  = 7

	flagContType = 1 << 15
	flagEncoding = 1 << 14
	flagHeaders  = 1 << 13

	basicCancelOk = 60<<16 | 31
	basicDeliver  = 60<<16 | 60
)

// mended is a connection whose incoming frames suit the library, in two ways.
//
// Python's client writes whole numbers above 32 bits as type L in message headers,
// which RabbitMQ passes on as it is and the library takes for a broken frame: the
// connection would end, over and over. They become type l, the same number under
// the name that all know.
//
// What the server sends to a consumer after it has said that the consumer ended,
// the library forgets. Who watches a consumer tag is told.
type mended struct {
	net.Conn
	in   *bufio.Reader
	head [frameStart]byte
	out  []byte // of the frame at hand, not handed on yet
	left int    // bytes of the frame that pass as they are
	buf  []byte

	mu       sync.Mutex // guards what follows
	watched  map[string]*watched
	watching atomic.Bool // there are any
}

type watched struct {
	ended bool
	late  func(deliveryTag uint64)
}

func mend(c net.Conn) *mended {
	return &mended{Conn: c, in: bufio.NewReaderSize(c, 32<<10), watched: map[string]*watched{}}
}

// watch has late called for what comes to a consumer after its end, on a
// goroutine of its own.
func (m *mended) watch(consumer string, late func(deliveryTag uint64)) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.watched[consumer] = &watched{late: late}
	m.watching.Store(true)
}

func (m *mended) forget(consumer string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.watched, consumer)
	m.watching.Store(len(m.watched) > 0)
}

func (m *mended) Read(p []byte) (int, error) {
	for len(m.out) == 0 && m.left == 0 {
		if err := m.next(); err != nil {
			return 0, err
		}
	}
	if len(m.out) > 0 {
		n := copy(p, m.out)
		m.out = m.out[n:]
		return n, nil
	}
	n, err := m.in.Read(p[:min(len(p), m.left)])
	m.left -= n
	return n, err
}

// next reads the start of a frame, and all of one that holds message headers.
func (m *mended) next() error {
	if _, err := io.ReadFull(m.in, m.head[:]); err != nil {
		return err
	}
	size := int(binary.BigEndian.Uint32(m.head[3:]))
	m.out = m.head[:]
	kind := m.head[0]
	if kind != frameHeader && (kind != frameMethod || !m.watching.Load()) || size > 1<<20 {
		m.left = size + 1
		return nil
	}
	if need := frameStart + size + 1; cap(m.buf) < need {
		m.buf = make([]byte, need)
	}
	m.buf = m.buf[:frameStart+size+1]
	copy(m.buf, m.head[:])
	if _, err := io.ReadFull(m.in, m.buf[frameStart:]); err != nil {
		return err
	}
	m.out = m.buf
	if payload := m.buf[frameStart : frameStart+size]; kind == frameHeader {
		mendHeaders(payload)
	} else {
		m.method(payload)
	}
	return nil
}

// method looks at what is said to a consumer.
func (m *mended) method(b []byte) {
	if len(b) < 5 {
		return
	}
	id, n := binary.BigEndian.Uint32(b), int(b[4])
	if id != basicCancelOk && id != basicDeliver || len(b) < 5+n {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	w := m.watched[string(b[5:5+n])]
	switch b = b[5+n:]; {
	case w == nil:
	case id == basicCancelOk:
		w.ended = true
	case w.ended && len(b) >= 8:
		go w.late(binary.BigEndian.Uint64(b))
	}
}

// mendHeaders finds the table in the payload of a header frame.
func mendHeaders(b []byte) {
	if len(b) < 14 {
		return
	}
	flags := binary.BigEndian.Uint16(b[12:])
	b = b[14:]
	for _, f := range []uint16{flagContType, flagEncoding} {
		if flags&f == 0 {
			continue
		}
		if len(b) == 0 || len(b) < 1+int(b[0]) {
			return
		}
		b = b[1+int(b[0]):]
	}
	if flags&flagHeaders != 0 {
		mendTable(b, 0)
	}
}

// mendTable walks a table; false: it is not one.
func mendTable(b []byte, depth int) (rest []byte, ok bool) {
	inside, rest, ok := counted(b)
	for ok && len(inside) > 0 {
		if len(inside) < 1+int(inside[0]) {
			return nil, false
		}
		inside, ok = mendValue(inside[1+int(inside[0]):], depth)
	}
	return rest, ok
}

func mendValue(b []byte, depth int) (rest []byte, ok bool) {
	if len(b) == 0 || depth > 64 {
		return nil, false
	}
	size := 0
	switch b[0] {
	case 'V':
	case 't', 'b', 'B':
		size = 1
	case 's', 'u':
		size = 2
	case 'I', 'i', 'f':
		size = 4
	case 'D':
		size = 5
	case 'L':
		b[0], size = 'l', 8
	case 'l', 'd', 'T':
		size = 8
	case 'S', 'x':
		_, rest, ok := counted(b[1:])
		return rest, ok
	case 'F':
		return mendTable(b[1:], depth+1)
	case 'A':
		inside, rest, ok := counted(b[1:])
		for ok && len(inside) > 0 {
			inside, ok = mendValue(inside, depth+1)
		}
		return rest, ok
	default:
		return nil, false
	}
	if len(b) < 1+size {
		return nil, false
	}
	return b[1+size:], true
}

// counted splits off what a length of four bytes counts.
func counted(b []byte) (inside, rest []byte, ok bool) {
	if len(b) < 4 {
		return nil, nil, false
	}
	n := binary.BigEndian.Uint32(b)
	if uint64(n) > uint64(len(b)-4) {
		return nil, nil, false
	}
	return b[4 : 4+n], b[4+n:], true
}
