package redisbroker_test

import (
	"sync"

	"github.com/lovage-go/lovage/broker"
)

// registry remembers which store a connection is of.
type registry struct {
	mu   sync.Mutex
	urls map[broker.Conn]string
}

func newRegistry() *registry { return &registry{urls: map[broker.Conn]string{}} }

func (r *registry) put(c broker.Conn, url string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.urls[c] = url
}

func (r *registry) get(c broker.Conn) string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.urls[c]
}
