// Package rpcbackend sends results as messages to the process that made the call,
// as Celery's rpc:// does: nothing is stored, and nobody else can read them.
// Importing it makes the URL scheme rpc available; the broker must be RabbitMQ.
//
// A process that calls tasks has one reply queue under a random name, made before
// its first call is sent: durable, deleted with its consumer, and by itself after
// result_expires without one. Each state of a task is a message there, with the
// task's id as correlation id, transient unless result_persistent is on. One
// goroutine takes them and keeps the last state of each task:
//
//   - Get of an id that this process did not send is [ErrNotOurs], at once.
//   - The last states of at most 10,000 tasks that nobody waits for are kept, until
//     result_expires; the oldest go first, are counted, and their Get is [ErrDropped].
//   - After a lost connection the queue is made again under its name. The server
//     has deleted it with its consumer, so states in between are lost: who still
//     waits when its context ends gets [ErrResultLost].
//
// Chords need a store that counts, and are refused.
package rpcbackend
