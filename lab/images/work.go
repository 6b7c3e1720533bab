package images

import (
	"context"
	"errors"
	"fmt"

	"golang.org/x/sync/errgroup"

	"github.com/fedlab-dev/fedlab/lab/docker"
)

// Work says what Ensure would have to do on this machine.
type Work struct {
	// Compile says that programs or charts are made with Go.
	Compile bool
	// Build says that a part of the node image is made here, which takes a C
	// compiler, debootstrap and root.
	Build bool
}

// Work looks at what is missing and where Ensure would take it from; it makes
// and fetches nothing. With source Auto it asks the registry for each image, as
// Ensure does, and says in a line why the answer was no. Where Docker does not
// answer, the node image counts as missing. What an archive promises is not
// looked into.
func (l *Library) Work(ctx context.Context, need Need) (Work, error) {
	r, err := l.recipes()
	if err != nil {
		return Work{}, err
	}
	node := need&Node != 0
	have, err := l.look(ctx, r, need)
	if unreachable := (*docker.UnreachableError)(nil); errors.As(err, &unreachable) {
		have, err = l.look(ctx, r, need&^Node)
		if node {
			have.missing = append(have.missing, "node image")
		}
	}
	if err != nil || len(have.missing) == 0 {
		return Work{}, err
	}
	node = node && have.flavour.source == ""
	sources, err := l.sources(have, need)
	if err != nil {
		return Work{}, err
	}
	for i, from := range sources {
		if from == Present || from == Archive {
			return Work{}, nil
		}
		missing, err := l.lacking(r, r.flavour(from), node, need)
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
		l.say(fmt.Sprintf("%s; goes on with source %s", oneLine(refused), sources[i+1]))
	}
	return Work{}, nil
}

// lacking lists the artifacts that Ensure would make of a set with the node
// image of that flavour; node says that the node image is missing.
func (l *Library) lacking(r recipes, f flavour, node bool, need Need) ([]artifact, error) {
	var missing []artifact
	for _, a := range r.artifacts {
		if (!node || !r.goesIntoNode(a, f)) && !r.wanted(a, f, need) {
			continue
		}
		_, there, err := l.Store.Path(a.name, a.key)
		if err != nil {
			return nil, err
		}
		if !there {
			missing = append(missing, a)
		}
	}
	return missing, nil
}

// ask asks registries for all that would come from them, at the same time.
func ask(ctx context.Context, missing []artifact) error {
	group, ctx := errgroup.WithContext(ctx)
	for _, a := range missing {
		if a.ask != nil {
			group.Go(func() error { return a.ask(ctx) })
		}
	}
	return group.Wait()
}

func workOf(missing []artifact) Work {
	var w Work
	for _, a := range missing {
		w.Compile = w.Compile || a.only == ""
		w.Build = w.Build || a.only == Build
	}
	w.Compile = w.Compile || w.Build
	return w
}
