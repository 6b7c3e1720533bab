package kindcluster

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	osexec "os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"

	"go.yaml.in/yaml/v3"
)

func TestKubeconfig(t *testing.T) {
	k := &fakeKind{}
	if config, err := k.provider().Kubeconfig("quotes-market"); err != nil || string(config) != kubeconfig("quotes-market") {
		t.Errorf("kubeconfig %q, error %v", config, err)
	}
}

// TestKubeconfigThatCannotBeRead: that there is none is said only where it is
// certain, since a cluster without one is thrown away.
func TestKubeconfigThatCannotBeRead(t *testing.T) {
	const (
		unreadable = `read kubeconfig of cluster quotes-market: command "docker run" failed with error: exit status 1: No such file or directory`
		none       = "read kubeconfig of cluster quotes-market: its node has none yet"
	)
	for name, tt := range map[string]struct {
		node *fakeNode
		list error
		want string
	}{
		"the node has none":     {node: &fakeNode{}, want: none},
		"the node has one":      {node: &fakeNode{command: fakeCommand{output: "/etc/kubernetes/admin.conf\n"}}, want: unreadable},
		"the node is stopped":   {node: &fakeNode{command: fakeCommand{err: commandFailed("is not running")}}, want: unreadable},
		"there is no node":      {want: unreadable},
		"nobody knows of nodes": {node: &fakeNode{}, list: commandFailed("no docker"), want: unreadable},
	} {
		t.Run(name, func(t *testing.T) {
			k := &fakeKind{node: tt.node, failures: map[string]error{"KubeConfig": commandFailed("No such file or directory"), "ListNodes": tt.list}}
			_, err := k.provider().Kubeconfig("quotes-market")
			if message(err) != tt.want {
				t.Errorf("error %q, want %q", message(err), tt.want)
			}
			if typed := (*NoKubeconfigError)(nil); errors.As(err, &typed) != (tt.want == none) {
				t.Errorf("error %T", err)
			}
			if want := []string{"find", "/etc/kubernetes", "-maxdepth", "1", "-name", "admin.conf"}; tt.want == none && !slices.Equal(tt.node.argv, want) {
				t.Errorf("ran %q, want %q", tt.node.argv, want)
			}
		})
	}
}

func TestExportKubeconfig(t *testing.T) {
	market, broker := kubeconfig("market"), kubeconfig("broker")
	tests := map[string]struct {
		file     string
		failures map[string]error
		exports  []string
		changed  bool
		err      string
	}{
		"no file":          {exports: []string{"market", "broker"}, changed: true},
		"both are there":   {file: joined(market, broker)},
		"one is there":     {file: market, exports: []string{"broker"}, changed: true},
		"another port":     {file: joined(strings.ReplaceAll(market, "127.0.0.1:", "127.0.0.1:1"), broker), exports: []string{"market"}, changed: true},
		"another key":      {file: joined(market, strings.ReplaceAll(broker, "key-of", "old-key-of")), exports: []string{"broker"}, changed: true},
		"a namespace":      {file: joined(strings.ReplaceAll(market, ", user: kind-market}", ", user: kind-market, namespace: demo}"), broker)},
		"no kubeconfig":    {file: "a: [", err: "export context kind-market: read kubeconfig PATH: yaml: line 1: did not find expected node content"},
		"a stopped node":   {failures: map[string]error{"KubeConfig": commandFailed("is not running")}, err: `export context kind-market: command "docker run" failed with error: exit status 1: is not running`},
		"a read-only file": {file: market, failures: map[string]error{"ExportKubeConfig broker": errors.New("read-only")}, exports: []string{"broker"}, changed: true, err: "export context kind-broker: read-only"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "config")
			if tt.file != "" {
				write(t, path, tt.file)
			}
			k := &fakeKind{failures: tt.failures}
			changed, err := k.provider().ExportKubeconfig(t.Context(), path, "market", "broker")
			if want := strings.ReplaceAll(tt.err, "PATH", path); changed != tt.changed || message(err) != want {
				t.Errorf("changed %t, error %q, want %t and %q", changed, message(err), tt.changed, want)
			}
			var exports []string
			for _, call := range k.calls {
				if name, is := strings.CutPrefix(call, "ExportKubeConfig "); is {
					exports = append(exports, name)
				}
			}
			if !slices.Equal(exports, tt.exports) {
				t.Errorf("exported %v, want %v", exports, tt.exports)
			}
		})
	}
}

