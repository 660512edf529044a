// Package sqlbroker is the embedded broker: an SQLite file on a local disk that
// several processes use at once. Importing it makes the URL scheme sqlite
// available:
//
//	sqlite:///var/lib/app/tasks.db     an absolute path
//	sqlite://tasks.db, sqlite:tasks.db  relative to the working directory
//
// Options in the URL's query, or under the same names in the transport options:
//
//	synchronous   full (default): a confirmed message survives kill -9 and power
//	              loss; normal: it survives kill -9, power loss may take the
//	              last moments
//	lease         how long a stopped worker keeps its messages; 30s
//	lock_timeout  how long to wait for another process's transaction; 10s
//	max_pages     a cap for the file, in pages of 4 KiB; none
//
// # Delivery
//
// Messages are claimed in strict order of priority, the highest number first,
// then first in, first out. Delayed messages are kept in the store until they
// are due, and then go before those that only wait their turn. A worker that
// died is noticed by the lock file it held, within about a second of somebody
// waiting for its queues; one that is stopped when its lease runs out. Its
// messages go back to where they were, and whatever it does later is refused.
//
// A broker and a result backend that name the same file share it: [Consumer]
// then commits publish, result and acknowledgement in one transaction.
//
// # Routing
//
// A message for the anonymous exchange goes to its queue, which is made if it is
// not there. A message for a named exchange goes to the queues bound to it
// (direct, topic, fanout) or else to the queue its sender named. What nothing
// takes is dropped with a warning, or refused if it is mandatory.
//
// AMQP's queue arguments (TTL, length, expiry, auto-delete, exclusive) have no
// effect here.
package sqlbroker
