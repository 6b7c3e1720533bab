package host

import "syscall"

// Flags and types of statfs(2).
const (
	noDevices  = 0x4
	noPrograms = 0x8
)

var remote = map[uint32]string{
	0x6969:     "NFS",
	0xff534d42: "CIFS",
	0xfe534d42: "SMB",
	0x01021997: "9P",
}

// mounted says how a file system is mounted.
func mounted(space *Space, stat *syscall.Statfs_t) {
	space.NoDevices = stat.Flags&noDevices != 0
	space.NoPrograms = stat.Flags&noPrograms != 0
	space.Remote = remote[uint32(stat.Type)]
}
