package proc

import (
	"fmt"
	"os"
)

// Place is where a process was started: what it takes to start it again.
type Place struct {
	dir, executable string
	err             error
}

// Here is the place of this process, asked for before it changes directory.
func Here() (p Place) {
	if p.executable, p.err = os.Executable(); p.err == nil {
		p.dir, p.err = os.Getwd()
	}
	return p
}

// restartedKey marks, in the environment, a program that Restart executed.
const restartedKey = "LOVAGE_RESTARTED"

// restarted is taken before anything else reads the environment.
var restarted = func() bool {
	defer os.Unsetenv(restartedKey)
	return os.Getenv(restartedKey) != ""
}()

// Restarted reports whether this process executed its program again. Such a one
// may have SIGHUP ignored from before, and not by nohup.
func Restarted() bool { return restarted }

// Restart executes the program again, with the same arguments, environment and
// process id, from the file that it was started from: a new version of it if
// the file has been replaced. It returns only with an error.
func (p Place) Restart() error {
	err := p.err
	if err == nil {
		err = os.Chdir(p.dir)
	}
	if err == nil {
		err = execute(p.executable, os.Args, append(os.Environ(), restartedKey+"=1"))
	}
	return fmt.Errorf("start %s again: %w", p.executable, err)
}
