package amqpbroker

import (
	"net"
	"sync"
)

// corkSize is how many bytes are held back at most.
const corkSize = 32 << 10

// cork is a connection that can hold back what is written for a moment, so that
// many messages leave in one call: the library makes one for each. Who holds must
// not wait for the server until it has released.
type cork struct {
	net.Conn

	mu   sync.Mutex // guards what follows; held while the connection is written to
	on   bool
	held []byte
	err  error // of an earlier write
}

// hold begins to hold back.
func (c *cork) hold() {
	c.mu.Lock()
	c.on = true
	c.mu.Unlock()
}

// release sends what was held back and lets all through. An error breaks the
// connection, which its reader notices.
func (c *cork) release() {
	c.mu.Lock()
	c.on = false
	c.flush()
	c.mu.Unlock()
}

func (c *cork) Write(p []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.held)+len(p) > corkSize {
		c.flush()
	}
	if c.err != nil {
		return 0, c.err
	}
	if !c.on || len(p) > corkSize {
		return c.Conn.Write(p)
	}
	c.held = append(c.held, p...)
	return len(p), nil
}

// flush writes what is held. The caller holds c.mu.
func (c *cork) flush() {
	if len(c.held) == 0 || c.err != nil {
		return
	}
	if _, c.err = c.Conn.Write(c.held); c.err != nil {
		c.Conn.Close()
	}
	c.held = c.held[:0]
}
