// Package backendtest is the suite that every result backend must pass.
//
// As in brokertest the cases follow from the optional interfaces and Features
// that a driver shows, the harness names in Lacks what it does not have, and a
// difference between the two fails the suite. The cases that are left out are
// logged with the reason. Every case opens a store of its own.
package backendtest
