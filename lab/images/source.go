package images

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
)

// Source is where a set may come from. What is there already is taken with each
// of them; only Present has nothing but that.
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

// sources lists where what is missing may come from, in the order in which they
// are tried.
func (l *Library) sources(have holding, need Need) ([]Source, error) {
	source, err := ParseSource(string(l.Source))
	if err != nil {
		return nil, err
	}
	if source == Archive && l.Archive == "" {
		return nil, errors.New("no archive is named to take images from")
	}
	if source != Auto {
		return []Source{source}, nil
	}
	var sources []Source
	if l.Archive != "" {
		sources = append(sources, Archive)
	}
	switch {
	case need == Parts:
		return append(sources, Build), nil
	case have.flavour.source != "": // it is something else that is missing
		return append(sources, have.flavour.source), nil
	}
	return append(sources, Pull, Build), nil
}

// obtain gets what is missing from the first source that has it, and says in a
// line why it was not the one before.
func (l *Library) obtain(ctx context.Context, r recipes, have holding, need Need) error {
	sources, err := l.sources(have, need)
	if err != nil {
		return err
	}
	for i, from := range sources {
		switch from {
		case Present:
			return fmt.Errorf("take images that are present: %w", &MissingError{What: have.missing})
		case Archive:
			err = l.loadFile(ctx, r)
		default:
			err = l.run(ctx, r, r.flavour(from), need)
		}
		var refused *SourceError
		if !errors.As(err, &refused) || ctx.Err() != nil || i == len(sources)-1 {
			return err
		}
		l.say(fmt.Sprintf("%s; goes on with source %s", oneLine(refused), sources[i+1]))
	}
	return err
}

// say tells a person something, in one line.
func (l *Library) say(line string) {
	if l.Say != nil {
		l.Say(line)
	}
}

func oneLine(err error) string { return strings.Join(strings.Fields(err.Error()), " ") }

func (l *Library) loadFile(ctx context.Context, r recipes) (err error) {
	f, err := os.Open(l.Archive)
	if err != nil {
		return &SourceError{Source: Archive, Err: fmt.Errorf("open archive: %w", err)}
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	if err := l.load(ctx, r, f); err != nil {
		return &SourceError{Source: Archive, Err: fmt.Errorf("load %s: %w", l.Archive, err)}
	}
	return nil
}
