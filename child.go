package lovage

import "github.com/lovage-go/lovage/internal/proc"

// IsChild reports whether this process is a child of a process pool: a second
// run of the same program, which executes tasks for the worker that started
// it. What main does before it starts the worker runs in children too; guard
// with IsChild what must happen once, such as opening a port.
func IsChild() bool { return proc.IsChild() }
