// Package broker is the contract between Lovage and the systems that carry its
// messages. A driver implements [Conn] and [Consumer] and whichever of the
// optional interfaces its system can honour; Lovage looks for those once, when
// a connection is opened, and names the missing one where a feature needs it.
//
//	feature                               interface
//	------------------------------------  ----------------
//	events, remote control, broadcast     Fanouter
//	replies to remote control in a queue  ReplyQueuer
//	results as messages                   ResultQueuer
//	purge                                 Purger
//	queue lengths                         Lengther
//	list the bindings of exchanges        BindingLister
//	look without taking                   Peeker
//	list what waits for its time          DelayPeeker
//	pause and resume a queue              Pauser
//	delayed messages back to Python       Unparker
//	keep a claim while a task runs        LeaseRenewer   (on the Consumer)
//	count workers lost on a message       LossCounter    (on the Consumer)
//	count them in a copy of the message   LossMarker     (on the Consumer)
//	list, requeue and drop dead letters   DeadLetterer
//	result, follow-ups and ack in one     AtomicFinisher (on the Consumer)
//	publish inside the caller's tx        TxPublisher
//	wait for publisher confirms           Confirmer
//	same store as a result backend        StoreIdentity
//
// What is data and not a method (delay, priority, parking) is in [Features].
//
// # Delivery
//
// A message belongs to a queue until a consumer claims it, to that claim until
// it is settled, and to nobody afterwards. A claim whose holder dies ends, and
// the message is delivered again with Redelivered and Orphaned set. A settlement
// of a claim that has ended changes nothing and is reported as [ErrLeaseLost].
package broker
