package recipe

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	"sigs.k8s.io/kind/pkg/apis/config/defaults"

	"github.com/fedlab-dev/fedlab/lab/images/build"
	"github.com/fedlab-dev/fedlab/lab/images/node"
	"github.com/fedlab-dev/fedlab/lab/images/upstream"
)

// Image is one image that is in every node before it boots.
type Image struct {
	// Name is what fedlab calls it.
	Name string
	// Reference is upstream's; the image has it in the cluster whether it was
	// pulled or built, so that charts and kubeadm find it.
	Reference string
	// Digest is upstream's where it is known; a pulled image must have it.
	Digest string
	// Artifact and Program say which program of which artifact it holds when
	// it is built.
	Artifact, Program string
	// Path is where the program lies in the image; it is the entry point.
	Path string
	// Packages are the Debian packages whose files the program needs besides
	// it; most need none.
	Packages []string
	// Kubernetes marks what kind's own node image has in it already, in the
	// version that fits it.
	Kubernetes bool
	// Hosts marks what also runs on hosts outside Kubernetes.
	Hosts bool
}

// Versions of what upstream publishes, besides those that the module files
// under upstream/ pin.
const (
	kindVersion              = "v0.33.0"
	kubernetesVersion        = "v1.36.3"
	etcdVersion              = "3.6.8"
	corednsVersion           = "v1.14.2"
	pauseVersion             = "3.10.2"
	spireVersion             = "1.15.3"
	controllerManagerVersion = "0.7.0"
	metallbVersion           = "v0.16.1"
	postgresVersion          = "15"
)

// References by which charts name what they run.
const (
	SPIREServer            = "ghcr.io/spiffe/spire-server:" + spireVersion
	SPIREAgent             = "ghcr.io/spiffe/spire-agent:" + spireVersion
	SPIREControllerManager = "ghcr.io/spiffe/spire-controller-manager:" + controllerManagerVersion
	MetalLBController      = "quay.io/metallb/controller:" + metallbVersion
	MetalLBSpeaker         = "quay.io/metallb/speaker:" + metallbVersion
	pause                  = "registry.k8s.io/pause:" + pauseVersion
)

// NodeFiles are the files of a node that was built.
func NodeFiles() node.Files { return node.Files{Kubernetes: kubernetesVersion, Pause: pause} }

// Catalogue lists the upstream images, in the order in which documents do.
func Catalogue() []Image {
	kube := func(program string) Image {
		return Image{
			Name: program, Reference: "registry.k8s.io/" + program + ":" + kubernetesVersion,
			Artifact: "kubernetes", Program: program, Path: "/usr/local/bin/" + program, Kubernetes: true,
		}
	}
	// kube-proxy calls iptables; these are its package and those that it is
	// linked with.
	proxy := kube("kube-proxy")
	proxy.Packages = []string{"iptables", "libxtables12", "libip4tc2", "libip6tc2", "libmnl0", "libnftnl11", "libnfnetlink0", "libnetfilter-conntrack3", "libc6"}
	return []Image{
		kube("kube-apiserver"), kube("kube-controller-manager"), kube("kube-scheduler"), proxy,
		{Name: "etcd", Reference: "registry.k8s.io/etcd:" + etcdVersion + "-0", Kubernetes: true, Artifact: "etcd", Program: "etcd", Path: "/usr/local/bin/etcd"},
		{Name: "coredns", Reference: "registry.k8s.io/coredns/coredns:" + corednsVersion, Kubernetes: true, Artifact: "coredns", Program: "coredns", Path: "/coredns"},
		{Name: "pause", Reference: pause, Kubernetes: true, Artifact: "pause", Program: "pause", Path: "/pause"},
		{Name: "spire-server", Reference: SPIREServer, Artifact: "spire", Program: "spire-server", Path: "/opt/spire/bin/spire-server", Hosts: true},
		{Name: "spire-agent", Reference: SPIREAgent, Artifact: "spire", Program: "spire-agent", Path: "/opt/spire/bin/spire-agent", Hosts: true},
		{Name: "spire-controller-manager", Reference: SPIREControllerManager, Artifact: "spire-controller-manager", Program: "spire-controller-manager", Path: "/spire-controller-manager"},
		{Name: "metallb-controller", Reference: MetalLBController, Artifact: "metallb", Program: "controller", Path: "/controller"},
		{Name: "metallb-speaker", Reference: MetalLBSpeaker, Artifact: "metallb", Program: "speaker", Path: "/speaker"},
	}
}

