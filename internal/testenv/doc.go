// Package testenv starts real servers for tests: on loopback, on a port of
// their own, without files that outlive the test. A server dies with the test
// process, however that ends. A missing program fails the test and says how to
// get it.
package testenv
