package build

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"

	"github.com/fedlab-dev/fedlab/lab/images/store"
)

// Suite is the Debian release that the node's root file system is made of. Its
// systemd is the newest that boots on machines with cgroup v1, too.
const Suite = "bookworm"

// RootfsPackages lists what a kind node needs beyond a minimal Debian: an init
// system, what Kubernetes and kind run in the node, and the container runtime.
func RootfsPackages() []string {
	return []string{
		"systemd", "dbus", "util-linux", "mount", "kmod", "procps", "e2fsprogs", "libseccomp2", "pigz", "jq", "curl", "ca-certificates",
		"iproute2", "iptables", "nftables", "ebtables", "ethtool", "conntrack", "socat",
		"containerd", "runc", "containernetworking-plugins",
	}
}

// unwanted lists paths of the fresh root file system that a node must not have
// or does not need; patterns as of path/filepath.Match.
func unwanted() []string {
	return []string{
		// Units that make no sense in a container (kind's Dockerfile removes
		// the same): only what the node image enables is started.
		"lib/systemd/system/sysinit.target.wants/systemd-tmpfiles-setup.service",
		"lib/systemd/system/multi-user.target.wants/*",
		"etc/systemd/system/*.wants/*",
		"lib/systemd/system/local-fs.target.wants/*",
		"lib/systemd/system/sockets.target.wants/*udev*",
		"lib/systemd/system/sockets.target.wants/*initctl*",
		"lib/systemd/system/basic.target.wants/*",
		// Weight without use in a lab.
		"var/cache/apt/archives/*.deb", "var/cache/apt/*.bin", "var/lib/apt/lists/*", "var/log/*.log",
		"usr/share/doc/*", "usr/share/man/*", "usr/share/locale/*", "usr/share/info/*",
		// Two nodes must not have the same.
		"etc/machine-id", "var/lib/dbus/machine-id",
	}
}

// RootfsKey is the key of what Rootfs makes.
func RootfsKey() string {
	return store.Key("rootfs 3", runtime.GOARCH, Suite, strings.Join(RootfsPackages(), " "), strings.Join(unwanted(), " "))
}

// debootstrap returns the arguments with which debootstrap takes packages from
// Debian's archive. Without --force-check-gpg it goes on without a signature, or
// turns to another mirror, where the machine has no keyring of Debian.
func debootstrap(packages []string, root string, flags ...string) []string {
	args := append([]string{"--force-check-gpg", "--variant=minbase"}, flags...)
	return append(args, "--include="+strings.Join(packages, ","), Suite, root)
}

// RootfsFile has the root file system in the artifact's folder.
const RootfsFile = "rootfs.tar"

// Rootfs makes dir/[RootfsFile] from Debian packages, whose signatures
// debootstrap checks with the archive's keyring. It needs root.
func Rootfs(ctx context.Context, dir string, log *os.File) error {
	root := filepath.Join(dir, "rootfs")
	run := func(name string, args ...string) error {
		cmd := command(ctx, name, args...)
		cmd.Stdout, cmd.Stderr = log, log
		// debootstrap mounts proc in the new system: killed, it must not leave
		// that to whoever removes the folder.
		ownMounts(cmd.SysProcAttr)
		if _, err := fmt.Fprintf(log, "+ %s %s\n", name, strings.Join(args, " ")); err != nil {
			return err
		}
		if err := cmd.Run(); err != nil {
			return fmt.Errorf("run %s: %w", name, err)
		}
		return nil
	}
	if err := run("debootstrap", debootstrap(RootfsPackages(), root)...); err != nil {
		return err
	}
	for _, pattern := range unwanted() {
		found, err := filepath.Glob(filepath.Join(root, pattern))
		if err != nil {
			return err
		}
		for _, path := range found {
			if err := os.RemoveAll(path); err != nil {
				return err
			}
		}
	}
	tarball := filepath.Join(dir, RootfsFile)
	if err := run("tar", "--create", "--file", tarball, "--directory", root, "--numeric-owner", "--sort=name", "."); err != nil {
		return err
	}
	return os.RemoveAll(root)
}
