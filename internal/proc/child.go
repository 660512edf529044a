package proc

import (
	"os"
	"sync"
)

// ChildKey is the environment variable that marks a child of a process pool.
// Its value is the version of the protocol that its parent speaks.
const ChildKey = "LOVAGE_POOL_CHILD"

// child is read once, before anything that the process starts can inherit it.
var child = sync.OnceValue(func() string {
	v := os.Getenv(ChildKey)
	if v != "" {
		_ = os.Unsetenv(ChildKey)
	}
	return v
})

// Child returns the mark of a pool's child, "" for any other process. The mark
// is removed from the environment at the first call, so that programs which a
// task starts do not take it for theirs.
func Child() string { return child() }

// IsChild reports whether this process is a child of a process pool.
func IsChild() bool { return Child() != "" }
