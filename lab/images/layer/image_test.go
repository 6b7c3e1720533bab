package layer

import (
	"bytes"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"

	"github.com/fedlab-dev/fedlab/lab/images/internal/imagestest"
)

func writeProgram(t *testing.T, text string, modified time.Time) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "program")
	if err := os.WriteFile(file, []byte(text), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Chtimes(file, modified, modified); err != nil {
		t.Fatal(err)
	}
	return file
}

func TestOnto(t *testing.T) {
	img, err := Onto(empty.Image, writeProgram(t, "server", time.Now()), "/opt/spire/bin/spire-server", nil)
	if err != nil {
		t.Fatal(err)
	}
	config, err := img.ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	if got := config.Config.Entrypoint; !slices.Equal(got, []string{"/opt/spire/bin/spire-server"}) {
		t.Errorf("entry point %q, want the program", got)
	}
	if got := config.Config.Env; len(got) != 1 || !strings.HasSuffix(got[0], ":/opt/spire/bin") {
		t.Errorf("environment %q, want a PATH with the program's folder", got)
	}
	want := []string{
		"0755 5 opt/", "0755 5 opt/spire/", "0755 5 opt/spire/bin/", "1777 5 tmp/", "0755 0 opt/spire/bin/spire-server",
	}
	layers, err := img.Layers()
	if err != nil || len(layers) != 1 {
		t.Fatalf("%d layers, error %v, want 1", len(layers), err)
	}
	files, err := layers[0].Uncompressed()
	if err != nil {
		t.Fatal(err)
	}
	if got := imagestest.Entries(t, files); !slices.Equal(got, want) {
		t.Errorf("files %q, want %q", got, want)
	}
}

// Docker refuses a layer that has a folder twice.
func TestOntoBesideOtherFiles(t *testing.T) {
	layer, err := programLayer(writeProgram(t, "proxy", time.Now()), "/usr/bin/proxy", func(tr *Writer) {
		tr.Dir("usr")
		tr.Link("usr/bin64", "bin")
	})
	if err != nil {
		t.Fatal(err)
	}
	want := []string{"0755 5 usr/", "0777 2 usr/bin64 -> bin", "0755 5 usr/bin/", "1777 5 tmp/", "0755 0 usr/bin/proxy"}
	if got := imagestest.Entries(t, bytes.NewReader(layer)); !slices.Equal(got, want) {
		t.Errorf("files %q, want %q", got, want)
	}
}

func TestOntoIsReproducible(t *testing.T) {
	digest := func(text, at string, modified time.Time) v1.Hash {
		img, err := Onto(empty.Image, writeProgram(t, text, modified), at, nil)
		if err != nil {
			t.Fatal(err)
		}
		d, err := img.Digest()
		if err != nil {
			t.Fatal(err)
		}
		return d
	}
	was := digest("server", "/server", time.Unix(1, 0))
	if again := digest("server", "/server", time.Unix(2e9, 0)); again != was {
		t.Errorf("the same program, built later and elsewhere: %s, want %s", again, was)
	}
	if other := digest("client", "/server", time.Unix(1, 0)); other == was {
		t.Error("another program has the same digest")
	}
	if other := digest("server", "/client", time.Unix(1, 0)); other == was {
		t.Error("the same program in another place has the same digest")
	}
}

func TestOntoWithoutProgram(t *testing.T) {
	_, err := Onto(empty.Image, "/nowhere/server", "/server", nil)
	if want := "assemble image of /server: open /nowhere/server: no such file or directory"; err == nil || err.Error() != want {
		t.Errorf("error %v, want %s", err, want)
	}
}
