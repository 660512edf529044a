// Package jsontext hands out the elements of a JSON array or the members of an object
// as the bytes they were sent with, and builds no values.
//
// It is the loop around [pyjson.Scanner]: all that is walked, nested values included,
// is checked to be JSON as Python reads it, in valid UTF-8. Limits on size and number
// of values are the caller's: a body is checked against them before it comes here.
//
// Nothing here keeps state between calls; all functions may be used concurrently.
package jsontext
