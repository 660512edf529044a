//go:build unix

package proc

import (
	"errors"
	"fmt"
	"os/user"
	"slices"
	"strconv"
	"syscall"
)

const noGroup = -1

// Become gives the whole process to a user and a group, by name or number; ""
// leaves the one it has, but a user brings his own groups. Only root may, before
// anything is opened; who is that user already need not be root.
func Become(userName, groupName string) error {
	if userName == "" && groupName == "" {
		return nil
	}
	uid, gid := syscall.Getuid(), syscall.Getgid()
	groups, err := syscall.Getgroups()
	if err != nil {
		return fmt.Errorf("ask for the groups: %w", err)
	}
	if userName != "" {
		if uid, gid, groups, err = lookUpUser(userName); err != nil {
			return err
		}
	}
	if groupName != "" {
		if gid, err = lookUpGroup(groupName); err != nil {
			return err
		}
		if userName == "" {
			groups = []int{gid}
		}
	}
	if gid == noGroup {
		return fmt.Errorf("user %d has no entry, and so no group: name a group too", uid)
	}
	if uid == syscall.Getuid() && uid == syscall.Geteuid() && gid == syscall.Getgid() && gid == syscall.Getegid() {
		return nil
	}
	if syscall.Geteuid() != 0 {
		return fmt.Errorf("run as user %d and group %d: only root may change them, and this process is user %d: start it as root or as that user", uid, gid, syscall.Geteuid())
	}
	return change(uid, gid, groups)
}

// change is done in an order in which each step may still be taken; Go carries
// each out in all threads.
func change(uid, gid int, groups []int) error {
	if !slices.Contains(groups, gid) {
		groups = append(groups, gid)
	}
	if err := syscall.Setgroups(groups); err != nil {
		return fmt.Errorf("set the groups %v: %w", groups, err)
	}
	if err := syscall.Setgid(gid); err != nil {
		return fmt.Errorf("set the group %d: %w", gid, err)
	}
	if uid == 0 {
		return nil
	}
	if err := syscall.Setuid(uid); err != nil {
		return fmt.Errorf("set the user %d: %w", uid, err)
	}
	if syscall.Setuid(0) == nil {
		return errors.New("the process could become root again after it became another user")
	}
	return nil
}

func lookUpUser(name string) (uid, gid int, groups []int, err error) {
	u, err := user.Lookup(name)
	if err != nil {
		if u, err = user.LookupId(name); err != nil {
			if n, e := strconv.Atoi(name); e == nil && n >= 0 {
				return n, noGroup, nil, nil // a number without a name
			}
			return 0, 0, nil, fmt.Errorf("user %q does not exist", name)
		}
	}
	if uid, err = strconv.Atoi(u.Uid); err != nil {
		return 0, 0, nil, fmt.Errorf("user %q has the id %q", name, u.Uid)
	}
	if gid, err = strconv.Atoi(u.Gid); err != nil {
		return 0, 0, nil, fmt.Errorf("user %q has the group %q", name, u.Gid)
	}
	ids, err := u.GroupIds()
	if err != nil {
		return 0, 0, nil, fmt.Errorf("groups of user %q: %w", name, err)
	}
	for _, id := range ids {
		if n, err := strconv.Atoi(id); err == nil {
			groups = append(groups, n)
		}
	}
	return uid, gid, groups, nil
}

func lookUpGroup(name string) (int, error) {
	id := name
	if g, err := user.LookupGroup(name); err == nil {
		id = g.Gid
	}
	n, err := strconv.Atoi(id)
	if err != nil || n < 0 {
		return 0, fmt.Errorf("group %q does not exist", name)
	}
	return n, nil
}

// Umask sets which permissions new files do not get: octal with a leading 0,
// else decimal, as Celery reads it.
func Umask(text string) error {
	mask, err := strconv.ParseUint(text, 0, 32)
	if err != nil || mask > 0o777 {
		return fmt.Errorf("file mode mask %q: want 0 to 0777", text)
	}
	syscall.Umask(int(mask))
	return nil
}