// joined is one kubeconfig file with what is in several.
func joined(texts ...string) string {
	lists := map[string][]string{}
	for _, text := range texts {
		for line := range strings.Lines(text) {
			key, list, _ := strings.Cut(strings.TrimSpace(line), ": [")
			lists[key] = append(lists[key], strings.TrimSuffix(list, "]"))
		}
	}
	var b strings.Builder
	for key, list := range lists {
		_, _ = fmt.Fprintf(&b, "%s: [%s]\n", key, strings.Join(list, ", "))
	}
	return b.String()
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestKubeconfigLocked(t *testing.T) {
	locked := fmt.Errorf("lock config: %w", &fs.PathError{Op: "open", Path: "config.lock", Err: fs.ErrExist})
	t.Run("for a moment", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			tries := 0
			err := whileLocked(t.Context(), func() error {
				if tries++; tries < 3 {
					return locked
				}
				return nil
			})
			if err != nil || tries != 3 {
				t.Errorf("error %v after %d tries", err, tries)
			}
		})
	})
	t.Run("for good", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			k := &fakeKind{failures: map[string]error{"ExportKubeConfig a": locked}}
			_, err := k.provider().ExportKubeconfig(t.Context(), filepath.Join(t.TempDir(), "config"), "a")
			want := "export context kind-a: kubeconfig stayed locked for 5s, perhaps by a program that was killed: lock config: open config.lock: file already exists"
			if message(err) != want {
				t.Errorf("error %q, want %q", message(err), want)
			}
		})
	})
	t.Run("until the user gives up", func(t *testing.T) {
		err := whileLocked(ended(t.Context()), func() error { return locked })
		if want := "wait for the kubeconfig's lock: user gave up; last seen: lock config: open config.lock: file already exists"; message(err) != want {
			t.Errorf("error %q, want %q", message(err), want)
		}
	})
}

func TestRemoveKubeconfig(t *testing.T) {
	tests := map[string]struct {
		file     string
		existing []string
		failures map[string]error
		deletes  int
		err      string
	}{
		"no file":                     {},
		"nothing of the lab":          {file: kubeconfig("other")},
		"two contexts":                {file: joined(kubeconfig("quotes-market"), kubeconfig("other"), kubeconfig("quotes-broker")), deletes: 2},
		"what a killed removal left":  {file: "users: [{name: kind-quotes-market}]", deletes: 1},
		"a cluster of another lab":    {file: joined(kubeconfig("quotes-market"), kubeconfig("quotes-too-market")), existing: []string{"quotes-too-market"}, deletes: 1},
		"not made by kind":            {file: "contexts: [{name: quotes-market}, {name: 7}]"},
		"nobody knows what is there":  {file: kubeconfig("quotes-market"), failures: map[string]error{"List": commandFailed("no docker")}, err: `list clusters: command "docker run" failed with error: exit status 1: no docker`},
		"a file that cannot be saved": {file: kubeconfig("quotes-market"), failures: map[string]error{"Delete": errors.New("read-only")}, deletes: 1, err: "remove context kind-quotes-market: read-only"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "config")
			if tt.file != "" {
				write(t, path, tt.file)
			}
			t.Setenv("KUBECONFIG", strings.Join([]string{"/nowhere", path}, string(filepath.ListSeparator)))
			k := &fakeKind{existing: tt.existing, failures: tt.failures}
			removed, err := k.provider().RemoveKubeconfig(t.Context(), "", "quotes-")
			if removed != (tt.deletes > 0 && tt.err == "") || message(err) != tt.err {
				t.Errorf("removed %t, error %q, want %q", removed, message(err), tt.err)
			}
			var deletes int
			for _, call := range k.calls {
				if call == "Delete" {
					deletes++
				}
			}
			if deletes != tt.deletes {
				t.Errorf("%d contexts removed, want %d", deletes, tt.deletes)
			}
		})
	}
}

// TestRealRemoveKubeconfig lets kind itself edit a kubeconfig. kind asks Docker
// for the nodes first.
func TestRealRemoveKubeconfig(t *testing.T) {
	if out, err := osexec.CommandContext(t.Context(), "docker", "version").CombinedOutput(); err != nil && os.Getenv("CI") != "true" {
		t.Skipf("docker version: %v: %s", err, out)
	}
	type named struct {
		Name string `yaml:"name"`
	}
	var config struct {
		Clusters       []named `yaml:"clusters"`
		Contexts       []named `yaml:"contexts"`
		Users          []named `yaml:"users"`
		CurrentContext string  `yaml:"current-context"`
	}
	config.CurrentContext = "kind-fedlab-test-absent"
	config.Clusters = []named{{"kind-fedlab-test-absent"}, {"theirs"}}
	config.Contexts, config.Users = config.Clusters, config.Clusters
	before, err := yaml.Marshal(config)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "config")
	if err := os.WriteFile(path, before, 0o600); err != nil {
		t.Fatal(err)
	}

	k := &fakeKind{}
	p := New(k.provider().log)
	if removed, err := p.RemoveKubeconfig(t.Context(), path, "fedlab-test-"); !removed || err != nil {
		t.Fatalf("removed %t, error %v", removed, err)
	}
	after, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	config.Clusters, config.Contexts, config.Users, config.CurrentContext = nil, nil, nil, ""
	if err := yaml.Unmarshal(after, &config); err != nil {
		t.Fatal(err)
	}
	left := []named{{"theirs"}}
	if !slices.Equal(config.Clusters, left) || !slices.Equal(config.Contexts, left) || !slices.Equal(config.Users, left) || config.CurrentContext != "" {
		t.Errorf("left: %+v", config)
	}
}
