package recipe

import (
	"errors"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"golang.org/x/mod/modfile"
	"sigs.k8s.io/kind/pkg/apis/config/defaults"

	"github.com/fedlab-dev/fedlab"
	"github.com/fedlab-dev/fedlab/lab/images/build"
)

// required returns the version of a module that a go.mod requires, and whether
// something replaces it.
func required(t *testing.T, file string, data []byte, path string) (version string, replaced bool) {
	t.Helper()
	mod, err := modfile.Parse(file, data, nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range mod.Require {
		if r.Mod.Path == path {
			version = r.Mod.Version
		}
	}
	for _, r := range mod.Replace {
		replaced = replaced || r.Old.Path == path
	}
	return version, replaced
}

// What the catalogue says is in references, labels and documents; what is
// built is what the pins say.
func TestPinsAgreeWithTheCatalogue(t *testing.T) {
	all := append(modules(), kindModule())
	for _, o := range Optionals() {
		if o.Files == nil {
			all = append(all, o.Module)
		}
	}
	for _, m := range all {
		mod, sum, _, err := m.Files()
		if err != nil {
			t.Fatal(err)
		}
		version, replaced := required(t, m.Pinned()+".mod", mod, m.Path)
		if version != m.Version || replaced {
			t.Errorf("%s.mod requires %s %s (replaced: %t), the catalogue says %s", m.Pinned(), m.Path, version, replaced, m.Version)
		}
		if !strings.Contains(string(sum), "\n"+m.Path+" "+m.Version+" h1:") && !strings.HasPrefix(string(sum), m.Path+" "+m.Version+" h1:") {
			t.Errorf("%s.sum has no checksum of %s %s", m.Pinned(), m.Path, m.Version)
		}
	}
}

// The node files, kind itself and its default node image belong together.
func TestKindIsOneVersion(t *testing.T) {
	data, err := os.ReadFile(filepath.Join("..", "..", "..", "go.mod"))
	if err != nil {
		t.Fatal(err)
	}
	if version, _ := required(t, "go.mod", data, "sigs.k8s.io/kind"); version != kindVersion {
		t.Errorf("fedlab requires kind %s, the node files are of %s", version, kindVersion)
	}
	img := kindNode()
	if got := strings.TrimPrefix(img.Reference, "docker.io/") + "@" + img.Digest; got != defaults.Image {
		t.Errorf("kind's node image is %s, want %s", got, defaults.Image)
	}
}

// kubeadm looks for certain versions of what it does not bring itself, and does
// not find others.
func TestKubeadmFindsItsImages(t *testing.T) {
	out, err := exec.CommandContext(t.Context(), "go", "env", "GOMODCACHE").Output()
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(strings.TrimSpace(string(out)), "k8s.io", "kubernetes@"+kubernetesVersion, "cmd", "kubeadm", "app", "constants", "constants.go")
	data, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		t.Skipf("Kubernetes was not built on this machine: %v", err)
	}
	if err != nil {
		t.Fatal(err)
	}
	minor := strings.Split(kubernetesVersion, ".")[1]
	for what, tt := range map[string]struct{ pattern, want string }{
		"etcd":    {`(?m)^\s*` + minor + `:\s+"([^"]+)",`, etcdVersion + "-0"},
		"CoreDNS": {`(?m)^\s*CoreDNSVersion = "([^"]+)"`, corednsVersion},
		"pause":   {`(?m)^\s*PauseVersion = "([^"]+)"`, pauseVersion},
	} {
		found := regexp.MustCompile(tt.pattern).FindSubmatch(data)
		if found == nil {
			t.Errorf("%s: kubeadm's constants do not say which version it wants", what)
			continue
		}
		if got := string(found[1]); got != tt.want {
			t.Errorf("%s: kubeadm wants %s, the catalogue has %s", what, got, tt.want)
		}
	}
	images := map[string]bool{}
	for _, img := range Catalogue() {
		images[img.Reference] = true
	}
	for _, want := range []string{"registry.k8s.io/etcd:" + etcdVersion + "-0", "registry.k8s.io/coredns/coredns:" + corednsVersion, pause} {
		if !images[want] {
			t.Errorf("the catalogue has no %s", want)
		}
	}
}

