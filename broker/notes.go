package broker

import (
	"sync"
	"time"
)

// Notes remember messages that a worker had and that went back to their queues:
// handed back, or lost with a connection. A broker that marks every message that
// it delivers again alike asks them, since what comes back to the process that
// had it is no sign of a death. The keys are the driver's. The zero value is
// ready, and safe for concurrent use; of more than 10,000 notes the oldest are
// forgotten.
type Notes struct {
	mu     sync.Mutex
	keys   map[string]bool // whether the losses of this copy were told
	ring   []string        // the oldest is forgotten first
	next   int
	unseen map[string]unseen // by queue
}

// unseen messages were on their way when a connection was lost.
type unseen struct {
	most  int
	until time.Time
}

const (
	maxNotes   = 10_000
	unseenTime = time.Minute
)

// Put makes a note; told: the losses of this copy of the message were told.
func (n *Notes) Put(key string, told bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.keys == nil {
		n.keys, n.ring = map[string]bool{}, make([]string, maxNotes)
	}
	delete(n.keys, n.ring[n.next])
	n.keys[key], n.ring[n.next] = told, key
	n.next = (n.next + 1) % maxNotes
}

// Has reports whether there is a note, and leaves it.
func (n *Notes) Has(key string) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	_, noted := n.keys[key]
	return noted
}

// Unseen notes that as many messages of a queue at most, more than before, were
// lost on their way to us. They are not known, so that many without a note are
// taken for them, for a minute.
func (n *Notes) Unseen(queue string, most int) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.unseen == nil {
		n.unseen = map[string]unseen{}
	}
	if u := n.unseen[queue]; time.Now().Before(u.until) {
		most += u.most
	}
	n.unseen[queue] = unseen{most, time.Now().Add(unseenTime)}
}

// Take reports whether there is a note of a message that has come again, and
// drops it.
func (n *Notes) Take(queue, key string) (noted, told bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if told, noted = n.keys[key]; noted {
		delete(n.keys, key)
		return noted, told
	}
	u, ok := n.unseen[queue]
	if !ok {
		return false, false
	}
	if u.most--; u.most <= 0 || time.Now().After(u.until) {
		delete(n.unseen, queue)
	} else {
		n.unseen[queue] = u
	}
	return u.most >= 0 && time.Now().Before(u.until), false
}
