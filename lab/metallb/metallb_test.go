package metallb

import (
	"encoding/json"
	"flag"
	"net/netip"
	"os"
	"path/filepath"
	"testing"
)

var update = flag.Bool("update", false, "rewrite the golden files")

func TestGolden(t *testing.T) {
	tests := map[string]any{
		"objects.json": Objects(netip.MustParseAddr("10.192.1.1"), netip.MustParseAddr("10.192.1.254")),
		"values.json":  Values("quay.io/metallb/controller:v0.16.1", "quay.io/metallb/speaker:v0.16.1"),
	}
	for name, value := range tests {
		t.Run(name, func(t *testing.T) {
			got, err := json.MarshalIndent(value, "", "  ")
			if err != nil {
				t.Fatal(err)
			}
			got = append(got, '\n')
			path := filepath.Join("testdata", name)
			if *update {
				if err := os.WriteFile(path, got, 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			if string(got) != string(want) {
				t.Errorf("got:\n%s\nwant:\n%s", got, want)
			}
		})
	}
}

func TestImages(t *testing.T) {
	tests := map[string]struct{ repository, tag string }{
		"quay.io/metallb/controller:v0.16.1": {"quay.io/metallb/controller", "v0.16.1"},
		"localhost:5000/controller:1":        {"localhost:5000/controller", "1"},
		"localhost:5000/controller":          {"localhost:5000/controller", ""},
	}
	for image, want := range tests {
		controller := Values(image, "speaker:1")["controller"].(map[string]any)["image"].(map[string]any)
		if controller["repository"] != want.repository || controller["tag"] != want.tag {
			t.Errorf("%s: repository %v, tag %v, want %+v", image, controller["repository"], controller["tag"], want)
		}
	}
}
