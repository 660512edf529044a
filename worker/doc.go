// Package worker consumes queues and runs their tasks.
//
//	err := worker.New(app, worker.Config{Queues: []string{"math"}}).Run(ctx)
//
// A worker does what Celery's parent process does: it claims messages, decides
// what becomes of each (run, expire, revoke, park, refuse), keeps time limits
// and leases, settles, and tells monitors. What its child process does, the run
// itself with hooks, result and callbacks, is [lovage.App.Execute].
//
// # Claims
//
// A slot is taken before a message is: a worker claims as many messages as it
// has free slots, and ahead of that only what it can start within about 75 ms by
// the run times it has seen. What was claimed ahead and has waited for a second
// goes back to its queue, where another worker finds it.
//
// # Pools
//
// Runs are goroutines of this process, or happen in children of it: processes
// that are the same program, started once more (Pool: "prefork", and tasks
// declared with [lovage.Isolated]). Only a child can be killed, and only its
// crash costs nobody else anything. In a child main runs as in its parent, up to
// Run, which does not return there: guard with [lovage.IsChild] what must happen
// once. Prefork needs Linux.
//
// # Connections
//
// Execution belongs to the worker and claims belong to a connection. A lost
// connection, or one that has stalled, is replaced by a new one that is built
// from what was declared, never mended; its runs go on and are settled through
// the connection they came by.
//
// # Ends of runs
//
// The finishes of many runs are committed together: follow-ups, results and
// settlements in one transaction where broker and result store are one store,
// else in Celery's order. While the store is away finishes wait, bounded, and
// their claims are renewed.
package worker
