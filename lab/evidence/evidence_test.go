package evidence

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
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
		piece("z/pod.log", []byte("\x1b[2Jall is well\r\n"), nil),
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
		"z/pod.log":    `\u001b[2Jall is well\u000d` + "\n",
		"a.txt":        "text",
		"list.json":    "[\n  {\n    \"name\": \"x\",\n    \"big\": 9007199254740993\n  }\n]\n",
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
		t.Errorf("%s mentions the interruption", problems)
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

// TestPieceBound: a piece that does not come, or that takes too long to read, is a
// problem of its own, and the others are there.
func TestPieceBound(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		slow := Piece{Path: "slow.log", Read: func(ctx context.Context) (any, error) {
			<-ctx.Done()
			return nil, ctx.Err()
		}}
		late := Piece{Path: "late.log", Read: func(ctx context.Context) (any, error) {
			<-ctx.Done()
			return "it is too late", nil
		}}
		s, err := Write(t.Context(), filepath.Join(t.TempDir(), "new"), []Piece{slow, late, piece("quick.log", "x", nil)})
		if err != nil || !slices.Equal(s.Files, []string{"quick.log"}) {
			t.Errorf("files %q, error %v", s.Files, err)
		}
		want := []Problem{
			{"late.log", "remove secrets from 14 bytes: context deadline exceeded"},
			{"slow.log", "context deadline exceeded"},
		}
		if !slices.Equal(s.Problems, want) {
			t.Errorf("problems are %+v", s.Problems)
		}
		if took := time.Since(began); took != 30*time.Second {
			t.Errorf("it takes %s", took)
		}
	})
}

// TestLongText: of a text that is too long its end is kept.
func TestLongText(t *testing.T) {
	line := strings.Repeat("x", 99) + "\n"
	dir := filepath.Join(t.TempDir(), "new")
	text := "the first\n" + strings.Repeat(line, longest/len(line)) + "end\n"
	if _, err := Write(t.Context(), dir, []Piece{piece("a.log", text, nil)}); err != nil {
		t.Fatal(err)
	}
	got := contentOf(t, dir, "a.log")
	first, rest, _ := strings.Cut(got, "\n")
	if first != "[removed: the first 10 bytes]" || rest != text[10:] {
		t.Errorf("it begins %q, and %d of %d bytes follow", first, len(rest), len(text))
	}
}

// canary is a secret that nothing knows by its form, and token a JWT.
const (
	canary = "Tr0ub4dor"
	token  = "eyJ0eXAiOiJKV1QiLA0KICJhbGciOiJIUzI1NiJ9.eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ.dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk"
)

