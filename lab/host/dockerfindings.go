package host

import (
	"fmt"
	"strings"
)

func (m Machine) dockerClient() Finding {
	f := Finding{Subject: "docker client", Seen: m.Programs["docker"]}
	if f.Seen != "" {
		return f
	}
	f.Level, f.Seen, f.Need = Missing, "no docker in PATH", "the docker command, which kind calls"
	f.Cure = m.dockerInstallation()
	return m.repair(f, packages(m.dockerPackages()))
}

// dockerDaemon judges whether Docker can be reached where the client looks for
// it. Only the daemon of this machine is ever installed or started.
func (m Machine) dockerDaemon() Finding {
	d := m.Docker
	f := Finding{Subject: "docker daemon"}
	if d.Answers {
		f.Seen = fmt.Sprintf("%s at %s", d.Version, d.Endpoint)
		return f
	}
	f.Level, f.Seen, f.Need = Missing, "does not answer at "+d.Endpoint, "a Docker daemon that answers"
	if d.Problem != "" {
		f.Seen = d.Problem
	}
	_, invalid := readSettings(d.Config)
	install := m.dockerPackages()
	switch {
	case !d.Local:
		f.Cure = "start the daemon there, or unset DOCKER_HOST and choose another one with: docker context use"
		return f
	case invalid != nil:
		f.Seen, f.Cure = invalid.Error(), "repair "+daemonConfig
		return f
	case len(install) > 0:
		f.Seen, f.Cure = "not installed", m.dockerInstallation()
		return m.repair(f, packages(install), start{m.Systemd})
	case d.PID != 0 && !m.Root:
		f.Cure = "let your user reach it, and log in again; as root: usermod -aG docker USER"
	case m.Systemd:
		f.Cure = "as root: systemctl start docker"
	default:
		f.Cure = "as root: dockerd"
	}
	return m.repair(f, start{m.Systemd})
}

// dockerReach judges whether the ports that Docker publishes are on this machine: the
// Kubernetes APIs and pages are reached by them.
func (m Machine) dockerReach() Finding {
	f := Finding{Subject: "published ports", Seen: "on this machine"}
	if m.Docker.OutOfReach != "" {
		f.Level, f.Seen = Missing, m.Docker.OutOfReach
		f.Need = "a Docker on this machine itself"
		f.Cure = "choose one: 'docker context ls' lists them, 'docker context use' chooses; or name its socket in DOCKER_HOST"
	}
	return f
}

// dockerPackages are those that a working Docker still lacks here. A daemon
// that answers has its iptables, wherever it runs.
func (m Machine) dockerPackages() []string {
	var names []string
	if m.Programs["docker"] == "" || m.Programs["dockerd"] == "" {
		names = append(names, "docker.io")
	}
	if m.Programs["iptables"] == "" {
		names = append(names, "iptables")
	}
	return names
}

func (m Machine) dockerInstallation() string {
	if m.Debian {
		return m.installation("docker.io", "iptables")
	}
	return "install Docker: https://docs.docker.com/engine/install/"
}

// capabilities judges whether a privileged container can start. kind's nodes
// are privileged, and Docker gives such a container every capability of the
// kernel.
func (m Machine) capabilities() Finding {
	f := Finding{Subject: "capabilities", Seen: "complete"}
	if m.Docker.Answers && m.Docker.PID == 0 {
		f.Level, f.Seen = Note, "not known: the daemon is not among the processes seen here"
		return f
	}
	if len(m.MissingCapabilities) == 0 {
		return f
	}
	r := runtimeWithout(m.MissingCapabilities)
	f.Seen = "the bounding set lacks " + strings.Join(m.MissingCapabilities, ", ")
	f.Need = "an OCI runtime that does without, as Docker's default"
	next, err := r.register(m.Docker.Config)
	registered := m.RuntimeBuilt && string(next) == string(m.Docker.Config)
	switch {
	case err != nil:
		f.Level, f.Seen, f.Cure = Missing, f.Seen+"; "+err.Error(), "repair "+daemonConfig
		return f
	case !registered && m.Docker.conflict() != "":
		f.Level, f.Seen = Missing, f.Seen+"; dockerd was started with "+m.Docker.conflict()
		f.Cure = "start dockerd without that flag, and say the same in " + daemonConfig
		return f
	case !registered && m.Programs["go"] == "":
		f.Level, f.Seen = Missing, f.Seen+"; no go in PATH"
		f.Cure = installGo
		return f
	case !registered:
		f.Level, f.Cure = Missing, "as root, on Debian or Ubuntu: fedlab setup"
		return m.repair(f, append(append([]Remedy{r}, m.reload()...), prove{})...)
	case m.Docker.Answers && m.Docker.DefaultRuntime != runtimeName:
		f.Level, f.Seen = Missing, f.Seen+"; Docker has not read "+daemonConfig
		f.Cure = "as root: systemctl reload docker, or send dockerd the signal HUP"
		return m.repair(f, m.reload()...)
	}
	f.Seen, f.Need = f.Seen+"; Docker's default runtime does without", ""
	return f
}

// conflict returns the flag of a daemon that runs by which daemon.json cannot
// choose its runtime: what is said in both keeps it from starting again.
func (d Docker) conflict() string {
	for _, flag := range d.Flags {
		for _, taken := range []string{"--default-runtime", "--add-runtime", "--config-file"} {
			if name, value, _ := strings.Cut(flag, "="); name == taken && value != daemonConfig {
				return flag
			}
		}
	}
	return ""
}

// reload makes a daemon that runs read its settings; one that does not run
// reads them when it starts.
func (m Machine) reload() []Remedy {
	if m.Docker.PID == 0 {
		return nil
	}
	return []Remedy{reload{m.Docker.PID}}
}
