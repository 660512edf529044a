package amqpbroker_test

import (
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"slices"
	"sync"
	"testing"
)

// method is one AMQP method that a client sent.
type method struct {
	class, id uint16
	args      []byte
	conn      int // the connection, in the order in which they were made
}

func (m method) name() string { return fmt.Sprintf("%d.%d", m.class, m.id) }

const (
	exchangeDeclare = "40.10"
	exchangeBind    = "40.30"
	queueDeclare    = "50.10"
	queueBind       = "50.20"
	basicQos        = "60.10"
	basicPublish    = "60.40"
	basicAck        = "60.80"
)

// tap is a TCP proxy that keeps the methods clients send.
type tap struct {
	addr string

	mu      sync.Mutex
	methods []method
	drop    string // a method that does not reach the server
	held    string // a method that reaches it when release is closed, with all that comes after it
	release chan struct{}
}

// hold keeps a method, and what its connection sends after it, until release is called.
func (tp *tap) hold(name string) (release func()) {
	tp.mu.Lock()
	defer tp.mu.Unlock()
	tp.held, tp.release = name, make(chan struct{})
	return sync.OnceFunc(func() { close(tp.release) })
}

func newTap(t *testing.T, target string) *tap {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	tp := &tap{addr: l.Addr().String()}
	var wg sync.WaitGroup
	wg.Go(func() {
		for n := 0; ; n++ {
			c, err := l.Accept()
			if err != nil {
				return
			}
			s, err := net.Dial("tcp", target)
			if err != nil {
				c.Close()
				continue
			}
			wg.Go(func() { io.Copy(c, s); c.Close() })
			wg.Go(func() { tp.pass(n, c, s); s.Close() })
		}
	})
	t.Cleanup(func() { l.Close(); wg.Wait() })
	return tp
}

func (tp *tap) pass(conn int, r io.Reader, w io.Writer) {
	if _, err := io.CopyN(w, r, 8); err != nil { // the protocol header
		return
	}
	var head [7]byte
	for {
		if _, err := io.ReadFull(r, head[:]); err != nil {
			return
		}
		payload := make([]byte, binary.BigEndian.Uint32(head[3:])+1)
		if _, err := io.ReadFull(r, payload); err != nil {
			return
		}
		if head[0] == 1 && tp.keep(method{binary.BigEndian.Uint16(payload), binary.BigEndian.Uint16(payload[2:]), payload[4 : len(payload)-1], conn}) {
			continue
		}
		if _, err := w.Write(append(head[:], payload...)); err != nil {
			return
		}
	}
}

// keep keeps a method and tells whether it is dropped.
func (tp *tap) keep(m method) bool {
	tp.mu.Lock()
	tp.methods = append(tp.methods, m)
	drop, held, release := m.name() == tp.drop, m.name() == tp.held, tp.release
	tp.mu.Unlock()
	if held {
		<-release
	}
	return drop
}

func (tp *tap) all() []method {
	tp.mu.Lock()
	defer tp.mu.Unlock()
	return slices.Clone(tp.methods)
}

// shortstr takes a text of AMQP's from the front.
func shortstr(b []byte) (string, []byte) { return string(b[1 : 1+b[0]]), b[1+b[0]:] }

// declaration writes what a method declares; empty: nothing.
func declaration(t *testing.T, m method) string {
	t.Helper()
	b := m.args
	switch m.name() {
	case exchangeDeclare:
		name, b := shortstr(b[2:])
		kind, b := shortstr(b)
		return fmt.Sprintf("exchange %s %s passive=%t durable=%t auto_delete=%t %v", name, kind, b[0]&1 > 0, b[0]&2 > 0, b[0]&4 > 0, readTable(t, b[1:]))
	case queueDeclare:
		name, b := shortstr(b[2:])
		return fmt.Sprintf("queue %s passive=%t durable=%t exclusive=%t auto_delete=%t %v", name, b[0]&1 > 0, b[0]&2 > 0, b[0]&4 > 0, b[0]&8 > 0, readTable(t, b[1:]))
	case exchangeBind:
		to, b := shortstr(b[2:])
		from, b := shortstr(b)
		key, b := shortstr(b)
		return fmt.Sprintf("bind exchange %s %s %s %v", to, from, key, readTable(t, b[1:]))
	case queueBind:
		queue, b := shortstr(b[2:])
		exchange, b := shortstr(b)
		key, b := shortstr(b)
		return fmt.Sprintf("bind %s %s %s %v", queue, exchange, key, readTable(t, b[1:]))
	}
	return ""
}

// publication writes where a method publishes to; empty: nowhere.
func publication(m method) string {
	if m.name() != basicPublish {
		return ""
	}
	exchange, b := shortstr(m.args[2:])
	key, _ := shortstr(b)
	return "publish " + exchange + " " + key
}

// recordedDeclaration writes a recorded one likewise. Flags that are off and empty
// tables may have been left out.
func recordedDeclaration(t *testing.T, d map[string]any) string {
	t.Helper()
	args := map[string]string{}
	table, _ := d["arguments"].(map[string]any)
	for k, v := range table {
		args[k] = v.(map[string]any)["t"].(string) + fmt.Sprint(v.(map[string]any)["v"])
	}
	on := func(flag string) bool { is, _ := d[flag].(bool); return is }
	switch d["method"] {
	case "exchange.bind":
		return fmt.Sprintf("bind exchange %v %v %v %v", d["destination"], d["source"], d["routing_key"], args)
	case "exchange.declare":
		return fmt.Sprintf("exchange %v %v passive=%t durable=%t auto_delete=%t %v", d["exchange"], d["type"], on("passive"), on("durable"), on("auto_delete"), args)
	case "queue.declare":
		return fmt.Sprintf("queue %v passive=%t durable=%t exclusive=%t auto_delete=%t %v", d["queue"], on("passive"), on("durable"), on("exclusive"), on("auto_delete"), args)
	}
	return fmt.Sprintf("bind %v %v %v %v", d["queue"], d["exchange"], d["routing_key"], args)
}

// readTable reads a flat table of texts and numbers, with their types.
func readTable(t *testing.T, b []byte) map[string]string {
	t.Helper()
	out := map[string]string{}
	b = b[4:]
	for len(b) > 0 {
		var key string
		key, b = shortstr(b)
		switch kind := b[0]; kind {
		case 'L', 'l': // one type, which py-amqp writes L
			out[key] = fmt.Sprintf("L%d", int64(binary.BigEndian.Uint64(b[1:])))
			b = b[9:]
		case 'I':
			out[key] = fmt.Sprintf("I%d", int32(binary.BigEndian.Uint32(b[1:])))
			b = b[5:]
		case 'S':
			n := binary.BigEndian.Uint32(b[1:])
			out[key] = "S" + string(b[5:5+n])
			b = b[5+n:]
		default:
			t.Fatalf("argument %s has type %c", key, kind)
		}
	}
	return out
}