// The program looks for PostgreSQL where the packages and upstream's image have
// it, and runs as the user that both have.
func TestPostgresFindsItsPrograms(t *testing.T) {
	code, err := fs.ReadFile(fedlab.Source, "apps/postgres/main.go")
	if err != nil {
		t.Fatal(err)
	}
	on := foundations()["postgres"]
	if !slices.Contains(on.Files.Names, "postgresql-"+postgresVersion) || !strings.Contains(string(code), `"/usr/lib/postgresql/`+postgresVersion+`/bin"`) {
		t.Errorf("the image has PostgreSQL %s, and apps/postgres looks for another one", postgresVersion)
	}
	if !strings.HasPrefix(on.Files.User, "postgres:x:999:999:") || !strings.Contains(string(code), `"run-as", 999,`) {
		t.Errorf("the image has the user %s, and apps/postgres runs as another one", on.Files.User)
	}
}

// Each image is made of an artifact that exists, and no name is given twice.
func TestCatalogueIsWhole(t *testing.T) {
	r, err := New(Choices{Code: fedlab.Source, Demos: slices.Collect(maps.Keys(foundations()))})
	if err != nil {
		t.Fatal(err)
	}
	names := map[string]bool{}
	for _, a := range r.Artifacts {
		if names[a.Name] || a.Name == "" || a.Title == "" || a.Key == "" || a.Fill == nil {
			t.Errorf("artifact %+v is incomplete or there twice", a)
		}
		names[a.Name] = true
	}
	for _, d := range r.Programs {
		for _, f := range r.Flavours {
			if !names[d.On.From(f.Source)] {
				t.Errorf("what %s stands on cannot be had from source %s", d.Name, f.Source)
			}
		}
	}
	for _, o := range r.Optionals {
		for _, f := range r.Flavours {
			if !names[o.From(f.Source)] {
				t.Errorf("%s cannot be had from source %s", o.Name, f.Source)
			}
		}
	}
	for _, img := range r.Images {
		if !names[img.Artifact] {
			t.Errorf("image %s is made of %q, which does not exist", img.Name, img.Artifact)
		}
		if img.Kubernetes == names[PulledName(img)] {
			t.Errorf("image %s: in kind's node image: %t, pulled: %t, want one of them", img.Name, img.Kubernetes, names[PulledName(img)])
		}
	}
}

// The image of HAProxy has the files of its packages, and starts the program where Debian's
// package has it. Upstream's image is of the version that Debian has.
func TestHAProxyStartsWhereDebianHasIt(t *testing.T) {
	all := Optionals()
	o := all[slices.IndexFunc(all, func(o Optional) bool { return o.Name == "haproxy" })]
	if !slices.Contains(o.Files.Names, "haproxy") || o.Reference != "docker.io/library/haproxy:2.6-bookworm" || !strings.HasPrefix(o.version(), "2.6 ") {
		t.Errorf("%+v, version %s", o, o.version())
	}
	dir := t.TempDir()
	if _, err := o.Open(Artifact{Only: Build}, dir); err == nil {
		t.Error("an image of no files")
	}
	if err := os.WriteFile(filepath.Join(dir, build.PackagesFile), make([]byte, 1024), 0o600); err != nil {
		t.Fatal(err)
	}
	img, err := o.Open(Artifact{Only: Build}, dir)
	if err != nil {
		t.Fatal(err)
	}
	config, err := img.ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	layers, err := img.Layers()
	if err != nil || len(layers) != 1 || !slices.Equal(config.Config.Entrypoint, []string{"/usr/sbin/haproxy"}) || config.OS != "linux" {
		t.Errorf("%d layers, error %v, %+v", len(layers), err, config.Config)
	}
}
