package helmrelease

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/fstest"

	"helm.sh/helm/v3/pkg/release"

	"github.com/fedlab-dev/fedlab/lab/access"
)

// demo is a chart of one ConfigMap "base" and one for each name in "extra".
func demo() fstest.MapFS {
	file := func(text string) *fstest.MapFile { return &fstest.MapFile{Data: []byte(text)} }
	return fstest.MapFS{
		"Chart.yaml":  file("apiVersion: v2\nname: demo\nversion: 1.0.0\n"),
		"values.yaml": file("size: 1\nextra: []\n"),
		"templates/maps.yaml": file(`
{{- range concat (list "base") .Values.extra }}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: {{ . }}}
data: {size: {{ $.Values.size | quote }}}
{{- end }}
`),
	}
}

type values struct {
	Size  int      `json:"size"`
	Extra []string `json:"extra"`
}

func releaseOf(size int, extra ...string) Release {
	extra = append([]string{}, extra...)
	return Release{Name: "demo", Namespace: "demo", Chart: demo(), Values: values{Size: size, Extra: extra}}
}

func TestApply(t *testing.T) {
	a := newAPI()
	c := connect(t, a)
	steps := []struct {
		name     string
		release  Release
		changed  bool
		objects  []string
		revision int
	}{
		{"install", releaseOf(1, "red"), true, []string{"base=1", "red=1"}, 1},
		{"the same again", releaseOf(1, "red"), false, []string{"base=1", "red=1"}, 1},
		{"another value", releaseOf(2, "red"), true, []string{"base=2", "red=2"}, 2},
		{"one less, one more", releaseOf(2, "green"), true, []string{"base=2", "green=2"}, 3},
		{"the chart's own values", Release{Name: "demo", Namespace: "demo", Chart: demo()}, true, []string{"base=1"}, 4},
		{"large number", releaseOf(10_000_000_000), true, []string{"base=10000000000"}, 5},
	}
	for _, step := range steps {
		changed, err := c.Apply(t.Context(), step.release)
		if err != nil || changed != step.changed || !slices.Equal(a.names(), step.objects) {
			t.Fatalf("%s: changed %t, error %v, objects %v; want %t and %v", step.name, changed, err, a.names(), step.changed, step.objects)
		}
		last := lastOf(t, c)
		if last == nil || last.Version != step.revision || last.Info.Status != release.StatusDeployed || last.Chart.Name() != "demo" || last.Chart.Metadata.Version != "1.0.0" {
			t.Fatalf("%s: last revision %+v, want %d", step.name, last, step.revision)
		}
	}
	other := releaseOf(10_000_000_000)
	other.Chart.(fstest.MapFS)["templates/more.yaml"] = &fstest.MapFile{Data: []byte("# nothing")}
	if changed, err := c.Apply(t.Context(), other); !changed || err != nil {
		t.Errorf("another chart: changed %t, error %v", changed, err)
	}

	// Its files are others once more, and make what is there.
	version := lastOf(t, c).Version
	other.Chart.(fstest.MapFS)["templates/none.yaml"] = &fstest.MapFile{Data: []byte("{{- if .Values.nothing }}\nkind: ConfigMap\n{{- end }}\n")}
	if changed, err := c.Apply(t.Context(), other); changed || err != nil || lastOf(t, c).Version != version+1 {
		t.Errorf("a chart that makes the same: changed %t, error %v, revision %d after %d", changed, err, lastOf(t, c).Version, version)
	}

	for range 2 {
		if err := c.Remove(t.Context(), "demo", "demo"); err != nil {
			t.Fatal(err)
		}
	}
	if last := lastOf(t, c); last != nil || len(a.names()) != 0 {
		t.Errorf("after uninstall: last revision %+v, objects %v", last, a.names())
	}
}

// lastOf returns the newest revision of the release "demo", nil for none.
func lastOf(t *testing.T, c *Client) *release.Release {
	t.Helper()
	helm, err := c.configuration(t.Context(), "demo")
	if err != nil {
		t.Fatal(err)
	}
	last, err := lastRevision(helm, "demo")
	if err != nil {
		t.Fatal(err)
	}
	return last
}