// careless is a cluster in which secrets are wherever somebody could put one.
func careless() *fakeCluster {
	var zipped bytes.Buffer
	w := gzip.NewWriter(&zipped)
	_, _ = w.Write([]byte(canary)) // into memory
	_ = w.Close()
	encoded := base64.StdEncoding.EncodeToString(zipped.Bytes())
	meta := func(namespace, name string) map[string]any {
		return map[string]any{
			"name": name, "namespace": namespace, "managedFields": []any{map[string]any{"manager": canary}},
			"annotations": map[string]any{
				"note": canary, "release": encoded, "port": "8443", "deployment.kubernetes.io/revision": "3",
				"kubectl.kubernetes.io/last-applied-configuration": `{"spec":{"x":"` + canary + `"}}`,
			},
		}
	}
	spec := func() map[string]any {
		probe := map[string]any{
			"httpGet": map[string]any{"path": "/healthz?key=" + canary, "port": 8080, "httpHeaders": []any{map[string]any{"name": "X-Key", "value": canary}}},
			"exec":    map[string]any{"command": []any{"/bin/check", canary}}, "periodSeconds": 1,
		}
		return map[string]any{
			"nodeName": "market",
			"containers": []any{map[string]any{
				"name": "main", "image": "fedlab.local/x:1", "livenessProbe": probe, "lifecycle": map[string]any{"preStop": probe},
				"command": []any{"/opt/x", canary},
				"args":    []any{"-allow=spiffe://cluster2.com/client," + canary, "--opaque", canary, "--listen=0.0.0.0:8443", canary + "=x"},
				"env": []any{
					map[string]any{"name": "OPAQUE", "value": canary}, map[string]any{"name": "SOCKET", "value": "unix:///run/agent.sock"},
					map[string]any{"name": "DB_PASSWORD", "valueFrom": map[string]any{"secretKeyRef": map[string]any{"name": "db", "key": "password"}}},
				},
			}},
			"volumes": []any{
				map[string]any{"name": "keys", "secret": map[string]any{"secretName": "db", "defaultMode": 288}},
				map[string]any{"name": "foreign", "iscsi": map[string]any{"x": canary}},
			},
		}
	}
	careless := pod("demo", "web", 1)
	careless["metadata"], careless["spec"] = meta("demo", "web"), spec()
	foreign := pod("theirs", "web-of-theirs", 1)
	foreign["note"] = canary
	return &fakeCluster{
		objects: map[string][]map[string]any{
			"Pod":        {careless, foreign},
			"Deployment": {{"metadata": meta("demo", "db"), "spec": map[string]any{"template": map[string]any{"metadata": meta("", ""), "spec": spec()}}, "data": canary}},
			"Event": {
				{"involvedObject": map[string]any{"namespace": "demo"}, "message": "failed: token=" + canary + " at spiffe://cluster1.com/web", "annotations": canary},
				{"involvedObject": map[string]any{"kind": "Node", "name": "market"}, "message": "the node is ready"},
				{"involvedObject": map[string]any{"namespace": "theirs"}, "message": canary},
			},
			"ConfigMap": {
				{"metadata": meta("spire", "server"), "data": map[string]any{"server.conf": "trust_domain = \"cluster1.com\"\npassword = \"" + canary + "\"\n", "notes": canary, "controller-manager-b.yaml": "clusterName: b\ntoken: " + canary + "\n"}, "binaryData": map[string]any{"x": encoded}},
				{"metadata": meta("kube-public", "cluster-info"), "data": map[string]any{"server.conf": canary}},
			},
			"Secret":          {{"metadata": meta("spire", "kubeconfigs"), "data": map[string]any{"b": canary, "token": token}}},
			"ClusterSPIFFEID": {{"metadata": map[string]any{"name": "broad"}, "spec": map[string]any{"spiffeIDTemplate": "spiffe://{{ .TrustDomain }}/x"}}},
		},
		log: "starts as spiffe://cluster1.com/web\nsvid " + token + "\nwith {\"password\":\"" + canary + "\"}\n",
	}
}

