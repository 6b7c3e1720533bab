package recipe

import (
	"bytes"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/fedlab-dev/fedlab/lab/images/build"
	"github.com/fedlab-dev/fedlab/lab/images/internal/imagestest"
	"github.com/fedlab-dev/fedlab/lab/images/pull"
)

// TestReference says when docs/reference/images.md is stale; -update writes it.
func TestReference(t *testing.T) {
	imagestest.Golden(t, *update, filepath.Join("..", "..", "..", "docs", "reference", "images.md"), reference())
}

const intro = `# Images

<!-- Made from the catalogue in lab/images/recipe: go test ./lab/images/recipe -update -->

A lab runs on one node image, which holds what upstream publishes before a cluster boots, on demo programs, which each node is given that runs them, on one chart and the CustomResourceDefinitions of one controller. This page lists them: what they are, in which version, what upstream calls them, what they are made of here, and where the checksum is that holds them to it.

What is not there comes from a source:

| source | what it does |
|---|---|
| ^auto^ | an archive where one is named, then ^pull^, then ^build^; each only where the one before cannot be had, which is said in one line |
| ^present^ | takes what is there, and fails where something is missing |
| ^archive^ | a file that ^fedlab images save FILE^ has written |
| ^pull^ | kind's own node image and upstream's other images, from their registries or a mirror; they give a node image of the same kind. Demo programs, the chart and the CustomResourceDefinitions are built all the same |
| ^build^ | Go modules and Debian packages; no registry is asked |

What is there already is taken with each of them. A registry has %s to say what an image consists of, and a download may stand still for %s. Everything is named after the hash of its recipe and kept in the user's cache folder (^~/.cache/fedlab^): ^builds^ has what was made, ^logs^ what the compilers said. All of it may be deleted at any time.
`

