package recipe

import "github.com/fedlab-dev/fedlab/lab/images/build"

// Component is something that runs in a lab, and its version.
type Component struct {
	Name    string `json:"name"`
	Version string `json:"version"`
}

// Components returns what the images of a lab hold, with the versions that the
// catalogue pins.
func Components() []Component {
	// A node image that was pulled stands on kind's own, and one that was built on
	// Debian: neither names its versions of these before it is there.
	const ofNode = "of Debian " + build.Suite + " in a built node image, of kind's in a pulled one"
	all := []Component{
		{"Kubernetes", kubernetesVersion},
		{"kind", kindVersion},
		{"etcd", etcdVersion},
		{"CoreDNS", corednsVersion},
		{"pause", pauseVersion},
		{"containerd", ofNode},
		{"runc", ofNode},
		{"MetalLB", metallbVersion},
		{"SPIRE", spireVersion},
		{"SPIRE Controller Manager", controllerManagerVersion},
		{"PostgreSQL", postgresVersion + " of Debian " + build.Suite},
	}
	for _, o := range Optionals() {
		all = append(all, Component{o.Name, o.version() + ", in labs that ask for it"})
	}
	return all
}