// TestApplyUnchangedOnlyLooks is what makes a second run of a lab fast.
func TestApplyUnchangedOnlyLooks(t *testing.T) {
	a := newAPI()
	if _, err := connect(t, a).Apply(t.Context(), releaseOf(1, "red")); err != nil {
		t.Fatal(err)
	}
	a.calls = nil
	if changed, err := connect(t, a).Apply(t.Context(), releaseOf(1, "red")); changed || err != nil {
		t.Fatalf("changed %t, error %v", changed, err)
	}
	slices.Sort(a.calls[4:]) // objects are looked at side by side
	want := []string{
		"GET /api/v1/namespaces/demo/secrets",
		"GET /api", "GET /apis", "GET /api/v1", // which kinds there are
		"GET /api/v1/namespaces/demo/configmaps/base", "GET /api/v1/namespaces/demo/configmaps/red",
	}
	if !slices.Equal(a.calls, want) {
		t.Errorf("calls %v, want %v", a.calls, want)
	}
}

// TestApplyPutsBack has a release on an object of which somebody else had their
// hands.
func TestApplyPutsBack(t *testing.T) {
	const path = "/api/v1/namespaces/demo/configmaps/base"
	type object = map[string]any
	data := func(a *api) object { return a.objects[path]["data"].(object) }
	tests := map[string]struct {
		touch    func(*api)
		putsBack bool
		want     object
	}{
		"deleted":         {func(a *api) { delete(a.objects, path) }, true, object{"size": "1"}},
		"edited":          {func(a *api) { data(a)["size"] = "9" }, true, object{"size": "1"}},
		"a key taken out": {func(a *api) { delete(data(a), "size") }, true, object{"size": "1"}},
		"all taken out":   {func(a *api) { delete(a.objects[path], "data") }, true, object{"size": "1"}},
		"a key put in":    {func(a *api) { data(a)["note"] = "theirs" }, false, object{"size": "1", "note": "theirs"}},
		"edited, and a key put in": {
			func(a *api) { maps.Copy(data(a), object{"size": "9", "note": "theirs"}) }, true, object{"size": "1", "note": "theirs"},
		},
		"one that cannot be changed": {
			func(a *api) { a.objects[path]["immutable"], data(a)["size"] = true, "9" }, true, object{"size": "1"},
		},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			a := newAPI()
			c := connect(t, a)
			if _, err := c.Apply(t.Context(), releaseOf(1, "red")); err != nil {
				t.Fatal(err)
			}
			tt.touch(a)
			for _, want := range []bool{tt.putsBack, false} {
				if changed, err := c.Apply(t.Context(), releaseOf(1, "red")); changed != want || err != nil {
					t.Errorf("changed %t, error %v, want %t", changed, err, want)
				}
			}
			if got := data(a); !maps.Equal(got, tt.want) {
				t.Errorf("data %v, want %v", got, tt.want)
			}
		})
	}
}

// TestApplyPutsBackWhatWas: a chart that makes a password at random would make
// another.
func TestApplyPutsBackWhatWas(t *testing.T) {
	const path = "/api/v1/namespaces/demo/configmaps/base"
	a := newAPI()
	r := releaseOf(1)
	chart := r.Chart.(fstest.MapFS)["templates/maps.yaml"]
	chart.Data = bytes.ReplaceAll(chart.Data, []byte("$.Values.size"), []byte("randAlphaNum 16"))
	if _, err := connect(t, a).Apply(t.Context(), r); err != nil {
		t.Fatal(err)
	}
	was := a.names()
	delete(a.objects, path)
	if changed, err := connect(t, a).Apply(t.Context(), r); !changed || err != nil {
		t.Errorf("changed %t, error %v", changed, err)
	}
	if is := a.names(); !slices.Equal(is, was) {
		t.Errorf("objects %v, want %v", is, was)
	}
}

// TestApplyKeepsData: what data would go with is not made again.
func TestApplyKeepsData(t *testing.T) {
	const path = "/api/v1/namespaces/demo/persistentvolumeclaims/disk"
	a := newAPI()
	r := releaseOf(1)
	chart := r.Chart.(fstest.MapFS)["templates/maps.yaml"]
	chart.Data = []byte("apiVersion: v1\nkind: PersistentVolumeClaim\nmetadata: {name: disk}\ndata: here\n")
	if _, err := connect(t, a).Apply(t.Context(), r); err != nil {
		t.Fatal(err)
	}
	a.objects[path]["immutable"], a.objects[path]["data"] = true, "there"
	_, err := connect(t, a).Apply(t.Context(), r)
	if want := "apply release demo/demo: compare persistentvolumeclaims disk with manifest: " + path + " is immutable"; err == nil || err.Error() != want {
		t.Errorf("error %v, want %s", err, want)
	}
	if a.objects[path]["data"] != "there" {
		t.Errorf("it is %v", a.objects[path])
	}
}

