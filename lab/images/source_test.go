package images

import (
	"slices"
	"testing"

	"github.com/fedlab-dev/fedlab/lab/images/internal/imagestest"
	"github.com/fedlab-dev/fedlab/lab/images/recipe"
)

func TestParseSource(t *testing.T) {
	for _, s := range []Source{Auto, Present, Archive, Pull, Build} {
		if got, err := ParseSource(string(s)); got != s || err != nil {
			t.Errorf("ParseSource(%q) = %q, error %v", s, got, err)
		}
	}
	if got, err := ParseSource(""); got != Auto || err != nil {
		t.Errorf("ParseSource of nothing = %q, error %v, want auto", got, err)
	}
	_, err := ParseSource("registry")
	if want := `unknown source of images "registry", want auto, present, archive, pull or build`; imagestest.ErrorText(err) != want {
		t.Errorf("error %v, want %s", err, want)
	}
}

func TestSources(t *testing.T) {
	pulled := holding{flavour: recipe.Flavour{Source: Pull}}
	tests := map[string]struct {
		library Library
		have    holding
		need    Need
		want    []Source
		err     string
	}{
		"nothing there":               {need: Node, want: []Source{Pull, Build}},
		"an archive is named":         {library: Library{Archive: "lab"}, need: Node, want: []Source{Archive, Pull, Build}},
		"only the demos are missing":  {have: pulled, need: Node, want: []Source{Pull}},
		"the same, archive is named":  {library: Library{Archive: "lab"}, have: pulled, need: Node, want: []Source{Archive, Pull}},
		"parts are built":             {need: Parts, want: []Source{Build}},
		"parts, an archive is named":  {library: Library{Archive: "lab"}, need: Parts, want: []Source{Archive, Build}},
		"build is forced":             {library: Library{Source: Build, Archive: "lab"}, have: pulled, need: Node, want: []Source{Build}},
		"pull is forced":              {library: Library{Source: Pull}, need: Node, want: []Source{Pull}},
		"archive is forced":           {library: Library{Source: Archive, Archive: "lab"}, need: Node, want: []Source{Archive}},
		"archive without a file":      {library: Library{Source: Archive}, err: "no archive is named to take images from"},
		"nothing may be made":         {library: Library{Source: Present}, want: []Source{Present}},
		"a source that is none":       {library: Library{Source: "web"}, err: `unknown source of images "web", want auto, present, archive, pull or build`},
		"auto is the same as nothing": {library: Library{Source: Auto}, need: Node, want: []Source{Pull, Build}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			got, err := tt.library.sources(tt.have, tt.need)
			if imagestest.ErrorText(err) != tt.err {
				t.Errorf("error %v, want %q", err, tt.err)
			}
			if !slices.Equal(got, tt.want) {
				t.Errorf("sources %q, want %q", got, tt.want)
			}
		})
	}
}
