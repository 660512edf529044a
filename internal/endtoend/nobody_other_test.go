//go:build !linux

package endtoend_test

import (
	"errors"
	"os"
	"testing"
)

func becomeNobody() error {
	if os.Getuid() == 0 {
		return errors.New("run the tests as a user other than root: no directory is read-only for it")
	}
	return nil
}

func smallDisk(*testing.T) (string, error) { return "", errors.ErrUnsupported }
