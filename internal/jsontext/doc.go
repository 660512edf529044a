// Package jsontext walks JSON text without building values: an array or an
// object is handed out element by element, each as the bytes it was sent with.
//
// What is walked is checked: every byte, nested values included, must be JSON as
// Python's json module reads it. That is RFC 8259, in valid UTF-8, plus the three
// words NaN, Infinity and -Infinity. Nesting is bounded by [MaxDepth].
//
// Nothing here keeps state between calls; all functions may be used concurrently.
package jsontext
