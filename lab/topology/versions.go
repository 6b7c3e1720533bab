package topology

import (
	"slices"
	"strconv"
	"strings"
)

// SPIREVersion is the version of SPIRE that is in every node.
const SPIREVersion = "1.15.3"

// SPIREVersions are those that a trust domain may have, the newest first: the last of three
// minor versions. Those after the first are optional programs.
func SPIREVersions() []string { return []string{SPIREVersion, "1.14.5", "1.13.3"} }

// Successive reports whether a SPIRE server may be replaced by one of another version: of the
// same minor version, or of the one before or after (SPIRE doc/upgrading.md;
// pkg/server/datastore/sqlstore/migration.go, isCompatibleCodeVersion).
func Successive(from, to string) bool {
	return slices.Contains([]int{-1, 0, 1}, minor(from)-minor(to))
}

// NextSPIRE returns the version that comes after one of SPIREVersions, as Settings have it.
func NextSPIRE(version string) string {
	all := SPIREVersions()
	if i := slices.Index(all, version); i > 1 {
		return all[i-1]
	}
	return ""
}

// OldEnough reports whether agents of a version may have servers of another: of their own
// minor version, or of the one after.
func OldEnough(agent, server string) bool {
	return slices.Contains([]int{0, 1}, minor(server)-minor(agent))
}

// minor is the minor part of one of SPIREVersions, whose major part is 1.
func minor(version string) int {
	parts := strings.Split(version, ".")
	n, _ := strconv.Atoi(parts[min(1, len(parts)-1)]) // the file has been checked
	return n
}

// OtherServer and OtherAgent are what the programs of another version of SPIRE are called
// among the optional ones; they are empty for the version that is in every node.
func (s Settings) OtherServer() string { return otherSPIRE("spire-server", s.SPIREVersion) }

// OtherAgent is OtherServer for the agents.
func (s Settings) OtherAgent() string { return otherSPIRE("spire-agent", s.AgentVersion) }

func otherSPIRE(program, version string) string {
	if version == "" {
		return ""
	}
	return program + "-" + version
}
