//go:build interop

package bind_test

import (
	"os/exec"
	"testing"
)

// TestPythonBindingLive asks the Python at hand instead of the record of one.
func TestPythonBindingLive(t *testing.T) {
	t.Parallel()
	out, err := exec.CommandContext(t.Context(), "python3", "testdata/python_errors.py").Output()
	if err != nil {
		t.Fatalf("run Python: %v", err)
	}
	comparePython(t, out)
}
