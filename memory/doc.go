// Package memory is a broker and a result backend inside one process. It is
// for tests, for eager development and as the model that other drivers are
// compared with; nothing in it outlives the process.
//
//	store := memory.New()
//	conn, results := store.Broker(), store.Backend()
//
// Under the URL schemes memory (broker) and memory, cache+memory (backend)
// memory://name is one store for each name in the process; memory:// is the
// store "default". The package has no goroutines of its own: time is that of
// package time, so that a store made inside a testing/synctest bubble obeys
// the bubble's clock. Make it there with [New]; a named store may have been
// made outside.
//
// # Routing
//
// A message for the anonymous exchange goes to Message.Queue, or to the queue
// named by RoutingKey; that queue is made if nobody declared it. A message for
// a named exchange goes to the queues bound to it (direct, topic, fanout), or,
// if no binding matches, to Message.Queue where the sender knew it. What
// nothing takes is dropped with a log line and counted by [Store.Unroutable];
// a Mandatory message is refused with broker.ErrNoQueue instead.
//
// Priorities: the highest number first, none given is 0. Queue arguments of
// AMQP (TTL, length, expiry, auto-delete, exclusive) are ignored.
//
// # Processes
//
// Each connection is a process of its own unless it comes from a [Process],
// which groups a broker and a backend so that they can be killed or stopped
// together. A killed process has no further effect: its settlements give
// broker.ErrLeaseLost, everything else ErrClosed. A stopped one waits in every
// call until Resume, by which time its leases may have lapsed.
//
// A claim lasts for its lease from the moment it was made or last renewed.
//
// # Faults
//
// [WithFaults] makes chosen or seeded operations fail, wait, deliver twice or
// lose their reply; the same plan and the same order of operations give the
// same faults.
package memory
