// Package faults does to workers what networks and servers do, and holds a
// ledger against what comes of it. It is tests only. A driver brings its
// servers, a proxy before them and the faults of its own kind; what is done to
// the network, and what must be true afterwards, is the same for all.
package faults
