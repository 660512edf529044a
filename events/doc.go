// Package events speaks Celery's monitoring events: small JSON objects that
// workers and clients send to the exchange celeryev and that anybody may watch.
//
//   - [Event] is one of them; [Parse] reads a message body, which holds one
//     event or, for batches, an array of them.
//   - [Dispatcher] sends: [Dispatcher.Send] at once, [Dispatcher.Publish] through
//     a bounded buffer that [Dispatcher.Run] flushes in batches.
//   - [Receiver] listens, with an iterator or with handlers by type.
//   - [Clock] is the logical clock that orders events of several nodes.
//
// The routing key is the type with dots for dashes, so that a receiver can ask
// for "worker.#"; a batch has "task.multi". A pattern such as "task.succeeded"
// therefore sees only what was not batched, as in Celery. Events are transient:
// who does not listen does not get them, and who listens too slowly loses the
// oldest ([Receiver.Missed]).
//
// The broker must offer [github.com/lovage-go/lovage/broker.Fanouter].
package events