// TestApplyBelievesTheAPI: what the API server does not keep, however often it is
// sent, has not been taken away by anybody.
func TestApplyBelievesTheAPI(t *testing.T) {
	a := newAPI()
	r := releaseOf(1)
	chart := r.Chart.(fstest.MapFS)["templates/maps.yaml"]
	chart.Data = append(chart.Data, "\n---\napiVersion: v1\nkind: ConfigMap\nmetadata: {name: empty}\nbinaryData: {}\n"...)
	if _, err := connect(t, a).Apply(t.Context(), r); err != nil {
		t.Fatal(err)
	}
	a.calls = nil
	if changed, err := connect(t, a).Apply(t.Context(), r); changed || err != nil {
		t.Errorf("changed %t, error %v", changed, err)
	}
	asked := slices.DeleteFunc(a.calls, func(c string) bool { return strings.HasPrefix(c, "GET") })
	if want := []string{"PATCH All /api/v1/namespaces/demo/configmaps/empty"}; !slices.Equal(asked, want) {
		t.Errorf("asked %v, want %v", asked, want)
	}
}

func TestHistoryIsShort(t *testing.T) {
	a := newAPI()
	c := connect(t, a)
	for size := range history + 3 {
		if _, err := c.Apply(t.Context(), releaseOf(size)); err != nil {
			t.Fatal(err)
		}
	}
	kept := 0
	for path := range a.objects {
		if strings.Contains(path, "/secrets/") {
			kept++
		}
	}
	if kept != history {
		t.Errorf("%d revisions are kept, want %d", kept, history)
	}
}

func TestList(t *testing.T) {
	a := newAPI()
	c := connect(t, a)
	if names, err := c.List(t.Context()); err != nil || len(names) != 0 {
		t.Errorf("of nothing: %v, error %v", names, err)
	}
	for _, at := range []access.Release{{Namespace: "other", Name: "b"}, {Namespace: "demo", Name: "demo"}, {Namespace: "demo", Name: "b"}} {
		for size := range 2 { // two revisions
			r := releaseOf(size)
			r.Namespace, r.Name = at.Namespace, at.Name
			r.Chart.(fstest.MapFS)["templates/maps.yaml"] = &fstest.MapFile{Data: []byte("# nothing")}
			if _, err := c.Apply(t.Context(), r); err != nil {
				t.Fatal(err)
			}
		}
	}
	// What is half-made is there, too; what Helm made for others is not asked for.
	secret := func(name, release string, labels map[string]any) {
		labels["name"] = release
		a.objects["/api/v1/namespaces/demo/secrets/"+name] = map[string]any{
			"apiVersion": "v1", "kind": "Secret", "metadata": map[string]any{"name": name, "namespace": "demo", "labels": labels},
		}
	}
	secret("sh.helm.release.v1.half.v1", "half", map[string]any{"owner": "helm", "status": "pending-install", digestLabel: "x"})
	secret("sh.helm.release.v1.theirs.v1", "theirs", map[string]any{"owner": "helm", "status": "deployed"})
	secret("something", "something", map[string]any{digestLabel: "x"})

	a.calls = nil
	names, err := c.List(t.Context())
	if want := []access.Release{{Namespace: "demo", Name: "b"}, {Namespace: "demo", Name: "demo"}, {Namespace: "demo", Name: "half"}, {Namespace: "other", Name: "b"}}; err != nil || !slices.Equal(names, want) {
		t.Errorf("names %v, error %v, want %v", names, err, want)
	}
	if !slices.Equal(a.calls, []string{"GET /api/v1/secrets"}) {
		t.Errorf("calls %v", a.calls)
	}
	if err := c.Remove(t.Context(), "demo", "b"); err != nil {
		t.Fatal(err)
	}
	if names, err := c.List(t.Context()); err != nil || slices.Contains(names, access.Release{Namespace: "demo", Name: "b"}) || len(names) != 3 {
		t.Errorf("after uninstall: %v, error %v", names, err)
	}

	a.calls, a.failAt = nil, 1
	if _, err := c.List(t.Context()); err == nil || !strings.HasPrefix(err.Error(), "list releases: ") || !strings.Contains(err.Error(), "injected into call 1") {
		t.Errorf("when the call fails: %v", err)
	}
}

