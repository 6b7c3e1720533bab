//go:build !linux

package host

import "syscall"

// mounted says nothing where no node image is built.
func mounted(*Space, *syscall.Statfs_t) {}
