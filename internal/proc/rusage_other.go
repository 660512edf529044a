//go:build !unix

package proc

// Rusage is empty: this system does not tell.
func Rusage() map[string]any { return map[string]any{} }
