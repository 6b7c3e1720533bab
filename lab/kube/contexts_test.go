package kube

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"k8s.io/client-go/tools/clientcmd"
)

// kubeconfigOf is that of a kind cluster.
func kubeconfigOf(name, key string) []byte {
	return fmt.Appendf(nil, `{"apiVersion": "v1", "kind": "Config", "current-context": "kind-%[1]s",
"clusters": [{"name": "kind-%[1]s", "cluster": {"server": "https://127.0.0.1:6443"}}],
"users": [{"name": "kind-%[1]s", "user": {"client-key-data": "%[2]s"}}],
"contexts": [{"name": "kind-%[1]s", "context": {"cluster": "kind-%[1]s", "user": "kind-%[1]s"}}]}`, name, key)
}

const (
	oneKey     = "a2V5"
	anotherKey = "b3RoZXI="
	// theirs is a file that somebody has, with a cluster in use.
	theirs = "apiVersion: v1\nkind: Config\ncurrent-context: work\n" +
		"clusters: [{name: work, cluster: {server: 'https://work.test'}}]\nusers: [{name: work, user: {token: t}}]\n" +
		"contexts: [{name: work, context: {cluster: work, user: work}}]\n"
)

// files makes KUBECONFIG name files with these texts; those without one are not
// there.
func files(t *testing.T, texts ...string) (paths []string) {
	t.Helper()
	dir := t.TempDir()
	for i, text := range texts {
		path := filepath.Join(dir, fmt.Sprintf("config-%d", i))
		if text != "" {
			if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		paths = append(paths, path)
	}
	t.Setenv("KUBECONFIG", strings.Join(paths, string(os.PathListSeparator)))
	return paths
}

// contents are the names of a file's contexts, and after a slash the current one.
func contents(t *testing.T, path string) string {
	t.Helper()
	c, err := clientcmd.LoadFromFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, name := range []string{"kind-a-b-c", "kind-a-x", "kind-a-y", "work"} {
		there := 0
		if c.Contexts[name] != nil {
			there++
		}
		if c.Clusters[name] != nil {
			there++
		}
		if c.AuthInfos[name] != nil {
			there++
		}
		if there == 3 {
			names = append(names, name)
		} else if there != 0 {
			names = append(names, name+"?")
		}
	}
	return strings.Join(names, " ") + "/" + c.CurrentContext
}

func want(t *testing.T, path, contexts string) {
	t.Helper()
	if got := contents(t, path); got != contexts {
		t.Errorf("%s has %q, want %q", filepath.Base(path), got, contexts)
	}
}

func none(string) bool { return false }

// TestContexts: what is not the owner's is left alone: other contexts, though their
// names start the same, and the current one.
func TestContexts(t *testing.T) {
	paths := files(t, theirs, "")
	export := func(owner string, kubeconfigs ...[]byte) bool {
		changed, err := ExportContexts(t.Context(), "", owner, kubeconfigs...)
		if err != nil {
			t.Fatal(err)
		}
		return changed
	}
	remove := func(owner string, keep func(string) bool) bool {
		removed, err := RemoveContexts(t.Context(), "", owner, keep)
		if err != nil {
			t.Fatal(err)
		}
		return removed
	}
	if !export("a", kubeconfigOf("a-x", oneKey), kubeconfigOf("a-y", oneKey)) || !export("a-b", kubeconfigOf("a-b-c", oneKey)) {
		t.Error("said to write nothing")
	}
	want(t, paths[0], "kind-a-b-c kind-a-x kind-a-y work/work")
	if export("a", kubeconfigOf("a-x", oneKey)) {
		t.Error("what is there was written again")
	}
	if !export("a", kubeconfigOf("a-x", anotherKey)) {
		t.Error("another key was not written")
	}
	if !remove("a", func(name string) bool { return name == "kind-a-x" }) {
		t.Error("said to remove nothing")
	}
	want(t, paths[0], "kind-a-b-c kind-a-x work/work")
	if !remove("a", none) || remove("a", none) {
		t.Error("the last one is to be removed once")
	}
	want(t, paths[0], "kind-a-b-c work/work")
	if _, err := os.Stat(paths[1]); err == nil {
		t.Error("a file was made that nobody needs")
	}
}

// TestContextsWithoutACurrentOne: who has none gets one, and has none again.
func TestContextsWithoutACurrentOne(t *testing.T) {
	paths := files(t, "")
	if _, err := ExportContexts(t.Context(), "", "a", kubeconfigOf("a-x", oneKey), kubeconfigOf("a-y", oneKey)); err != nil {
		t.Fatal(err)
	}
	want(t, paths[0], "kind-a-x kind-a-y/kind-a-x")
	if _, err := RemoveContexts(t.Context(), "", "a", none); err != nil {
		t.Fatal(err)
	}
	want(t, paths[0], "/")
}

// TestContextsInAFileOfTheirOwn is for a path that is named.
func TestContextsInAFileOfTheirOwn(t *testing.T) {
	paths := files(t, theirs, "")
	if _, err := ExportContexts(t.Context(), paths[1], "a", kubeconfigOf("a-x", oneKey)); err != nil {
		t.Fatal(err)
	}
	want(t, paths[0], "work/work")
	want(t, paths[1], "kind-a-x/kind-a-x")
	// Now both name it.
	if _, err := ExportContexts(t.Context(), paths[0], "a", kubeconfigOf("a-x", oneKey)); err != nil {
		t.Fatal(err)
	}
	if _, err := RemoveContexts(t.Context(), "", "a", none); err != nil {
		t.Fatal(err)
	}
	want(t, paths[0], "work/work")
	want(t, paths[1], "/")
}

// TestContextsThatCannotBeRead: the error names the file.
func TestContextsThatCannotBeRead(t *testing.T) {
	for name, spoil := range map[string]func(path string) error{
		"a folder":      func(path string) error { return os.Mkdir(path, 0o700) },
		"a broken file": func(path string) error { return os.WriteFile(path, []byte("{"), 0o600) },
	} {
		t.Run(name, func(t *testing.T) {
			paths := files(t, theirs, "")
			if err := spoil(paths[1]); err != nil {
				t.Fatal(err)
			}
			_, exported := ExportContexts(t.Context(), "", "a", kubeconfigOf("a-x", oneKey))
			_, removed := RemoveContexts(t.Context(), "", "a", none)
			for _, err := range []error{exported, removed} {
				if err == nil || !strings.Contains(err.Error(), paths[1]) {
					t.Errorf("error %v does not name %s", err, paths[1])
				}
			}
		})
	}
}

// TestContextsLocked waits for a lock, and ends with its context.
func TestContextsLocked(t *testing.T) {
	paths := files(t, theirs)
	if err := os.WriteFile(paths[0]+".lock", nil, 0o600); err != nil {
		t.Fatal(err)
	}
	gaveUp := errors.New("user gave up")
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(gaveUp)
	if _, err := ExportContexts(ctx, "", "a", kubeconfigOf("a-x", oneKey)); !errors.Is(err, gaveUp) {
		t.Errorf("error %v", err)
	}
	want(t, paths[0], "work/work")
}