// applied is what a cluster has seen: these releases.
func applied(releases ...Release) func(*testing.T, *api) {
	return func(t *testing.T, a *api) {
		t.Helper()
		for _, r := range releases {
			if _, err := connect(t, a).Apply(t.Context(), r); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// deleted is applied, and an object of it deleted by hand.
func deleted(name string, r Release) func(*testing.T, *api) {
	return func(t *testing.T, a *api) {
		t.Helper()
		applied(r)(t, a)
		delete(a.objects, "/api/v1/namespaces/demo/configmaps/"+name)
	}
}

// stiff is applied, and an object of it replaced by one that cannot be changed.
func stiff(name string, r Release) func(*testing.T, *api) {
	return func(t *testing.T, a *api) {
		t.Helper()
		applied(r)(t, a)
		object := a.objects["/api/v1/namespaces/demo/configmaps/"+name]
		object["immutable"], object["data"] = true, map[string]any{"size": "9"}
	}
}

// TestKilledAnywhere kills a client at each of its calls in turn. A new one has
// to bring the cluster to what it is asked for, with nothing left over.
func TestKilledAnywhere(t *testing.T) {
	t.Parallel()
	apply := func(r Release) func(context.Context, *Client) error {
		return func(ctx context.Context, c *Client) error { _, err := c.Apply(ctx, r); return err }
	}
	uninstall := func(ctx context.Context, c *Client) error { return c.Remove(ctx, "demo", "demo") }
	tests := map[string]struct {
		before func(*testing.T, *api)
		killed func(context.Context, *Client) error
		then   Release
		want   []string
	}{
		"install":                  {applied(), apply(releaseOf(1, "red")), releaseOf(1, "red"), []string{"base=1", "red=1"}},
		"install, then other":      {applied(), apply(releaseOf(1, "red")), releaseOf(2, "green"), []string{"base=2", "green=2"}},
		"upgrade":                  {applied(releaseOf(1, "red")), apply(releaseOf(2, "green")), releaseOf(2, "green"), []string{"base=2", "green=2"}},
		"upgrade, then other":      {applied(releaseOf(1, "red")), apply(releaseOf(2, "green")), releaseOf(3, "blue"), []string{"base=3", "blue=3"}},
		"upgrade, then back":       {applied(releaseOf(1, "red")), apply(releaseOf(2, "green")), releaseOf(1, "red"), []string{"base=1", "red=1"}},
		"uninstall":                {applied(releaseOf(1, "red")), uninstall, releaseOf(1, "red"), []string{"base=1", "red=1"}},
		"uninstall, then less":     {applied(releaseOf(1, "red")), uninstall, releaseOf(1), []string{"base=1"}},
		"putting back":             {deleted("red", releaseOf(1, "red")), apply(releaseOf(1, "red")), releaseOf(1, "red"), []string{"base=1", "red=1"}},
		"making again":             {stiff("red", releaseOf(1, "red")), apply(releaseOf(1, "red")), releaseOf(1, "red"), []string{"base=1", "red=1"}},
		"putting back, then other": {deleted("red", releaseOf(1, "red")), apply(releaseOf(1, "red")), releaseOf(2, "red"), []string{"base=2", "red=2"}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			before := newAPI()
			tt.before(t, before)
			for dieAt := 1; ; dieAt++ {
				a := &api{objects: clone(before.objects)}
				ctx, kill := context.WithCancel(t.Context())
				a.dieAt, a.kill = dieAt, kill
				_ = tt.killed(ctx, connect(t, a))
				kill()
				a.mu.Lock()
				survived := len(a.calls) < dieAt
				at := a.calls[len(a.calls)-1]
				a.dieAt = 0
				a.mu.Unlock()

				again := connect(t, a)
				if _, err := again.Apply(t.Context(), tt.then); err != nil {
					t.Fatalf("killed at call %d, %s: %v", dieAt, at, err)
				}
				if got := a.names(); !slices.Equal(got, tt.want) {
					t.Errorf("killed at call %d, %s: objects %v, want %v", dieAt, at, got, tt.want)
				}
				if changed, err := again.Apply(t.Context(), tt.then); changed || err != nil {
					t.Errorf("killed at call %d, %s: second apply changed %t, error %v", dieAt, at, changed, err)
				}
				if survived {
					return
				}
			}
		})
	}
}

// TestEachCallFailing lets each call fail in turn. Apply either says so or has
// done its work; Helm gets by without some of the calls.
func TestEachCallFailing(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		before func(*testing.T, *api)
		want   []string
	}{
		"install":      {applied(), []string{"base=2", "green=2"}},
		"upgrade":      {applied(releaseOf(1)), []string{"base=2", "green=2"}},
		"putting back": {deleted("green", releaseOf(2, "green")), []string{"base=2", "green=2"}},
		"making again": {stiff("green", releaseOf(2, "green")), []string{"base=2", "green=2"}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			before := newAPI()
			tt.before(t, before)
			failures := 0
			for failAt := 1; ; failAt++ {
				a := &api{objects: clone(before.objects)}
				a.failAt = failAt
				_, err := connect(t, a).Apply(t.Context(), releaseOf(2, "green"))
				if err != nil {
					failures++
					if !strings.HasPrefix(err.Error(), "apply release demo/demo: ") {
						t.Errorf("call %d fails: %v", failAt, err)
					}
				}
				if got := a.names(); err == nil && !slices.Equal(got, tt.want) {
					t.Errorf("call %d, %s, fails: no error, and objects %v", failAt, a.calls[failAt-1], got)
				}
				if len(a.calls) < failAt {
					break
				}
				a.failAt = 0
				if _, err := connect(t, a).Apply(t.Context(), releaseOf(2, "green")); err != nil || !slices.Equal(a.names(), tt.want) {
					t.Errorf("after call %d failed: objects %v, error %v", failAt, a.names(), err)
				}
			}
			if failures < 5 {
				t.Errorf("only %d failures showed", failures)
			}
		})
	}
}

