//go:build !linux

package images

import "syscall"

func dieWithParent(*syscall.SysProcAttr) {}

func ownMounts(*syscall.SysProcAttr) {}
