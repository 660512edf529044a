// Package battery is the crash battery: real processes on one store, killed and
// stopped at random, harmed by their own tasks, cut off from their servers, and
// judged by a ledger that is kept outside of the store. It has two sizes of the
// same code: a short one with a fixed seed in make test, and make battery and
// make soak, whose reports are kept in docs.
package battery