// kindNode is kind's own node image, which a pulled node image is made of. It
// brings the Kubernetes that this version of kind was published with.
func kindNode() Image {
	reference, digest, _ := strings.Cut(defaults.Image, "@")
	return Image{Name: "kind-node", Reference: "docker.io/" + reference, Digest: digest}
}

// Pulled lists the upstream images that source Pull fetches: kind's own node image
// first, then those that it lacks.
func Pulled() []Image {
	all := []Image{kindNode()}
	for _, img := range Catalogue() {
		if !img.Kubernetes {
			all = append(all, img)
		}
	}
	for _, program := range slices.Sorted(maps.Keys(foundations())) {
		all = append(all, foundations()[program].Image)
	}
	return all
}

// otherKindNode is a node image of kind's kind that a person has.
func otherKindNode(reference string) (Image, error) {
	if _, err := name.ParseReference(reference); err != nil {
		return Image{}, fmt.Errorf("read the reference of a node image, want NAME:TAG or NAME:TAG@DIGEST: %w", err)
	}
	tagged, digest, _ := strings.Cut(reference, "@")
	return Image{Name: kindNode().Name, Reference: tagged, Digest: digest}, nil
}

// foundations are what the images of fedlab's own programs stand on, by the
// program's name; most stand on nothing.
func foundations() map[string]Foundation {
	return map[string]Foundation{"postgres": {
		Title: "PostgreSQL " + postgresVersion + " of Debian " + build.Suite,
		Image: Image{Name: "postgresql", Reference: "docker.io/library/postgres:" + postgresVersion + "-" + build.Suite, Artifact: "postgresql"},
		Files: build.Packages{
			User: "postgres:x:999:999:PostgreSQL:/var/lib/postgresql:/usr/sbin/nologin",
			// The server, psql, the shell by which initdb runs programs, time zones,
			// and what these are linked with.
			Names: []string{
				"postgresql-" + postgresVersion, "postgresql-client-" + postgresVersion, "dash", "tzdata",
				"libaudit1", "libc6", "libcap-ng0", "libcap2", "libcom-err2", "libffi8", "libgcc-s1", "libgcrypt20", "libgmp10", "libgnutls30",
				"libgpg-error0", "libgssapi-krb5-2", "libhogweed6", "libicu72", "libidn2-0", "libk5crypto3", "libkeyutils1", "libkrb5-3",
				"libkrb5support0", "libldap-2.5-0", "liblz4-1", "liblzma5", "libnettle8", "libp11-kit0", "libpam0g", "libpq5", "libreadline8",
				"libsasl2-2", "libssl3", "libstdc++6", "libsystemd0", "libtasn1-6", "libtinfo6", "libunistring2", "libxml2", "libzstd1", "zlib1g",
			},
			Unread: []string{
				"usr/share/doc", "usr/share/gcc", "usr/share/gdb", "usr/share/info", "usr/share/lintian", "usr/share/locale", "usr/share/man", "usr/share/menu",
				"usr/share/postgresql/" + postgresVersion + "/man",
				// Time zones with leap seconds, which nobody asks for.
				"usr/share/zoneinfo/right",
				// For the just-in-time compiler, which is a package of its own.
				"usr/lib/postgresql/" + postgresVersion + "/lib/bitcode",
				// Character sets of the C library; PostgreSQL has its own.
				"usr/lib/*/gconv",
			},
		},
	}}
}

// modules are the upstream modules that programs are built from. Each is built
// in a module of its own, whose go.mod and go.sum lie under upstream/.
func modules() []build.Module {
	return []build.Module{kubernetesModule(), spireModule(), controllerManagerModule(), metallbModule(), corednsModule(), etcdModule()}
}

