package images

import (
	"archive/tar"
	"embed"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"
)

// nodeFiles are the files of the node image that are our own.
//
//go:embed node
var nodeFiles embed.FS

// tree writes files for a node's root file system into a tar archive. Its
// methods do nothing after the first error, which Close returns.
type tree struct {
	w   *tar.Writer
	err error
}

func newTree(w io.Writer) *tree { return &tree{w: tar.NewWriter(w)} }

func (t *tree) header(h *tar.Header) bool {
	if t.err == nil {
		h.ModTime = epoch
		t.err = t.w.WriteHeader(h)
	}
	return t.err == nil
}

func (t *tree) file(at string, mode int64, data []byte) {
	if t.header(&tar.Header{Typeflag: tar.TypeReg, Name: at, Mode: mode, Size: int64(len(data))}) {
		_, t.err = t.w.Write(data)
	}
}

func (t *tree) dir(at string) {
	t.header(&tar.Header{Typeflag: tar.TypeDir, Name: at + "/", Mode: 0o755})
}

func (t *tree) link(at, target string) {
	t.header(&tar.Header{Typeflag: tar.TypeSymlink, Name: at, Linkname: target, Mode: 0o777})
}

// program copies a program from this machine.
func (t *tree) program(at, from string) {
	if t.err != nil {
		return
	}
	f, err := os.Open(from)
	if err != nil {
		t.err = err
		return
	}
	info, err := f.Stat()
	if err == nil && t.header(&tar.Header{Typeflag: tar.TypeReg, Name: at, Mode: 0o755, Size: info.Size()}) {
		_, err = io.Copy(t.w, f)
	}
	t.err = errors.Join(t.err, err, f.Close())
}

// folder copies what lies below a folder; mode says which mode a file gets, and
// 0 leaves it out.
func (t *tree) folder(at string, from fs.FS, mode func(name string) int64) {
	if t.err != nil {
		return
	}
	t.err = fs.WalkDir(from, ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		m := mode(name)
		if m == 0 {
			return nil
		}
		data, err := fs.ReadFile(from, name)
		if err != nil {
			return err
		}
		t.file(path.Join(at, name), m, data)
		return t.err
	})
}

// Close ends the archive and returns the first error.
func (t *tree) Close() error {
	if t.err != nil {
		return t.err
	}
	return t.w.Close()
}

// writeNodeFiles writes what makes a Debian into a kind node: kind's own node
// files as its module has them, the Kubernetes programs, and our configuration
// of the container runtime. Modes are those that kind's Dockerfile sets.
func writeNodeFiles(w io.Writer, kindFiles, kubernetesBin string) error {
	t := newTree(w)
	files := func(sub string) fs.FS {
		return os.DirFS(filepath.Join(kindFiles, filepath.FromSlash(sub)))
	}
	plain := func(string) int64 { return 0o644 }
	executable := func(string) int64 { return 0o755 }
	t.folder("usr/local/bin", files("usr/local/bin"), func(name string) int64 {
		if name == "clean-install" { // a helper of kind's own image build
			return 0
		}
		return 0o755
	})
	t.folder("kind/bin", files("kind/bin"), executable)
	t.folder("etc", files("etc"), func(name string) int64 {
		if name == "containerd/config.toml" { // ours takes its place
			return 0
		}
		return plain(name)
	})
	t.file("kind/version", 0o644, []byte(kubernetesVersion))
	for _, program := range []string{"kubeadm", "kubelet", "kubectl"} {
		t.program("usr/bin/"+program, filepath.Join(kubernetesBin, program))
	}

	runtimeConfig, err := nodeFiles.ReadFile("node/containerd.toml")
	if err != nil {
		return err
	}
	t.file("etc/containerd/config.toml", 0o644, []byte(strings.ReplaceAll(string(runtimeConfig), "{{.Pause}}", pause)))
	network, err := nodeFiles.ReadFile("node/cni.conflist")
	if err != nil {
		return err
	}
	t.file("etc/containerd/cni.conflist", 0o644, network)
	t.dir("etc/cni/net.d")
	t.dir("etc/kubernetes/manifests")
	t.dir("opt/cni/bin")
	for _, plugin := range []string{"host-local", "loopback", "portmap", "ptp"} {
		t.link("opt/cni/bin/"+plugin, "/usr/lib/cni/"+plugin)
	}

	t.link("usr/sbin/init", "/usr/lib/systemd/systemd")
	// kind's unit looks for containerd where kind's own image has it.
	for _, program := range []string{"containerd", "containerd-shim-runc-v2", "ctr"} {
		t.link("usr/local/bin/"+program, "/usr/bin/"+program)
	}
	// kind keeps volumes below /tmp, which is memory in its nodes: they would be
	// gone when a node stops.
	volumes, err := nodeFiles.ReadFile("node/tmp-hostpath_pv.mount")
	if err != nil {
		return err
	}
	t.file("etc/systemd/system/tmp-hostpath_pv.mount", 0o644, volumes)
	t.dir("var/lib/hostpath_pv")
	t.link("etc/systemd/system/multi-user.target.wants/tmp-hostpath_pv.mount", "/etc/systemd/system/tmp-hostpath_pv.mount")
	for _, unit := range []string{"containerd", "kubelet", "undo-mount-hacks"} {
		t.link("etc/systemd/system/multi-user.target.wants/"+unit+".service", "/etc/systemd/system/"+unit+".service")
	}
	// It would register formats with the kernel that all containers share.
	t.link("etc/systemd/system/systemd-binfmt.service", "/dev/null")
	// The kernel's messages are the machine's, not the node's.
	t.file("etc/systemd/journald.conf.d/fedlab.conf", 0o644, []byte("[Journal]\nReadKMsg=no\nStorage=volatile\n"))
	if err := t.Close(); err != nil {
		return fmt.Errorf("collect node files: %w", err)
	}
	return nil
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
