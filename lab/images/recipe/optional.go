package recipe

import (
	"fmt"
	"os"
	"path/filepath"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/tarball"

	"github.com/fedlab-dev/fedlab/lab/images/build"
	"github.com/fedlab-dev/fedlab/lab/images/layer"
	"github.com/fedlab-dev/fedlab/lab/images/pull"
	"github.com/fedlab-dev/fedlab/lab/images/store"
	"github.com/fedlab-dev/fedlab/lab/images/upstream"
)

// Versions of the optional programs, besides that of SPIRE's.
const (
	pebbleVersion       = "v2.10.3"
	ghostunnelVersion   = "v1.11.2"
	spiffeHelperVersion = "0.11.0"
	haproxyVersion      = "2.6"
	prometheusVersion   = "0.316.0"
	// Later ones lack files of their page in the module.
	alertmanagerVersion = "0.31.0"
)

// Optional is a program of others that only some labs run. Its image is made when a lab
// asks for it, and is in no node image.
type Optional struct {
	// Image has upstream's reference and the path of the program. The reference is empty
	// where the image is always built.
	Image
	Module build.Module
	// Files are set for a program of Debian, and take the place of Module.
	Files *build.Packages
}

// version is the one that is built.
func (o Optional) version() string {
	if o.Files != nil {
		return haproxyVersion + " of Debian " + build.Suite
	}
	return o.Module.Version
}

// Optionals lists the optional programs, in the order in which documents do.
func Optionals() []Optional {
	const (
		pebble       = "pebble"
		ghostunnel   = "ghostunnel"
		spiffeHelper = "spiffe-helper"
		haproxy      = "haproxy"
		connectProxy = "connect-proxy-scheme"
		alertmanager = "alertmanager"
	)
	provider := spireModule()
	provider.Name, provider.PinsOf = "oidc-discovery-provider", provider.Name
	provider.Packages = []string{provider.Path + "/support/oidc-discovery-provider"}
	// It keeps nothing, and so needs no C compiler.
	provider.Cgo, provider.LDFlags = false, spireStamp(spireVersion)
	provider.Typical = 20 * time.Second
	return append([]Optional{
		{
			Image: Image{Name: pebble, Path: "/pebble"},
			Module: build.Module{
				Pins: upstream.Pins, Name: pebble, Path: "github.com/letsencrypt/pebble/v2", Version: pebbleVersion,
				Inserts: pebbleChanges(), Typical: 30 * time.Second,
			},
		},
		{
			Image: Image{Name: ghostunnel, Reference: "docker.io/ghostunnel/ghostunnel:" + ghostunnelVersion + "-distroless", Path: "/usr/bin/ghostunnel"},
			Module: build.Module{
				Pins: upstream.Pins, Name: ghostunnel, Path: "github.com/ghostunnel/ghostunnel", Version: ghostunnelVersion,
				Extra:   map[string]string{connectProxy + "/go.mod": connectProxy + ".mod", connectProxy + "/scheme.go": connectProxy + ".go.txt"},
				Typical: time.Minute,
			},
		},
		{
			Image: Image{Name: spiffeHelper, Reference: "ghcr.io/spiffe/spiffe-helper:" + spiffeHelperVersion, Path: "/spiffe-helper"},
			Module: build.Module{
				Pins: upstream.Pins, Name: spiffeHelper, Path: "github.com/spiffe/spiffe-helper", Version: "v" + spiffeHelperVersion,
				Typical: 30 * time.Second,
			},
		},
		{
			Image:  Image{Name: provider.Name, Reference: "ghcr.io/spiffe/oidc-discovery-provider:" + spireVersion, Path: "/opt/spire/bin/oidc-discovery-provider"},
			Module: provider,
		},
		{
			// Upstream's image has it elsewhere, and starts it with the same arguments.
			Image: Image{Name: haproxy, Reference: "docker.io/library/haproxy:" + haproxyVersion + "-" + build.Suite, Path: "/usr/sbin/haproxy"},
			Files: haproxyFiles(),
		},
		{
			Image: Image{Name: alertmanager, Reference: "docker.io/prom/alertmanager:v" + alertmanagerVersion, Path: "/bin/alertmanager"},
			Module: build.Module{
				Pins: upstream.Pins, Name: alertmanager, Path: "github.com/prometheus/alertmanager", Version: "v" + alertmanagerVersion,
				Typical: 2 * time.Minute,
			},
		},
		prometheusProgram("prometheus", "docker.io/prom/prometheus:v3.16.0"),
		// It tests rules, on this machine.
		prometheusProgram("promtool", ""),
	}, otherSPIREs()...)
}

// prometheusProgram is one of Prometheus' own. The module lacks the files of its pages, and
// fedlab asks it by its API alone; what it would discover by itself, it is told.
func prometheusProgram(name, reference string) Optional {
	const path = "github.com/prometheus/prometheus"
	return Optional{
		Image: Image{Name: name, Reference: reference, Path: "/bin/" + name},
		Module: build.Module{
			Pins: upstream.Pins, PinsOf: "prometheus", Name: name, Path: path, Version: "v" + prometheusVersion,
			Packages: []string{path + "/cmd/" + name}, Tags: "netgo,remove_all_sd", Typical: 4 * time.Minute,
		},
	}
}

// otherSPIREs are the servers and agents of other versions of SPIRE than the one that is in
// every node.
func otherSPIREs() (all []Optional) {
	for _, version := range []string{"1.14.5", "1.13.3"} {
		for _, program := range []string{"spire-server", "spire-agent"} {
			m := spireModuleOf(version)
			m.PinsOf, m.Name = m.Name+"-"+version, program+"-"+version
			m.Packages, m.Rename = []string{m.Path + "/cmd/" + program}, map[string]string{program: m.Name}
			all = append(all, Optional{
				Image:  Image{Name: m.Name, Reference: "ghcr.io/spiffe/" + program + ":" + version, Path: "/opt/spire/bin/" + program},
				Module: m,
			})
		}
	}
	return all
}

