package images

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
)

// sources lists where what is missing may come from, in the order in which they
// are tried.
func (l *Library) sources(have holding, need Need, optional ...string) ([]Source, error) {
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
	case need == Parts && len(optional) == 0:
		return append(sources, Build), nil
	case have.flavour.Source != "": // it is something else that is missing
		return append(sources, have.flavour.Source), nil
	}
	return append(sources, Pull, Build), nil
}

// obtain gets what is missing from the first source that has it, and says in a
// line why it was not the one before.
func (s stock) obtain(ctx context.Context, have holding, need Need, optional []string) error {
	sources, err := s.sources(have, need, optional...)
	if err != nil {
		return err
	}
	for i, from := range sources {
		switch from {
		case Present:
			return fmt.Errorf("take images that are present: %w", &MissingError{What: have.missing})
		case Archive:
			err = s.loadFile(ctx, need, optional)
		default:
			err = s.run(ctx, s.book.Flavour(from), need, optional)
		}
		var refused *SourceError
		if !errors.As(err, &refused) || ctx.Err() != nil || i == len(sources)-1 {
			return err
		}
		s.say(fmt.Sprintf("%s; goes on with source %s", oneLine(refused), sources[i+1]))
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

// loadFile loads the archive. It is an error where that lacks optional programs that are
// asked for: who saved it had no lab with them.
func (s stock) loadFile(ctx context.Context, need Need, optional []string) (err error) {
	f, err := os.Open(s.Archive)
	if err != nil {
		return &SourceError{Source: Archive, Err: fmt.Errorf("open archive: %w", err)}
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	if err := s.load(ctx, f); err != nil {
		return &SourceError{Source: Archive, Err: fmt.Errorf("load %s: %w", s.Archive, err)}
	}
	have, err := s.look(ctx, need, optional...)
	if err == nil && len(have.missing) > 0 {
		err = &SourceError{Source: Archive, Err: fmt.Errorf("load %s: the archive has no %s: build it for the lab before you save it", s.Archive, strings.Join(have.missing, ", "))}
	}
	return err
}
