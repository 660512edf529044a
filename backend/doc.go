// Package backend is the contract between Lovage and the stores that keep
// results. A driver implements [Backend] and whichever optional interfaces its
// store can honour:
//
//	feature                              interface
//	-----------------------------------  -----------
//	wake a waiting client                Watcher
//	saved groups                         GroupStore
//	run a message marked once only once  OnceClaimer
//	count lost workers by task id        LossCounter
//	count the members of chords          ChordCounter
//	delete expired results               Cleaner
//
// Records are opaque: the core encodes and decodes them, so that every store
// holds Celery's own document.
//
// # Sticky success
//
// A record in state SUCCESS is never overwritten by another state: a duplicate
// that fails later must not undo a result. Store drops such a write silently,
// as Celery does.
package backend
