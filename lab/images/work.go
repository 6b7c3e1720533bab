package images

import (
	"context"
	"errors"
	"fmt"

	"golang.org/x/sync/errgroup"

	"github.com/fedlab-dev/fedlab/lab/docker"
	"github.com/fedlab-dev/fedlab/lab/images/recipe"
)

// Work says what Ensure would have to do on this machine.
type Work struct {
	// Compile says that programs or charts are made with Go.
	Compile bool
	// Build says that a part of the node image is made here, which takes a C
	// compiler, debootstrap and root.
	Build bool
}

func (s stock) work(ctx context.Context, need Need) (Work, error) {
	node := need&Node != 0
	have, err := s.look(ctx, need)
	if unreachable := (*docker.UnreachableError)(nil); errors.As(err, &unreachable) {
		have, err = s.look(ctx, need&^Node)
		if node {
			have.missing = append(have.missing, "node image")
		}
	}
	if err != nil || len(have.missing) == 0 {
		return Work{}, err
	}
	node = node && have.flavour.Source == ""
	sources, err := s.sources(have, need)
	if err != nil {
		return Work{}, err
	}
	for i, from := range sources {
		if from == Present || from == Archive {
			return Work{}, nil
		}
		missing, err := s.lacking(s.book.Flavour(from), node, need, nil)
		if err != nil {
			return Work{}, err
		}
		err = ask(ctx, missing)
		var refused *SourceError
		switch last := i == len(sources)-1; {
		case err == nil, errors.As(err, &refused) && last:
			// A registry that refuses what only it may give is no work here.
			return workOf(missing), nil
		case refused == nil || ctx.Err() != nil:
			return Work{}, err
		}
		s.say(fmt.Sprintf("%s; goes on with source %s", oneLine(refused), sources[i+1]))
	}
	return Work{}, nil
}

func ask(ctx context.Context, missing []recipe.Artifact) error {
	group, ctx := errgroup.WithContext(ctx)
	for _, a := range missing {
		if a.Ask != nil {
			group.Go(func() error { return a.Ask(ctx) })
		}
	}
	return group.Wait()
}

func workOf(missing []recipe.Artifact) Work {
	var w Work
	for _, a := range missing {
		w.Compile = w.Compile || a.Only == ""
		w.Build = w.Build || a.Only == Build
	}
	w.Compile = w.Compile || w.Build
	return w
}
