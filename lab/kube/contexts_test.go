package kube

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

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

// contents are the names of a file's contexts, and after a slash the current one;
// empty where there is no file.
func contents(t *testing.T, path string) string {
	t.Helper()
	c, err := clientcmd.LoadFromFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return ""
	}
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

// TestContextsWithoutACurrentOne: who has none gets one, and has none again. The file
// was made for them, and goes with them.
func TestContextsWithoutACurrentOne(t *testing.T) {
	paths := files(t, "")
	if _, err := ExportContexts(t.Context(), "", "a", kubeconfigOf("a-x", oneKey), kubeconfigOf("a-y", oneKey)); err != nil {
		t.Fatal(err)
	}
	want(t, paths[0], "kind-a-x kind-a-y/kind-a-x")
	if _, err := RemoveContexts(t.Context(), "", "a", none); err != nil {
		t.Fatal(err)
	}
	want(t, paths[0], "")
}

// TestContextsOfALabThatStays: when the lab goes that had the current context, the next
// export of another one has nothing to write.
func TestContextsOfALabThatStays(t *testing.T) {
	paths := files(t, "")
	for _, cluster := range []string{"a-x", "a-b-c"} {
		if _, err := ExportContexts(t.Context(), "", cluster, kubeconfigOf(cluster, oneKey)); err != nil {
			t.Fatal(err)
		}
	}
	want(t, paths[0], "kind-a-b-c kind-a-x/kind-a-x")
	if _, err := RemoveContexts(t.Context(), "", "a-x", none); err != nil {
		t.Fatal(err)
	}
	if changed, err := ExportContexts(t.Context(), "", "a-b-c", kubeconfigOf("a-b-c", oneKey)); err != nil || changed {
		t.Errorf("changed %t, error %v", changed, err)
	}
	want(t, paths[0], "kind-a-b-c/")
	if changed, err := ExportContexts(t.Context(), "", "a-b-c", kubeconfigOf("a-b-c", anotherKey)); err != nil || !changed {
		t.Errorf("another key: changed %t, error %v", changed, err)
	}
	want(t, paths[0], "kind-a-b-c/kind-a-b-c")
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
	want(t, paths[1], "")
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

// TestContextsOfAKilledWriter: what it left is taken away by whoever comes next, also
// where there is nothing else to do.
func TestContextsOfAKilledWriter(t *testing.T) {
	text, err := lockText()
	if err != nil {
		t.Fatal(err)
	}
	for name, next := range map[string]func(context.Context) (bool, error){
		"removes": func(ctx context.Context) (bool, error) { return RemoveContexts(ctx, "", "a", none) },
		"exports": func(ctx context.Context) (bool, error) {
			return ExportContexts(ctx, "", "a", kubeconfigOf("a-x", oneKey))
		},
	} {
		t.Run(name, func(t *testing.T) {
			paths := files(t, theirs)
			if err := errors.Join(os.Symlink(text, lockName(paths[0])), os.WriteFile(unfinished(paths[0]), []byte("half"), 0o600)); err != nil {
				t.Fatal(err)
			}
			if changed, err := next(t.Context()); err != nil || changed != (name == "exports") {
				t.Errorf("changed %t, error %v", changed, err)
			}
			left, err := os.ReadDir(filepath.Dir(paths[0]))
			if err != nil || len(left) != 1 {
				t.Errorf("left are %v, error %v", left, err)
			}
		})
	}
}

// TestContextsKeepTheFile: its mode stays, and a link to it stays one.
func TestContextsKeepTheFile(t *testing.T) {
	paths := files(t, theirs)
	link := paths[0] + "-link"
	if err := errors.Join(os.Chmod(paths[0], 0o640), os.Symlink(paths[0], link)); err != nil {
		t.Fatal(err)
	}
	if _, err := ExportContexts(t.Context(), link, "a", kubeconfigOf("a-x", oneKey)); err != nil {
		t.Fatal(err)
	}
	want(t, paths[0], "kind-a-x work/work")
	if to, err := os.Readlink(link); err != nil || to != paths[0] {
		t.Errorf("the link leads to %q, error %v", to, err)
	}
	if info, err := os.Stat(paths[0]); err != nil || info.Mode().Perm() != 0o640 {
		t.Errorf("its mode is %v, error %v", info.Mode(), err)
	}
}

// TestContextsLockedByOthers: the lock of a kubectl, or of a fedlab on another
// machine, is nobody's to take away.
func TestContextsLockedByOthers(t *testing.T) {
	for name, lock := range map[string]func(name string) error{
		"kubectl":         func(name string) error { return os.WriteFile(name, nil, 0) },
		"another machine": func(name string) error { return os.Symlink("fedlab@elsewhere", name) },
	} {
		t.Run(name, func(t *testing.T) {
			paths := files(t, theirs)
			if err := lock(lockName(paths[0])); err != nil {
				t.Fatal(err)
			}
			synctest.Test(t, func(t *testing.T) {
				_, err := ExportContexts(t.Context(), "", "a", kubeconfigOf("a-x", oneKey))
				if err == nil || !strings.Contains(err.Error(), lockName(paths[0])+" has been there for 5s") {
					t.Errorf("error %v", err)
				}
			})
			want(t, paths[0], "work/work")
			if _, err := os.Lstat(lockName(paths[0])); err != nil {
				t.Error(err)
			}
		})
	}
}

// killed is set in the process that TestContextsOfAKilledProcess kills.
const killed = "FEDLAB_TEST_KILLED"

// TestContextsOfAKilledProcess: at no moment is what others have in the file at
// stake.
func TestContextsOfAKilledProcess(t *testing.T) {
	if os.Getenv(killed) != "" {
		for {
			_, exported := ExportContexts(t.Context(), "", "a", kubeconfigOf("a-x", oneKey), kubeconfigOf("a-y", oneKey))
			_, removed := RemoveContexts(t.Context(), "", "a", none)
			if err := errors.Join(exported, removed); err != nil {
				t.Fatal(err)
			}
		}
	}
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	dice := rand.New(rand.NewPCG(seed, 0)) //nolint:gosec // no secret
	paths := files(t, theirs)
	for range 20 {
		cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^"+t.Name()+"$")
		cmd.Env = append(os.Environ(), killed+"=yes")
		said, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		// It is under way when it has changed the file.
		before, err := os.Stat(paths[0])
		for began := time.Now(); err == nil; {
			if time.Since(began) > time.Minute {
				t.Fatal("it does not write the file")
			}
			var now os.FileInfo
			if now, err = os.Stat(paths[0]); err == nil && !os.SameFile(before, now) {
				break
			}
		}
		if err != nil {
			t.Fatal(err)
		}
		<-time.After(time.Duration(dice.Int64N(int64(5 * time.Millisecond))))
		if err := cmd.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		text, err := io.ReadAll(said)
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Wait(); err == nil || strings.Contains(string(text), "FAIL") {
			t.Fatalf("it ended with %v: %s", err, text)
		}
		if got := contents(t, paths[0]); !strings.Contains(got, "work") || !strings.HasSuffix(got, "/work") || strings.Contains(got, "?") {
			t.Fatalf("the file has %q", got)
		}
		if _, err := RemoveContexts(t.Context(), "", "a", none); err != nil {
			t.Fatal(err)
		}
		want(t, paths[0], "work/work")
		left, err := os.ReadDir(filepath.Dir(paths[0]))
		if err != nil || len(left) != 1 {
			t.Fatalf("left are %v, error %v", left, err)
		}
	}
}
