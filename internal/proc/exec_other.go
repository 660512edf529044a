//go:build !unix

package proc

import "errors"

func execute(string, []string, []string) error {
	return errors.New("this system cannot replace the program of a process")
}
