//go:build race

package worker_test

// raced: the race detector multiplies memory.
const raced = 3
