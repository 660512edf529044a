// Package endtoend holds tests of whole ways through the system: hand-made
// bytes in a real store, a real worker that meets them, the client that waits,
// and the command line with which an operator looks after what is left.
package endtoend