func TestApplyEndsWithItsContext(t *testing.T) {
	a := newAPI()
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(errors.New("user gave up"))
	_, err := connect(t, a).Apply(ctx, releaseOf(1))
	if err == nil || !strings.HasPrefix(err.Error(), "apply release demo/demo: user gave up: ") || len(a.calls) != 0 {
		t.Errorf("error %v, calls %v", err, a.calls)
	}
}

func TestApplyRefuses(t *testing.T) {
	tests := map[string]struct {
		change func(*Release)
		err    string
	}{
		"no chart":       {func(r *Release) { r.Chart = nil }, "apply release demo/demo: read chart: none is given"},
		"empty folder":   {func(r *Release) { r.Chart = fstest.MapFS{} }, "apply release demo/demo: load chart: Chart.yaml file is missing"},
		"values":         {func(r *Release) { r.Values = []int{1} }, "apply release demo/demo: values are not a JSON object: json: cannot unmarshal array into Go value of type map[string]interface {}"},
		"no JSON":        {func(r *Release) { r.Values = func() {} }, "apply release demo/demo: encode values: json: unsupported type: func()"},
		"absent folder":  {func(r *Release) { r.Chart = os.DirFS("/nowhere") }, "apply release demo/demo: read chart: stat .: no such file or directory"},
		"foreign object": {func(r *Release) { r.Values = values{Extra: []string{"theirs"}} }, "exists and cannot be imported into the current release"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			a := newAPI()
			a.objects["/api/v1/namespaces/demo/configmaps/theirs"] = map[string]any{
				"apiVersion": "v1", "kind": "ConfigMap", "metadata": map[string]any{"name": "theirs", "namespace": "demo"},
			}
			r := releaseOf(1)
			tt.change(&r)
			_, err := connect(t, a).Apply(t.Context(), r)
			if err == nil || err.Error() != tt.err && (name != "foreign object" || !strings.Contains(err.Error(), tt.err)) {
				t.Errorf("error %v, want %s", err, tt.err)
			}
			if got := a.names(); !slices.Equal(got, []string{"theirs=<nil>"}) {
				t.Errorf("objects %v", got)
			}
		})
	}
}

// TestNothingInHome checks that Helm's caches stay in memory.
func TestNothingInHome(t *testing.T) {
	home := t.TempDir()
	for _, name := range []string{"HOME", "XDG_CACHE_HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME", "HELM_CACHE_HOME", "KUBECACHEDIR", "TMPDIR"} {
		t.Setenv(name, home)
	}
	a := newAPI()
	for size := range 2 {
		if _, err := connect(t, a).Apply(t.Context(), releaseOf(size)); err != nil {
			t.Fatal(err)
		}
	}
	err := filepath.WalkDir(home, func(path string, _ fs.DirEntry, err error) error {
		if err == nil && path != home {
			err = fmt.Errorf("left %s", path)
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
}

func TestNewRefusesWhatIsNoKubeconfig(t *testing.T) {
	for _, text := range []string{"a: [", "apiVersion: v1\nkind: Config\n"} {
		if _, err := New([]byte(text)); err == nil || !strings.HasPrefix(err.Error(), "read kubeconfig: ") {
			t.Errorf("%q: error %v", text, err)
		}
	}
}
