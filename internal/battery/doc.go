// Package battery is the crash battery: real processes on one embedded store,
// killed and stopped at random, judged by a ledger that is kept outside of the
// store. It has two sizes of the same code: a short one with a fixed seed in
// make test, and make battery, whose report is kept in docs/battery.md.
package battery
