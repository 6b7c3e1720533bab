// The program fakenode takes, in a test, the place of all that a node image is made with:
// it does what the tool does whose name it is called by, as far as the package
// asks for it. What it imports it only lists.
package main

import (
	"archive/tar"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
)

// running says where the containerd that runs keeps its images.
const running = "/run/fake-containerd"

func main() {
	if err := tool(filepath.Base(os.Args[0]), os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func tool(name string, args []string) error {
	line := strings.Join(args, " ")
	switch {
	case name == "sleep":
		end := make(chan os.Signal, 1)
		signal.Notify(end, syscall.SIGTERM)
		<-end
		return nil
	case name == "mkdir":
		return os.MkdirAll(args[1], 0o755)
	case name == "cp":
		return os.CopyFS(args[2], os.DirFS(args[1]))
	case name == "start-stop-daemon" && strings.HasPrefix(line, "--exec /usr/local/bin/containerd --start"):
		return os.WriteFile(running, []byte(args[len(args)-1]), 0o644)
	case name == "start-stop-daemon" && strings.HasPrefix(line, "--exec /usr/local/bin/containerd --stop"):
		return os.Remove(running)
	case name == "ctr" && line == "version":
		_, err := os.Stat(running)
		return err
	case name == "ctr" && line == "oci spec":
		fmt.Println(`{"process": {"rlimits": [{}], "cwd": "/"}}`)
		return nil
	case name == "ctr" && strings.HasPrefix(line, "--namespace k8s.io images import"):
		return load(slices.Contains(args, "--no-unpack"))
	case name == "ctr" && strings.HasPrefix(line, "--namespace k8s.io content rm sha256:"):
		return nil
	case name == "ctr" && strings.HasPrefix(line, "--namespace k8s.io leases "):
		return nil
	case name == "ctr" && strings.HasPrefix(line, "--namespace k8s.io images ls --quiet"):
		return list(strings.TrimPrefix(args[len(args)-1], "name=="))
	}
	return fmt.Errorf("%s %s: not known", name, line)
}

func root() string {
	if data, err := os.ReadFile(running); err == nil {
		return string(data)
	}
	return "/var/lib/containerd"
}

func load(packed bool) error {
	archive := tar.NewReader(os.Stdin)
	for {
		h, err := archive.Next()
		if errors.Is(err, io.EOF) {
			return errors.New("no manifest.json")
		}
		if err != nil {
			return err
		}
		if h.Name == "manifest.json" {
			break
		}
	}
	var manifest []struct{ RepoTags []string }
	if err := json.NewDecoder(archive).Decode(&manifest); err != nil {
		return err
	}
	file := filepath.Join(root(), "images", strings.ReplaceAll(manifest[0].RepoTags[0], "/", "|"))
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		return err
	}
	return os.WriteFile(file, fmt.Appendf(nil, "packed=%t", packed), 0o644)
}

// list prints the images, or those whose name is given.
func list(name string) error {
	files, err := os.ReadDir(filepath.Join(root(), "images"))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	for _, f := range files {
		ref := strings.ReplaceAll(f.Name(), "|", "/")
		if name == "--quiet" || name == ref {
			data, err := os.ReadFile(filepath.Join(root(), "images", f.Name()))
			if err != nil {
				return err
			}
			fmt.Printf("%s %s\n", ref, data)
		}
	}
	return nil
}
