// Package amqpbroker is the broker on RabbitMQ, with exchanges, queues, headers
// and properties as Celery declares and sends them, so that Python and Go share
// queues message by message. Importing it makes the URL schemes amqp, amqps,
// pyamqp and librabbitmq available; see [Open] for the options.
//
// # Connections
//
// A Conn has two TCP connections, each made when it is first needed and again
// after a loss: one that publishes and declares, one that consumes. RabbitMQ in
// alarm does not read from connections that publish, and acks must get through.
// Each queue is consumed on a channel of its own. What the server does not like
// about one (406 after the consumer timeout, 404 for a deleted queue) ends that
// channel alone, with the reason in the log; it is opened again by the next Claim.
//
// # Publishing
//
// Every message is confirmed, many at a time on the way, and every one is sent
// mandatory. One for a queue that does not exist makes the queue; a Mandatory one
// that nobody takes is an error; another is logged and dropped, as everywhere.
//
// # Claims
//
// A claim is a delivery tag on one channel. When that channel is gone, the claim
// is: settling it is ErrLeaseLost, and the server has given the message back.
// Acks go many in one frame. Prefetch is per consumer, never per channel or
// connection, and it follows the worker: a consumer is opened with as many
// messages as Claim asks for, replaced by a wider one when it asks for more and by a
// narrower one when it asks for much less for a second, and let go when nobody
// claims for a second; what it has buffered is handed back then.
//
// RabbitMQ says redelivered after a hand-back and after a death alike. So
// Orphaned is set after both, and, for a while, for what comes for the first time
// from a server that crashed; but not for what this Conn itself has handed back. A
// loss may be counted for a message that was only handed back, by another, and
// one missed when it comes to that other again. The result store counts losses by
// task id; for one that cannot, rpc://, they are counted in the message, which goes
// to the end of its queue for that, see [Consumer.MarkLoss].
//
// # Delay
//
// Messages that are not due wait in Celery's delay queues, celery_delayed_27 to
// celery_delayed_0, whatever the type of the target. Ten more, lovage_delayed_9 to
// 0, do for less than a second; longer delays end on a whole second, up to one
// late. A message that is parked is marked by [protocol.OnceHeader], in case a crash
// leaves the original as well. Each queue is bound to celery_delayed_delivery by its name and keys,
// and so are fanout and headers exchanges. A message for an exchange that no queue
// was declared for here is sent at once, and waits in the worker that gets it.
//
// # Dead letters
//
// They wait in the durable queue lovage.dead, as they were, with reason, queue,
// time and an id in the header x-lovage. Reject leaves a message to RabbitMQ's
// own dead-letter arguments. To list letters they are taken and put back, since
// AMQP cannot look into a queue.
//
// # What AMQP cannot do
//
// Look at waiting messages without taking them (Peeker); pause a queue for all
// (Pauser); count what is claimed or delayed, and list all queues (Lengths has
// [broker.Unknown], and with no names the queues of this connection and of dead letters); purge what is delayed; tell priority 0
// from none. A message whose expiration property has passed is dropped by
// RabbitMQ itself. Quorum queues put what is handed back at the end, and know no
// priorities before RabbitMQ 4. Numbers in headers travel as numbers: 2.50
// arrives as 2.5, and whole ones have 64 bits.
package amqpbroker
