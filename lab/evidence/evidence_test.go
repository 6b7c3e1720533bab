package evidence

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
)

func piece(path string, content any, err error) Piece {
	return Piece{Path: path, Read: func(context.Context) (any, error) { return content, err }}
}

func contentOf(t *testing.T, dir, path string) string {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(dir, filepath.FromSlash(path)))
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

func TestWrite(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "new")
	s, err := Write(t.Context(), dir, []Piece{
		piece("z/pod.log", []byte("all is well\n"), nil),
		piece("a.txt", "text", nil),
		piece("list.json", []struct {
			Name string `json:"name"`
			Big  int64  `json:"big"`
		}{{"x", 9007199254740993}}, nil),
		piece("nothing", nil, nil),
		piece("gone.json", nil, errors.New("read gone: password=hunter2 refused")),
		piece("bad.json", func() {}, nil),
	})
	if err != nil {
		t.Fatal(err)
	}
	if want := []string{"a.txt", "list.json", "z/pod.log"}; s.Dir != dir || !slices.Equal(s.Files, want) {
		t.Errorf("got %q in %s, want %q", s.Files, s.Dir, want)
	}
	wantProblems := []Problem{
		{"bad.json", "encode: json: unsupported type: func()"},
		{"gone.json", "read gone: password=[removed: secret] refused"},
	}
	if !slices.Equal(s.Problems, wantProblems) {
		t.Errorf("problems are %+v", s.Problems)
	}
	for path, want := range map[string]string{
		"z/pod.log":    "all is well\n",
		"a.txt":        "text",
		"list.json":    "[\n  {\n    \"big\": 9007199254740993,\n    \"name\": \"x\"\n  }\n]\n",
		"problems.txt": "bad.json: encode: json: unsupported type: func()\ngone.json: read gone: password=[removed: secret] refused\n",
	} {
		if got := contentOf(t, dir, path); got != want {
			t.Errorf("%s holds %q, want %q", path, got, want)
		}
	}
}

func TestWriteRefusesAFolderThatHoldsSomething(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "of-yesterday"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	_, err := Write(t.Context(), dir, []Piece{piece("a", "x", nil)})
	if want := "write evidence: folder " + dir + " is not empty: name a new one"; err == nil || err.Error() != want {
		t.Errorf("error is %v, want %s", err, want)
	}
}

// TestWriteEndsWithItsContext: what was cut off is no problem of the lab.
func TestWriteEndsWithItsContext(t *testing.T) {
	errInterrupted := errors.New("interrupted")
	ctx, cancel := context.WithCancelCause(t.Context())
	dir := filepath.Join(t.TempDir(), "new")
	s, err := Write(ctx, dir, []Piece{{Path: "slow.log", Read: func(ctx context.Context) (any, error) {
		cancel(errInterrupted)
		return nil, context.Cause(ctx)
	}}})
	if want := "write evidence: folder " + dir + " lacks what was not read yet: interrupted"; !errors.Is(err, errInterrupted) || err.Error() != want {
		t.Errorf("error is %v with %+v, want %s", err, s, want)
	}
	if _, err := os.Stat(filepath.Join(dir, problems)); err == nil {
		t.Errorf("%s tells of the interruption", problems)
	}
}

func TestWriteStaysInItsFolder(t *testing.T) {
	parent := t.TempDir()
	if _, err := Write(t.Context(), filepath.Join(parent, "in"), []Piece{piece("../out", "x", nil)}); err == nil {
		t.Error("a piece was written outside")
	}
	if _, err := os.Stat(filepath.Join(parent, "out")); err == nil {
		t.Error("it is there")
	}
}