// haproxyFiles are HAProxy and what it is linked with.
func haproxyFiles() *build.Packages {
	return &build.Packages{
		User: "haproxy:x:1000:1000:HAProxy:/nonexistent:/usr/sbin/nologin",
		Names: []string{
			"haproxy", "libc6", "libcap2", "libcrypt1", "libgcc-s1", "libgcrypt20", "libgpg-error0", "liblua5.3-0", "liblz4-1", "liblzma5",
			"libopentracing-c-wrapper0", "libopentracing1", "libpcre2-8-0", "libssl3", "libstdc++6", "libsystemd0", "libzstd1",
		},
		Unread: []string{
			"etc/default", "etc/init.d", "etc/logrotate.d", "usr/lib/*/gconv", "usr/lib/systemd",
			"usr/share/doc", "usr/share/gcc", "usr/share/gdb", "usr/share/lintian", "usr/share/locale", "usr/share/man", "usr/share/vim",
		},
	}
}

// pebbleChanges have Pebble issue to SPIRE's server. Pebble is stricter than RFC 8555,
// section 7.4, which lets a certificate request name its only domain as the common name,
// as SPIRE's (pkg/server/endpoints/bundle/internal/autocert) does. And SPIRE's ACME client
// (golang.org/x/crypto/acme, before v0.58) looks for the order in the answer to "finalize"
// only by the field Location, which the example in that section has. Also, Pebble makes
// another root at each start, and what it issued before would be verified by nobody: it takes
// one from files.
func pebbleChanges() []build.Insert {
	const (
		file = "wfe/wfe.go"
		ca   = "ca/ca.go"
	)
	return []build.Insert{
		{File: ca, Before: `"crypto/ecdsa"`, Text: `	"os"
	"crypto/tls"`},
		{File: ca, Before: "rk, subjectKeyID, err := makeKey(keyAlg)", Text: `	if file := os.Getenv("PEBBLE_ROOT_CERTIFICATE"); file != "" {
		pair, err := tls.LoadX509KeyPair(file, os.Getenv("PEBBLE_ROOT_KEY"))
		if err != nil {
			return nil, err
		}
		root := &core.Certificate{ID: hex.EncodeToString(pair.Leaf.SerialNumber.Bytes()), Cert: pair.Leaf, DER: pair.Certificate[0]}
		if _, err := ca.db.AddCertificate(root); err != nil {
			return nil, err
		}
		return &issuer{key: pair.PrivateKey.(crypto.Signer), cert: root}, nil
	}`},
		{File: file, Before: "csrDNSs := uniqueLowerNames(parsedCSR.DNSNames)", Text: `	if name := parsedCSR.Subject.CommonName; name != "" && len(parsedCSR.DNSNames) == 0 {
		parsedCSR.DNSNames = []string{name}
	}`},
		{File: file, Before: "existingOrder.Status = acme.StatusProcessing", Text: `	response.Header().Set("Location", wfe.relativeEndpoint(request, orderPath+orderID))`},
	}
}

// artifacts are what its image is made of: the program for source Build, upstream's image
// for Pull. A program of which upstream has no image that does is there for both.
func (o Optional) artifacts(p pull.Registries) ([]Artifact, error) {
	built := Artifact{Name: o.Name, Title: o.Name + " " + o.version(), Version: o.version(), Kind: OptionalProgram, Optional: true}
	var err error
	if o.Files != nil {
		built.Key, built.Typical, built.Fill = o.Files.Key(), 15*time.Second, o.Files.Fill
	} else {
		built.Key, err = o.Module.Key()
		built.Typical, built.Fill = o.Module.Typical, o.Module.Fill
	}
	if o.Reference == "" {
		return []Artifact{built}, err
	}
	built.Only = Build
	pulled := FromRegistry(p, o.Image)
	pulled.Kind, pulled.Optional = OptionalProgram, true
	return []Artifact{built, pulled}, err
}

// From is the name of its artifact for a source.
func (o Optional) From(source Source) string {
	if source == Pull && o.Reference != "" {
		return PulledName(o.Image)
	}
	return o.Name
}

// Open makes its image of an artifact.
func (o Optional) Open(from Artifact, dir string) (v1.Image, error) {
	if from.Only == Pull {
		return tarball.ImageFromPath(filepath.Join(dir, pull.File), nil)
	}
	if o.Files != nil {
		files, err := os.ReadFile(filepath.Join(dir, build.PackagesFile))
		if err != nil {
			return nil, err
		}
		img, err := layer.Append(empty.Image, files)
		if err != nil {
			return nil, err
		}
		return layer.Start(img, o.Path)
	}
	return layer.Onto(empty.Image, build.ProgramPath(dir, o.Name), o.Path, nil)
}

// Optional finds an optional program by its name.
func (r Book) Optional(name string) (o Optional, there bool) {
	for _, o := range r.Optionals {
		if o.Name == name {
			return o, true
		}
	}
	return Optional{}, false
}

// OptionalReference is what the image of an optional program is called in a cluster. It
// changes with what the image is made of, and is the same for each source.
func (r Book) OptionalReference(o Optional) (string, error) {
	var keys []string
	for _, source := range []Source{Build, Pull} {
		a, err := r.Artifact(o.From(source))
		if err != nil {
			return "", fmt.Errorf("optional program %s: %w", o.Name, err)
		}
		keys = append(keys, a.Key)
	}
	return "fedlab.local/" + o.Name + ":" + store.Key(keys...), nil
}
