// Package protocol holds what Celery puts on the wire and into result stores,
// as plain data: the task message (versions 1 and 2), its headers and body,
// signatures, the result record and the form of an error.
//
// The package does no I/O and knows no broker, no backend and no task. Bodies
// and arguments stay raw JSON text wherever they are only passed on, so that a
// retry, a callback or a dead letter re-sends the bytes it got.
//
// Names of fields follow Celery's message protocol reference, version 2.
package protocol