// TestNoSecretInTheFolder plants secrets wherever a lab could leak one, and
// looks for them in every file.
func TestNoSecretInTheFolder(t *testing.T) {
	planted := keys(t)["EC in PKCS #8"]
	c := &fakeCluster{
		objects: map[string][]map[string]any{
			"Pod": {pod("demo", "web", 1)},
			"Deployment": {{
				"metadata": map[string]any{"name": "db", "managedFields": []any{map[string]any{"manager": "x"}}, "annotations": map[string]any{"note": planted.pem}},
				"spec": map[string]any{
					"env":  []any{map[string]any{"name": "POSTGRES_PASSWORD", "value": "hunter2"}, map[string]any{"name": "POSTGRES_USER", "value": "postgres"}},
					"args": []any{"--svid=" + token, "-key", planted.pem},
				},
			}},
			"Event": {{"message": "failed: token=hunter2"}},
		},
		log: prefixed(planted.pem) + "jwt " + token + "\n",
	}
	jwk := map[string]any{"keys": []any{map[string]any{"kty": "EC", "kid": "k1", "x": "public", "d": "hunter2"}}}
	dir := filepath.Join(t.TempDir(), "new")
	s, err := Write(t.Context(), dir, append(OfCluster(t.Context(), "market", c), piece("bundle.json", jwk, nil), piece("failed", nil, errors.New(planted.pem))))
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range append(s.Files, "problems.txt") {
		text := contentOf(t, dir, path)
		for _, secret := range append(planted.fragments(), "hunter2", token[len(token)-20:]) {
			if strings.Contains(text, secret) {
				t.Errorf("%s holds %q:\n%s", path, secret, text)
			}
		}
		if strings.HasSuffix(path, ".json") && !json.Valid([]byte(text)) {
			t.Errorf("%s is no JSON:\n%s", path, text)
		}
	}
	var deployment []struct {
		Metadata map[string]any `json:"metadata"`
		Spec     struct {
			Env []struct{ Name, Value string } `json:"env"`
		} `json:"spec"`
	}
	if err := json.Unmarshal([]byte(contentOf(t, dir, "market/Deployment.json")), &deployment); err != nil {
		t.Fatal(err)
	}
	if env := deployment[0].Spec.Env; env[0].Value != "[removed: secret]" || env[1].Value != "postgres" {
		t.Errorf("the variables are %+v", env)
	}
	if _, there := deployment[0].Metadata["managedFields"]; there {
		t.Error("managed fields were kept")
	}
	if got := contentOf(t, dir, "bundle.json"); !strings.Contains(got, `"x": "public"`) {
		t.Errorf("the public part of the key is gone: %s", got)
	}
}

// fakeCluster has one container, which writes the same log in each run.
type fakeCluster struct {
	objects map[string][]map[string]any
	log     string
	err     error

	mu    sync.Mutex
	asked []string
}

func pod(namespace, name string, restarts int) map[string]any {
	return map[string]any{
		"metadata": map[string]any{"namespace": namespace, "name": name},
		"status": map[string]any{
			"initContainerStatuses": []any{map[string]any{"name": "never-ran", "restartCount": 0}},
			"containerStatuses":     []any{map[string]any{"name": "main", "restartCount": restarts, "containerID": "x"}},
		},
	}
}

func (c *fakeCluster) Objects(_ context.Context, _, kind, _ string) ([]map[string]any, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.asked = append(c.asked, kind)
	return c.objects[kind], c.err
}

func (c *fakeCluster) Logs(context.Context, string, string, string, bool, int64) ([]byte, error) {
	return []byte(c.log), c.err
}

func TestOfClusterKeepsLogsOfBothRuns(t *testing.T) {
	c := &fakeCluster{objects: map[string][]map[string]any{"Pod": {pod("demo", "fresh", 0), pod("spire-system", "restarted", 2)}}}
	var logs []string
	for _, p := range OfCluster(t.Context(), "market", c) {
		if strings.HasPrefix(p.Path, "market/logs/") {
			logs = append(logs, p.Path)
		}
	}
	want := []string{
		"market/logs/demo/fresh/main.log",
		"market/logs/spire-system/restarted/main.log",
		"market/logs/spire-system/restarted/main.previous.log",
	}
	if !slices.Equal(logs, want) {
		t.Errorf("got %q, want %q", logs, want)
	}
}

func TestOfClusterNeverAsksForSecrets(t *testing.T) {
	c := &fakeCluster{}
	if _, err := Write(t.Context(), filepath.Join(t.TempDir(), "new"), OfCluster(t.Context(), "market", c)); err != nil {
		t.Fatal(err)
	}
	if len(c.asked) < 10 || slices.Contains(c.asked, "Secret") {
		t.Errorf("asked for %q", c.asked)
	}
}

func TestOfClusterThatDoesNotAnswer(t *testing.T) {
	c := &fakeCluster{err: errors.New("connection refused")}
	s, err := Write(t.Context(), filepath.Join(t.TempDir(), "new"), OfCluster(t.Context(), "market", c))
	if err != nil || len(s.Files) > 0 {
		t.Errorf("got %q, error %v", s.Files, err)
	}
	if !slices.Contains(s.Problems, Problem{"market/Pod.json", "connection refused"}) {
		t.Errorf("problems are %+v", s.Problems)
	}
}
