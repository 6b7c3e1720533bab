package sidecar

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"maps"
	"net/netip"
	"path"
	"slices"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/mount"
	"github.com/moby/moby/api/types/network"
	"github.com/testcontainers/testcontainers-go"
)

// Volume is a folder that outlives a container. The engine makes it with the first
// container that names it, and gives it that container's labels.
type Volume struct {
	Name string
	// Folder is where the container has it.
	Folder   string
	ReadOnly bool
}

// labelMade is the label with a digest of what a container was made of, as far as the
// engine does not tell in a form that can be compared.
const labelMade = "dev.fedlab.sidecar.made"

// made returns that digest, half of it: it does not lead back to the content of a file.
// It is empty for a spec that asks for nothing of this. joined is the container that
// spec.Joins names.
func (s Spec) made(joined string) string {
	of := struct {
		Joined, User          string
		Command, Capabilities []string
		Address               netip.Addr
		Volumes               []Volume
		Files                 map[string][]byte
		Names                 map[string]netip.Addr `json:",omitempty"`
	}{Names: s.Names, Joined: joined, User: s.User, Command: s.Command, Capabilities: s.Capabilities, Address: s.Address, Volumes: s.Volumes, Files: s.Files}
	if of.Joined+of.User == "" && of.Command == nil && of.Capabilities == nil && !of.Address.IsValid() && of.Volumes == nil && of.Files == nil && of.Names == nil {
		return ""
	}
	text, err := json.Marshal(of)
	if err != nil {
		panic(err) // texts, an address and bytes
	}
	sum := sha256.Sum256(text)
	return hex.EncodeToString(sum[:sha256.Size/2])
}

// labels returns those of a container.
func (s Spec) labels(joined string) map[string]string {
	all := maps.Clone(s.Labels)
	if made := s.made(joined); made != "" {
		if all == nil {
			all = map[string]string{}
		}
		all[labelMade] = made
	}
	return all
}

// ports returns those that are published.
func (s Spec) ports() []uint16 {
	ports := slices.Clone(s.Published)
	if s.Control != 0 {
		ports = append(ports, s.Control)
	}
	return ports
}

// request is what testcontainers-go makes a container of.
func (s Spec) request(joined string, seed map[string][]byte) testcontainers.ContainerRequest {
	r := testcontainers.ContainerRequest{
		Name:       s.Name,
		Image:      s.Image,
		Env:        s.Env,
		Entrypoint: s.Command,
		// testcontainers-go adds some of its own.
		Labels:   s.labels(joined),
		Networks: []string{s.Network},
		// Without an address they would be published on all of this machine's.
		HostConfigModifier:       func(h *container.HostConfig) { s.host(h, joined) },
		EndpointSettingsModifier: s.endpoint,
		Files:                    append(files(s.Files), files(seed)...),
	}
	for _, port := range s.ports() {
		r.ExposedPorts = append(r.ExposedPorts, portName(port))
	}
	if s.User != "" {
		r.ConfigModifier = func(c *container.Config) { c.User = s.User }
	}
	return r
}

func (s Spec) host(h *container.HostConfig, joined string) {
	publish(h, s.ports()...)
	if joined != "" {
		h.PidMode = container.PidMode("container:" + joined)
	}
	if s.Capabilities != nil {
		h.CapDrop, h.CapAdd = []string{"ALL"}, s.Capabilities
	}
	for _, name := range slices.Sorted(maps.Keys(s.Names)) {
		h.ExtraHosts = append(h.ExtraHosts, name+":"+s.Names[name].String())
	}
	for _, v := range s.Volumes {
		h.Mounts = append(h.Mounts, mount.Mount{
			Type: mount.TypeVolume, Source: v.Name, Target: v.Folder, ReadOnly: v.ReadOnly,
			VolumeOptions: &mount.VolumeOptions{Labels: maps.Clone(s.Labels)},
		})
	}
}

func (s Spec) endpoint(on map[string]*network.EndpointSettings) {
	// A network that is not there is not among them: start looks for it.
	if settings := on[s.Network]; settings != nil && s.Address.IsValid() {
		settings.IPAMConfig = &network.EndpointIPAMConfig{IPv4Address: s.Address}
	}
}

// files are copied in when a container is made, in the order of their paths. Any program
// in the container may read them, and none but root may write.
func files(contents map[string][]byte) (all []testcontainers.ContainerFile) {
	for _, name := range slices.Sorted(maps.Keys(contents)) {
		all = append(all, testcontainers.ContainerFile{Reader: bytes.NewReader(contents[name]), ContainerFilePath: path.Clean(name), FileMode: 0o644})
	}
	return all
}
