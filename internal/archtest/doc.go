// Package archtest holds tests over the project as a whole: which package may
// import which, what source files may do, and that docs/parity.md is complete
// and true. It has no code of its own.
package archtest
