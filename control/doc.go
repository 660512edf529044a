// Package control is Celery's remote control: requests that are broadcast to
// workers, and their replies, in the form of kombu's pidbox.
//
// A [Client] broadcasts a [Request] on the fan-out exchange celery.pidbox and
// collects a [Reply] from each node that answers in time. A worker opens a
// [Mailbox] on its connection, which runs the [Command] that a request names
// against the worker, seen through [Node]. Python's clients and workers take
// part in both directions.
//
// Anyone who can publish to the broker can control the workers: a fleet that
// shares a broker with strangers switches worker_enable_remote_control off.
package control
