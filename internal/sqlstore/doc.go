// Package sqlstore is the one SQL design behind Lovage's own broker and result
// tables (prefix lovage_): messages, claims, workers, results, groups, fan-out,
// dead letters and pauses in one database, so that one transaction can span
// what a run causes.
//
// A [DB] is shared by all openers of one file in a process. All writing goes
// through one connection and one goroutine, the committer, which takes whatever
// waits into one transaction (group commit) and answers each. Reading has a few
// connections of its own and never waits for a writer.
//
// # Tables
//
// A message's payload is written once (lovage_message) and never rewritten; its
// place is a short row in exactly one of lovage_ready, lovage_delayed and
// lovage_claim. Claiming and settling therefore touch only a few dense pages,
// whatever the size of the backlog or of what is delayed beside it.
//
// # Claims, leases, fences
//
// A claim belongs to a worker row. The worker's process holds a lock file that
// the kernel releases when the process ends, and renews one lease, not one for
// each message. Who takes over a dead or stopped worker deletes its row and
// moves its claims back in one transaction. Worker ids are never used twice, so
// the id is the fence: a settlement of a worker whose row is gone finds no
// claim and changes nothing ([ErrLeaseLost]).
//
// # Doorbell
//
// After a commit the committer rings the bells that its operations named: in
// this process directly, in others by writing one byte to a file that they
// watch. The file is written after the commit is visible, so who is woken sees
// it. A ring only says "look"; everybody also looks every 250 ms.
package sqlstore
