package recipe

import (
	"fmt"
	"slices"
	"strings"
)

// Source is where a set may come from. What is there already is taken with each
// of them; Present has only that.
type Source string

// The sources.
const (
	// Auto is an archive where one is named, then Pull, then Build; each only
	// where the one before cannot be had.
	Auto Source = "auto"
	// Present makes and fetches nothing.
	Present Source = "present"
	// Archive is a file that Save has written.
	Archive Source = "archive"
	// Pull makes the node image of upstream's own images. Demo programs, charts
	// and CustomResourceDefinitions are built with this one, too.
	Pull Source = "pull"
	// Build makes everything of Go modules and Debian packages.
	Build Source = "build"
)

// Sources returns all sources.
func Sources() []Source { return []Source{Auto, Present, Archive, Pull, Build} }

// ParseSource reads the name of a source; no name is Auto.
func ParseSource(name string) (Source, error) {
	switch s := Source(name); {
	case s == "":
		return Auto, nil
	case slices.Contains(Sources(), s):
		return s, nil
	}
	return "", fmt.Errorf("unknown source of images %q, want auto, present, archive, pull or build", name)
}

// MissingError says that something is not there and that the source is not one
// that makes it.
type MissingError struct{ What []string }

func (e *MissingError) Error() string { return "missing: " + strings.Join(e.What, ", ") }

// SourceError says that an archive or a registry did not give what was asked
// for; another source may.
type SourceError struct {
	Source Source
	Err    error
}

func (e *SourceError) Error() string { return e.Err.Error() }
func (e *SourceError) Unwrap() error { return e.Err }

// Kind says what something is that a lab consists of.
type Kind string

// The kinds.
const (
	// NodeImage is a Docker image from which clusters are made.
	NodeImage Kind = "node image"
	// ClusterImage is in the node image before a cluster boots.
	ClusterImage Kind = "image"
	// Demo is a demo program, whose image is given to the nodes that run it, or to
	// Docker for a container next to them.
	Demo Kind = "demo"
	// Chart is a Helm chart.
	Chart Kind = "chart"
	// CRDs are CustomResourceDefinitions.
	CRDs Kind = "crds"
	// OptionalProgram is the image of a program of others that only some labs run.
	OptionalProgram Kind = "optional"
	// Ingredient is what images are made of.
	Ingredient Kind = "ingredient"
)