func kubernetesModule() build.Module {
	stamp := func(pkg string) []string {
		return []string{
			"-X", pkg + ".gitVersion=" + kubernetesVersion,
			"-X", pkg + ".gitMajor=1",
			"-X", pkg + ".gitMinor=36",
			"-X", pkg + ".gitTreeState=clean",
			"-X", pkg + ".buildDate=1970-01-01T00:00:00Z",
		}
	}
	return build.Module{
		Pins: upstream.Pins, Name: "kubernetes", Path: "k8s.io/kubernetes", Version: kubernetesVersion,
		LDFlags: append(stamp("k8s.io/component-base/version"), stamp("k8s.io/client-go/pkg/version")...),
		Typical: 8 * time.Minute,
	}
}

func spireModule() build.Module { return spireModuleOf(spireVersion) }

func spireModuleOf(version string) build.Module {
	return build.Module{
		Pins: upstream.Pins, Name: "spire", Path: "github.com/spiffe/spire", Version: "v" + version,
		// The sqlite datastore needs cgo; static, so that the image holds
		// nothing but the program.
		Cgo:     true,
		Tags:    "netgo osusergo sqlite_omit_load_extension",
		LDFlags: append([]string{"-linkmode", "external", "-extldflags", "-static"}, spireStamp(version)...),
		Typical: 7 * time.Minute,
	}
}

// spireStamp has a program of SPIRE say its version.
func spireStamp(version string) []string {
	return []string{"-X", "github.com/spiffe/spire/pkg/common/version.gittag=" + version}
}

func controllerManagerModule() build.Module {
	const path = "github.com/spiffe/spire-controller-manager"
	return build.Module{
		Pins: upstream.Pins, Name: "spire-controller-manager", Path: path, Version: "v" + controllerManagerVersion,
		Packages: []string{path + "/cmd"}, Rename: map[string]string{"cmd": "spire-controller-manager"},
		Typical: 3 * time.Minute,
	}
}

func metallbModule() build.Module {
	return build.Module{Pins: upstream.Pins, Name: "metallb", Path: "go.universe.tf/metallb", Version: metallbVersion, Typical: 4 * time.Minute}
}

func corednsModule() build.Module {
	return build.Module{Pins: upstream.Pins, Name: "coredns", Path: "github.com/coredns/coredns", Version: corednsVersion, Main: "coredns.go.txt", Typical: 2 * time.Minute}
}

func etcdModule() build.Module {
	return build.Module{
		Pins: upstream.Pins, Name: "etcd", Path: "go.etcd.io/etcd/server/v3", Version: "v" + etcdVersion,
		Rename: map[string]string{"server": "etcd"}, Typical: time.Minute,
	}
}

// kindModule has nothing to build; kind's node files are taken from it.
func kindModule() build.Module {
	return build.Module{Pins: upstream.Pins, Name: "kind", Path: "sigs.k8s.io/kind", Version: kindVersion}
}

// extract is an artifact of files of an upstream module.
type extract struct {
	build.Extract
	title string
	kind  Kind
}

// setExtracts are the files of upstream modules that each set has.
func setExtracts() []extract {
	return []extract{
		{build.Extract{Name: "metallb-chart", From: metallbModule(), Make: build.Copy("chart", "charts/metallb")}, "chart of MetalLB " + metallbVersion, Chart},
		{build.Extract{Name: "spire-crds", From: controllerManagerModule(), Make: build.Definitions("api/v1alpha1")}, "CRDs of SPIRE Controller Manager " + controllerManagerVersion, CRDs},
	}
}

// nodeExtracts are those that only a node image is built of.
func nodeExtracts() []extract {
	return []extract{
		{build.Extract{Name: "pause", From: kubernetesModule(), Make: build.Pause(pauseVersion)}, "pause " + pauseVersion, Ingredient},
		{build.Extract{Name: "kind-files", From: kindModule(), Make: build.Copy("files", "images/base/files")}, "node files of kind " + kindVersion, Ingredient},
	}
}
