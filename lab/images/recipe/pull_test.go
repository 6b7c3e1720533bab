package recipe

import (
	"errors"
	"flag"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/fedlab-dev/fedlab/lab/images/internal/imagestest"
	"github.com/fedlab-dev/fedlab/lab/images/pull"
	"github.com/fedlab-dev/fedlab/lab/images/store"
)

var update = flag.Bool("update", false, "rewrite docs/reference/images.md")

func TestMain(m *testing.M) { imagestest.Main(m, nil) }

// A mirror that has rebuilt kind's node image has another digest of it.
func TestOtherKindNode(t *testing.T) {
	digest := kindNode().Digest
	for _, tt := range []struct{ reference, want, err string }{
		{"", "127.0.0.1:5000/kindest/node@" + digest, ""},
		{"docker.io/kindest/node:ours", "127.0.0.1:5000/kindest/node:ours", ""},
		{"nodes.example/kind:v9@" + digest, "127.0.0.1:5000/kind@" + digest, ""},
		{"kindest/node:ours@sha256:12", "", "read the reference of a node image, want NAME:TAG or NAME:TAG@DIGEST: "},
		{"http://nodes.example/kind", "", "read the reference of a node image, want NAME:TAG or NAME:TAG@DIGEST: "},
	} {
		r, err := New(Choices{KindNode: tt.reference})
		if tt.err != "" {
			if !strings.HasPrefix(imagestest.ErrorText(err), tt.err) {
				t.Errorf("%s: error %v, want %s", tt.reference, err, tt.err)
			}
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		ref, err := pull.New("127.0.0.1:5000", pull.Usual()).Reference(r.KindNode.Reference, r.KindNode.Digest)
		if err != nil || ref.String() != tt.want {
			t.Errorf("%s: pulls %v, error %v, want %s", tt.reference, ref, err, tt.want)
		}
	}
}

// A registry that gives no image is a reason to try another source, and a mirror that
// cannot be asked is not. Nothing listens on the port of a server that was closed.
func TestPulledIsRefused(t *testing.T) {
	closed := httptest.NewServer(nil)
	closed.Close()
	img := Image{Name: "spire-server", Reference: "ghcr.io/spiffe/spire-server:1.15.3"}
	for _, tt := range []struct {
		mirror, want string
		refused      bool
	}{
		{strings.TrimPrefix(closed.URL, "http://"), "connection refused", true},
		{"/folder", `registry mirror "/folder" names no host`, false},
	} {
		s, err := store.Open(t.TempDir())
		if err != nil {
			t.Fatal(err)
		}
		a := FromRegistry(pull.New(tt.mirror, pull.Usual()), img)
		_, filled := s.Make(t.Context(), a.Name, a.Key, a.Fill)
		for _, err := range []error{filled, a.Ask(t.Context())} {
			var refused *SourceError
			text := imagestest.ErrorText(err)
			if errors.As(err, &refused) != tt.refused || tt.refused && refused.Source != Pull || !strings.Contains(text, "pull ") || !strings.Contains(text, tt.want) {
				t.Errorf("mirror %s: error %v, want %s, as a refusal: %t", tt.mirror, err, tt.want, tt.refused)
			}
		}
		if _, there, err := s.Path("pulled-spire-server", a.Key); there || err != nil {
			t.Errorf("the image is in the store, error %v", err)
		}
	}
}