func reference() []byte {
	var b bytes.Buffer
	fmt.Fprintf(&b, strings.ReplaceAll(intro, "^", "`"), pull.Usual().Contact, pull.Usual().Stall)
	b.WriteString("\n## Images in a node that was built\n\nEach has upstream's name, so that charts and kubeadm find it, and one layer: the program, built by a Go module of its own.\n\n| image | upstream reference | built from | checksums |\n|---|---|---|---|\n")
	for _, img := range Catalogue() {
		from, sums := made(img)
		fmt.Fprintf(&b, "| %s | `%s` | %s | %s |\n", img.Name, img.Reference, from, sums)
	}
	b.WriteString("\nThe same pins and the same Go release make the same digest, of all but pause and the SPIRE programs, whose C compiler is the machine's, and kube-proxy, which has Debian's iptables.\n")

	kind := kindNode()
	fmt.Fprintf(&b, "\n## Images in a node that was pulled\n\nkind's own node image brings Kubernetes, etcd, CoreDNS, pause and a network in the versions that this release of kind was published with. `--kind-node` names another one, such as what a mirror has rebuilt under a digest of its own; it must bring kubeadm and images that fit kind %s. Where upstream's digest is not known the registry vouches for the tag; each layer is checked against the manifest in any case.\n\n| image | upstream reference | digest |\n|---|---|---|\n", kindVersion)
	fmt.Fprintf(&b, "| %s | `%s` | `%s`, named by kind %s |\n", kind.Name, kind.Reference, kind.Digest, kindVersion)
	for _, img := range Pulled()[1:] {
		fmt.Fprintf(&b, "| %s | `%s` | %s |\n", img.Name, img.Reference, digestText(img))
	}

	b.WriteString("\n## Charts, definitions and demo programs\n\n| what | version | made from | checksums |\n|---|---|---|---|\n")
	for _, e := range setExtracts() {
		fmt.Fprintf(&b, "| %s | %s | files of `%s` | `lab/images/upstream/%s.sum` |\n", e.Name, e.From.Version, e.From.Path, e.From.Name)
	}
	b.WriteString("| demo programs | fedlab's | the folders below `apps`, compiled into fedlab as source | `go.sum` |\n")
	b.WriteString("\nThe image of a demo program is called `fedlab.local/NAME:KEY` and has one layer, the program. It is given to the nodes that run it, once they do, so that a changed program costs seconds, and a lab nothing for programs that it does not have. These programs are a layer on top of something larger, and so they are in the node image as well:\n\n| demo program | stands on | from source `build` | from source `pull` | checksums |\n|---|---|---|---|---|\n")
	for _, name := range slices.Sorted(maps.Keys(foundations())) {
		f := foundations()[name]
		fmt.Fprintf(&b, "| %s | %s | the files of Debian's %s, without documentation and translations | `%s` | signatures of Debian's archive |\n", name, f.Title, strings.Join(f.Files.Names, ", "), f.Reference)
	}

	b.WriteString("\n## Optional programs\n\nPrograms of others that only some labs run. Their images are made when a lab file asks for them, and are in no node image: a node is given one as it is given a demo program, under the name `fedlab.local/NAME:KEY`. `fedlab images build --lab FILE` makes those of a lab, and an archive has those that are there. [0049](../decisions/0049-optional-programs.md) says why.\n\n| program | from source `build` | from source `pull` | checksums |\n|---|---|---|---|\n")
	for _, o := range Optionals() {
		from, pulled := fmt.Sprintf("`%s` %s", o.Module.Path, o.Module.Version), "`"+o.Reference+"`"
		if len(o.Module.Inserts) > 0 {
			from += ", with our changes (`lab/images/recipe/optional.go`)"
		}
		if len(o.Module.Extra) > 0 {
			from += ", with one of its modules replaced"
		}
		if o.Reference == "" {
			pulled = "the same, since upstream's does not do"
		}
		if o.Files != nil {
			fmt.Fprintf(&b, "| %s | the files of Debian's %s, without documentation | %s | signatures of Debian's archive |\n", o.Name, strings.Join(o.Files.Names, ", "), pulled)
			continue
		}
		fmt.Fprintf(&b, "| %s | %s | %s | `lab/images/upstream/%s.sum` |\n", o.Name, from, pulled, o.Module.Pinned())
	}
	b.WriteString("\n## What a built node image is made of besides\n\n| what | version | made from | checksums |\n|---|---|---|---|\n")
	fmt.Fprintf(&b, "| rootfs | Debian %s | `debootstrap` with %s | signatures of Debian's archive, which debootstrap checks with the keyring of the machine |\n", build.Suite, strings.Join(build.RootfsPackages(), ", "))
	for _, e := range nodeExtracts() {
		if e.Name == "pause" {
			continue
		}
		fmt.Fprintf(&b, "| %s | %s | files of `%s` | `lab/images/upstream/%s.sum` |\n", e.Name, e.From.Version, e.From.Path, e.From.Name)
	}
	fmt.Fprintf(&b, "| kubeadm, kubelet, kubectl | %s | `%s`, as the images of Kubernetes | `lab/images/upstream/kubernetes.sum` |\n", kubernetesVersion, kubernetesModule().Path)
	b.WriteString("\n## An archive\n\n`fedlab images save FILE` writes one file: an [OCI image layout](https://github.com/opencontainers/image-spec/blob/main/image-layout.md) in a tar archive, compressed with zstd. It holds the node image, and one image for each of the chart, the CustomResourceDefinitions, the demo programs and what those stand on, and the optional programs that are there, whose only layer has the files. Annotations give names, keys and the version of fedlab; each part is called after its SHA-256. The same set makes the same bytes. `fedlab images load FILE` takes nothing of an archive that is cut off, damaged or another fedlab's; after it, a lab comes up without any network. `tar --zstd -xf FILE` unpacks it for other tools.\n")
	return b.Bytes()
}

func digestText(img Image) string {
	if img.Digest == "" {
		return "not known"
	}
	return "`" + img.Digest + "`"
}

// made says what an image is built from, and where its checksums are.
func made(img Image) (from, sums string) {
	for _, e := range nodeExtracts() {
		if e.Name == img.Artifact {
			return fmt.Sprintf("C source in `%s` %s", e.From.Path, e.From.Version), fmt.Sprintf("`lab/images/upstream/%s.sum`", e.From.Name)
		}
	}
	all := modules()
	m := all[slices.IndexFunc(all, func(m build.Module) bool { return m.Name == img.Artifact })]
	from = fmt.Sprintf("`%s` %s", m.Path, m.Version)
	if m.Main != "" {
		from += fmt.Sprintf(", with the main of `lab/images/upstream/%s`", m.Main)
	}
	if len(img.Packages) > 0 {
		from += fmt.Sprintf("; together with Debian's %s", strings.Join(img.Packages, ", "))
	}
	return from, fmt.Sprintf("`lab/images/upstream/%s.sum`", m.Name)
}