// TestNoSecretInTheFolder plants secrets wherever a lab could leak one, and
// looks for them in every file. What a reader needs is there.
func TestNoSecretInTheFolder(t *testing.T) {
	jwk := map[string]any{"keys": []any{map[string]any{"kty": "EC", "kid": "k1", "x": "public", "d": canary}}}
	dir := filepath.Join(t.TempDir(), "new")
	pieces := append(OfCluster(t.Context(), "market", careless(), []string{"demo", "spire"}),
		piece("bundle.json", jwk, nil), piece("failed", nil, errors.New("dial https://u:"+canary+"@host/x: refused")))
	s, err := Write(t.Context(), dir, pieces)
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range append(s.Files, "problems.txt") {
		text := contentOf(t, dir, path)
		for _, secret := range []string{canary, "H4sI", token[len(token)-20:]} {
			if strings.Contains(text, secret) {
				t.Errorf("%s holds %q:\n%s", path, secret, text)
			}
		}
		if strings.HasSuffix(path, ".json") && !json.Valid([]byte(text)) {
			t.Errorf("%s is no JSON:\n%s", path, text)
		}
		if strings.Contains(text+path, "theirs") {
			t.Errorf("%s shows what is not the lab's:\n%s", path, text)
		}
	}
	for path, wants := range map[string][]string{
		"market/Pod.json": {
			`"/opt/x"`, `"-allow=spiffe://cluster2.com/client,[removed: value]"`, `"--listen=0.0.0.0:8443"`, `"unix:///run/agent.sock"`, `"OPAQUE"`,
			`"secretName": "db"`, `"key": "password"`, `"periodSeconds": 1`, `"deployment.kubernetes.io/revision": "3"`, `"port": "8443"`, `"restartCount": 1`,
		},
		"market/Deployment.json":        {`"--opaque"`, `"image": "fedlab.local/x:1"`},
		"market/Event.json":             {"at spiffe://cluster1.com/web", "the node is ready"},
		"market/ConfigMap.json":         {`trust_domain = \"cluster1.com\"`, `clusterName: b`},
		"market/ClusterSPIFFEID.json":   {"spiffe://{{ .TrustDomain }}/x"},
		"market/logs/demo/web/main.log": {"starts as spiffe://cluster1.com/web", "[removed: token]"},
		"bundle.json":                   {`"x": "public"`},
		"problems.txt":                  {"failed: dial https://[removed: secret]@host/x: refused"},
	} {
		text := contentOf(t, dir, path)
		for _, want := range wants {
			if !strings.Contains(text, want) {
				t.Errorf("%s lacks %s:\n%s", path, want, text)
			}
		}
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

func (c *fakeCluster) Objects(_ context.Context, _, kind, _, _ string) ([]map[string]any, error) {
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
	for _, p := range OfCluster(t.Context(), "market", c, []string{"demo", "spire-system"}) {
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
	if _, err := Write(t.Context(), filepath.Join(t.TempDir(), "new"), OfCluster(t.Context(), "market", c, nil)); err != nil {
		t.Fatal(err)
	}
	if len(c.asked) < 10 || slices.Contains(c.asked, "Secret") {
		t.Errorf("asked for %q", c.asked)
	}
}

func TestOfClusterThatDoesNotAnswer(t *testing.T) {
	c := &fakeCluster{err: errors.New("connection refused")}
	s, err := Write(t.Context(), filepath.Join(t.TempDir(), "new"), OfCluster(t.Context(), "market", c, nil))
	if err != nil || len(s.Files) > 0 {
		t.Errorf("got %q, error %v", s.Files, err)
	}
	if !slices.Contains(s.Problems, Problem{"market/Pod.json", "connection refused"}) {
		t.Errorf("problems are %+v", s.Problems)
	}
}

// TestIndex: the index shows pieces with a title in their order, as their files have them, leads to
// all files, and obeys nothing of what is in them.
func TestIndex(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "quotes <b>")
	titled := func(path, title string, content any, err error) Piece {
		return Piece{Path: path, Title: title, Read: func(context.Context) (any, error) { return content, err }}
	}
	if _, err := Write(t.Context(), dir, []Piece{
		titled("verdict.txt", "What is wrong", "password=hunter2 </pre><script>alert(1)</script>", nil),
		titled("report.html", "The report", "<p>a page of its own", nil),
		titled("status.json", "What status says", map[string]bool{"well": false}, nil),
		titled("nothing.txt", "Nothing", nil, nil),
		titled("look.json", "Bundles", nil, errors.New("no answer, token=hunter2")),
		piece("clusters/a b/pod.log", "not in the index", nil),
	}); err != nil {
		t.Fatal(err)
	}
	got := contentOf(t, dir, "index.html")
	for _, want := range []string{
		"<h1>Evidence quotes &lt;b&gt;</h1>",
		`class="first">password=[removed: secret] &lt;/pre&gt;&lt;script&gt;alert(1)&lt;/script&gt;</pre>`,
		`<h2><a href="report.html">The report</a></h2>`,
		"<summary>What status says</summary>", `{
  &#34;well&#34;: false
}`,
		"<li>look.json: no answer, token=[removed: secret]</li>",
		`<a href="clusters/a%20b/pod.log">clusters/a b/pod.log</a>`,
	} {
		if !strings.Contains(got, want) {
			t.Errorf("the index does not have %s", want)
		}
	}
	for _, never := range []string{"hunter2", "<script", "not in the index", "Nothing", "a page of its own"} {
		if strings.Contains(got, never) {
			t.Errorf("the index has %s", never)
		}
	}
	if t.Failed() {
		t.Log(got)
	}
}
