//go:build !unix

package proc

import "errors"

// Become is for systems with users by number.
func Become(userName, groupName string) error {
	if userName == "" && groupName == "" {
		return nil
	}
	return errors.New("this system does not let a process change its user: start it as the user it is to run as")
}

// Umask is for systems with permissions of that kind.
func Umask(string) error { return errors.New("this system has no file mode mask") }
