package host

import (
	"fmt"
	"strconv"
	"strings"
)

// capabilityNames are numbered as in the kernel's linux/capability.h.
var capabilityNames = strings.Fields(`
	CAP_CHOWN CAP_DAC_OVERRIDE CAP_DAC_READ_SEARCH CAP_FOWNER CAP_FSETID
	CAP_KILL CAP_SETGID CAP_SETUID CAP_SETPCAP CAP_LINUX_IMMUTABLE
	CAP_NET_BIND_SERVICE CAP_NET_BROADCAST CAP_NET_ADMIN CAP_NET_RAW
	CAP_IPC_LOCK CAP_IPC_OWNER CAP_SYS_MODULE CAP_SYS_RAWIO CAP_SYS_CHROOT
	CAP_SYS_PTRACE CAP_SYS_PACCT CAP_SYS_ADMIN CAP_SYS_BOOT CAP_SYS_NICE
	CAP_SYS_RESOURCE CAP_SYS_TIME CAP_SYS_TTY_CONFIG CAP_MKNOD CAP_LEASE
	CAP_AUDIT_WRITE CAP_AUDIT_CONTROL CAP_SETFCAP CAP_MAC_OVERRIDE
	CAP_MAC_ADMIN CAP_SYSLOG CAP_WAKE_ALARM CAP_BLOCK_SUSPEND CAP_AUDIT_READ
	CAP_PERFMON CAP_BPF CAP_CHECKPOINT_RESTORE`)

// missingCapabilities compares the bounding set in a /proc/PID/status with the
// number of the kernel's last capability. One without a name here is left
// out: Docker knows it no better, and so never asks for it.
func missingCapabilities(status, lastCapability string) ([]string, error) {
	last, err := strconv.Atoi(lastCapability)
	if err != nil {
		return nil, fmt.Errorf("read the kernel's last capability: %w", err)
	}
	var bounding uint64
	value, err := valueOf(status, "CapBnd")
	if err == nil {
		bounding, err = strconv.ParseUint(value, 16, 64)
	}
	if err != nil {
		return nil, fmt.Errorf("read the bounding set: %w", err)
	}
	var missing []string
	for number, name := range capabilityNames {
		if number <= last && bounding&(1<<number) == 0 {
			missing = append(missing, name)
		}
	}
	return missing, nil
}
