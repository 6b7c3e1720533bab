// Package node has the files that make a Debian into a node of kind.
//
// It refuses to know how these files get into an image, and who runs it.
package node

import (
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/fedlab-dev/fedlab/lab/images/layer"
)

// nodeFiles are the files of the node image that are our own.
//
//go:embed *.toml *.conflist *.service *.mount
var nodeFiles embed.FS

// Files are those of a node with one version of Kubernetes.
type Files struct {
	// Kubernetes is the version.
	Kubernetes string
	// Pause is the reference of the image that holds a pod's namespaces.
	Pause string
}

// Write writes, as a tar archive, what makes a Debian into a kind node: kind's own
// node files as its module has them, the Kubernetes programs, our own files, and the
// specification of a container, made of containerd's default one. Modes are those that
// kind's Dockerfile sets.
func (f Files) Write(w io.Writer, kindFiles, kubernetesBin string, defaults []byte) error {
	spec, err := containerSpec(defaults)
	if err != nil {
		return err
	}
	t := layer.NewWriter(w)
	files := func(sub string) fs.FS {
		return os.DirFS(filepath.Join(kindFiles, filepath.FromSlash(sub)))
	}
	t.Folder("usr/local/bin", files("usr/local/bin"), func(name string) int64 {
		if name == "clean-install" { // a helper of kind's own image build
			return 0
		}
		return 0o755
	})
	t.Folder("kind/bin", files("kind/bin"), func(string) int64 { return 0o755 })
	t.Folder("etc", files("etc"), func(name string) int64 {
		if name == "containerd/config.toml" { // ours takes its place
			return 0
		}
		return 0o644
	})
	for _, program := range []string{"kubeadm", "kubelet", "kubectl"} {
		t.Program("usr/bin/"+program, filepath.Join(kubernetesBin, program))
	}
	t.File("etc/containerd/cri-base.json", 0o644, spec)
	f.own(t)
	if err := t.Close(); err != nil {
		return fmt.Errorf("collect node files: %w", err)
	}
	return nil
}

// own writes the files and links that come from nobody but us.
func (f Files) own(t *layer.Writer) {
	fill := func(at, name, systemd string) {
		data, err := nodeFiles.ReadFile(name)
		t.Fail(err)
		t.File(at, 0o644, []byte(strings.NewReplacer("{{.Pause}}", f.Pause, "{{.Systemd}}", systemd).Replace(string(data))))
	}
	own := func(at, name string) { fill(at, name, "true") }
	t.File("kind/version", 0o644, []byte(f.Kubernetes))
	own("etc/containerd/config.toml", "containerd.toml")
	fill("etc/containerd/config-cgroupfs.toml", "containerd.toml", "false")
	own("etc/systemd/system/etc-containerd-config.toml.mount", "etc-containerd-config.toml.mount")
	own("etc/containerd/cni.conflist", "cni.conflist")
	t.Dir("etc/cni/net.d")
	t.Dir("etc/kubernetes/manifests")
	t.Dir("opt/cni/bin")
	for _, plugin := range []string{"host-local", "loopback", "portmap", "ptp"} {
		t.Link("opt/cni/bin/"+plugin, "/usr/lib/cni/"+plugin)
	}

	t.Link("usr/sbin/init", "/usr/lib/systemd/systemd")
	// kind's unit looks for containerd where kind's own image has it.
	for _, program := range []string{"containerd", "containerd-shim-runc-v2", "ctr"} {
		t.Link("usr/local/bin/"+program, "/usr/bin/"+program)
	}
	// kind keeps volumes below /tmp, which is memory in its nodes: they would be
	// gone when a node stops.
	own("etc/systemd/system/tmp-hostpath_pv.mount", "tmp-hostpath_pv.mount")
	t.Dir("var/lib/hostpath_pv")
	// Nothing that belongs to a cluster leaves the machine.
	own("etc/systemd/system/inside-only.service", "inside-only.service")
	for _, unit := range []string{"etc-containerd-config.toml.mount", "tmp-hostpath_pv.mount", "inside-only.service", "containerd.service", "kubelet.service", "undo-mount-hacks.service"} {
		t.Link("etc/systemd/system/multi-user.target.wants/"+unit, "/etc/systemd/system/"+unit)
	}
	// It would register formats with the kernel that all containers share.
	t.Link("etc/systemd/system/systemd-binfmt.service", "/dev/null")
	// The kernel's messages are the machine's, not the node's.
	t.File("etc/systemd/journald.conf.d/fedlab.conf", 0o644, []byte("[Journal]\nReadKMsg=no\nStorage=volatile\n"))
}

// Hash hashes our own files as a node gets them.
func (f Files) Hash() (string, error) {
	h := sha256.New()
	t := layer.NewWriter(h)
	f.own(t)
	if err := t.Close(); err != nil {
		return "", fmt.Errorf("collect node files: %w", err)
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}

// containerSpec takes containerd's default container specification and removes
// the limits from it: a container must not ask for more than the node has.
func containerSpec(defaults []byte) ([]byte, error) {
	var spec map[string]any
	if err := json.Unmarshal(defaults, &spec); err != nil {
		return nil, fmt.Errorf("read containerd's default container specification: %w", err)
	}
	process, ok := spec["process"].(map[string]any)
	if !ok {
		return nil, errors.New("read containerd's default container specification: it has no process")
	}
	delete(process, "rlimits")
	return json.Marshal(spec)
}
