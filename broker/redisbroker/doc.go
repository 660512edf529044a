// Package redisbroker is the broker on Redis, in the key and message layout of
// kombu 5.6, so that Python's Celery and Go share queues message by message.
// Importing it makes the URL schemes redis, rediss, redis+socket, sentinel and
// rediscluster (also redis+cluster, and rediss+cluster with TLS) available; see
// [Open] for the options.
//
// # Keys
//
// All begin with the option global_keyprefix. Those of kombu:
//
//	<queue>, <queue> 06 16 <step>   lists, one for each priority step; producers push left
//	_kombu.binding.<exchange>       set of routing key 06 16 pattern 06 16 queue
//	/{db}.<exchange>[/<key>]        channels of fanout exchanges
//	unacked                         hash of claimed messages: [envelope, exchange, routing key]
//	unacked_index                   sorted set of the claims by the time of their last sign of life
//
// Ours, which kombu does not look at:
//
//	lovage.workers                  sorted set of consumers by when their claims lapse
//	lovage.parked.<queue>           sorted set of delayed messages by when they are due, and
//	lovage.parked.<queue>.raw       hash of their envelopes
//	lovage.consumers.<queue>        sorted set of the Go consumers of a queue, by when they lapse
//	lovage.dead, lovage.dead.index  hash and order of dead letters; lovage.dead.index.<queue>
//	lovage.paused, lovage.queues    sets of queue names
//	lovage.exchanges                hash of the types of exchanges
//	lovage.fanout.<exchange>        set of the queues bound to a fanout exchange
//	lovage.heard.<queue>.<hash>     that a queue has a message of a channel; 5 minutes
//
// # Claims
//
// One script moves messages from the lists to unacked under fields of our own,
// lv1:<consumer>:<number>:<list>, new for each claim: what another has taken
// over cannot be settled by the old holder. Claims of a living consumer are
// re-scored by the server's clock every third of the lease, so that neither
// kombu's visibility timeout (at least 60 s, please) nor another Go worker gives
// a running message back. Claims of a dead one are given back by any other Go
// consumer of the same database within a second of the end of its lease; with
// none left, kombu's sweep finds them: it restores ten at a time, every 100 s.
// What a worker takes back that it had itself, by a connection that was away for
// longer than the lease or by a claim whose answer was lost, is no orphan.
//
// What a message has been through (redelivered, orphaned, losses) travels in the
// delivery_info of its envelope, where kombu keeps redelivered.
//
// # Fanout
//
// kombu publishes to the channels of a fanout exchange and keeps no list: each
// Python worker that listens has a copy, and what nobody hears is gone. Here too
// a message is published there, and it is put into the list of each Go queue that
// is bound to the exchange. A Go consumer of such a queue listens besides, and
// puts what Python published into the queue's list, once, however many consumers
// hear it; from there on it is claimed, renewed and settled like others. What is
// heard and cannot be put there yet is kept, 10,000 messages at most; then the
// oldest are lost, and an error in the log says how many. What Python publishes
// while no Go consumer listens, or its connection is away, is not heard.
//
// In a cluster all of this goes over one master: the bus between the nodes would
// bring events out of order, and to who listens since.
//
// A queue that deletes itself ([broker.Broadcast]) has its list only while it is
// consumed from; its consumer takes all from the channel. After a crash its binding
// and its list are left, as kombu's are.
//
// # Waiting
//
// An idle consumer has the server tell it when one of its keys changes (CLIENT
// TRACKING, Redis 6 and later): one connection whatever the number of queues,
// and it hears Python's producers. Where that is not to be had it polls, ever
// more slowly, every half second at last.
//
// # Delay
//
// A message that is not due is parked in the server, whatever their number and
// however far ahead, and comes to the head of its queue when it is due, by the
// server's clock. Go consumers bring it there, so a message with an ETA header is
// parked only if its queue has one; otherwise it is sent as Celery does, and a
// Python worker waits with it. The last Go consumer of a queue gives what is
// parked back as plain messages when it is closed and Python workers are about;
// after a crash [Conn.Unpark] does that.
//
// # Cluster
//
// kombu has no Redis Cluster, so this is between Go programs. What one script may
// touch must be in one slot there. Each queue has its slot, by the hash tag of its
// name, and all of its own is in it:
//
//	{<queue>}, {<queue>} 06 16 <step>    its lists
//	{<queue>}.unacked, {<queue>}.unacked_index
//	{<queue>}.lovage.…                   the rest, under the names above
//
// The table of bindings and the sets of names are one key each, in slots of their
// own. A consumer claims from each queue by a script of its own, in turn, so that
// priority orders one queue, not all queues of a consumer, and hears of each queue
// by a connection of its own. Claims of a dead consumer are given back by those
// who consume from the same queue. Results are in other slots than queues, so the
// result, what follows and the end of the claim are three steps, in this order, as
// with a broker and a store that are two systems; and queues of one publish are
// written one after another. Ids of dead letters are <number>@<queue>. The names of
// queues cannot begin with a }.
//
// Redis confirms a write before its replicas have it. What a master had confirmed
// and no replica had got is lost when it dies; so may be the end of a claim, and
// then its message runs again. While a slot moves to another node its queue waits:
// what takes more than one key is refused until all keys have arrived.
//
// # Priority
//
// 0 is the best, as in kombu and opposite to RabbitMQ. All queues of a consumer
// take turns within one step, and a better step always goes first.
package redisbroker
