package build

import "syscall"

// dieWithParent lets the kernel kill a program when this process is killed and
// can no longer do it.
func dieWithParent(attr *syscall.SysProcAttr) { attr.Pdeathsig = syscall.SIGKILL }

// ownMounts gives a program a view of mounts of its own, so that what it mounts
// is gone with it, even if it is killed.
func ownMounts(attr *syscall.SysProcAttr) { attr.Unshareflags = syscall.CLONE_NEWNS }
