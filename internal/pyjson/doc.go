// Package pyjson scans and writes JSON text as Python's json module does: the
// bare words NaN, Infinity and -Infinity are numbers, and output is ASCII with
// \uXXXX escapes. It works on text, never on reflected values, so that callers
// can pass on the parts that they do not look into.
package pyjson
