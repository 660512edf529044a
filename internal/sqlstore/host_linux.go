package sqlstore

import (
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// leaseNow is the clock of leases, in microseconds: the machine's monotonic
// clock, which all its processes share, which no correction of the date moves
// and which stands still while the machine sleeps.
func leaseNow() int64 {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts); err != nil {
		return time.Now().UnixMicro()
	}
	return ts.Nano() / 1000
}

// bootID names the run of the kernel that leaseNow belongs to.
func bootID() string {
	id, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(id))
}

// nap sleeps more exactly than a runtime timer does in an idle process.
func nap(d time.Duration) {
	ts := unix.NsecToTimespec(int64(d))
	_ = unix.Nanosleep(&ts, nil) // a signal may cut it short
}

// networkFS names the network file system that dir is on, or gives "".
func networkFS(dir string) string {
	var st unix.Statfs_t
	if unix.Statfs(dir, &st) != nil {
		return "" // opening will tell
	}
	return networkMagic(uint32(st.Type))
}

func networkMagic(magic uint32) string {
	switch magic {
	case unix.NFS_SUPER_MAGIC:
		return "NFS"
	case unix.SMB_SUPER_MAGIC:
		return "SMB"
	case unix.CIFS_SUPER_MAGIC, unix.SMB2_SUPER_MAGIC:
		return "CIFS"
	case unix.CEPH_SUPER_MAGIC:
		return "Ceph"
	case unix.AFS_SUPER_MAGIC, unix.AFS_FS_MAGIC:
		return "AFS"
	case unix.V9FS_MAGIC:
		return "9P"
	case unix.CODA_SUPER_MAGIC:
		return "Coda"
	case unix.NCP_SUPER_MAGIC:
		return "NCP"
	case unix.OCFS2_SUPER_MAGIC:
		return "OCFS2"
	case unix.FUSE_SUPER_MAGIC:
		return "FUSE"
	case 0x01161970:
		return "GFS2"
	case 0x0bd00bd0:
		return "Lustre"
	case 0x19830326:
		return "BeeGFS"
	case 0x47504653:
		return "GPFS"
	}
	return ""
}
