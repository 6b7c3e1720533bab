//go:build !linux

package build

import "syscall"

func dieWithParent(*syscall.SysProcAttr) {}

func ownMounts(*syscall.SysProcAttr) {}
