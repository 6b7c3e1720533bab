package fault

import (
	"context"
	"errors"
	"fmt"

	"github.com/fedlab-dev/fedlab/lab/check"
)

// DatastoreStopped scales the PostgreSQL of a cluster's SPIRE server to none. Its
// volume stays. The server goes on with what it has in memory.
func DatastoreStopped(c Cluster) Fault {
	name := database.Name + "-0"
	return fault{"datastore-stopped/" + c.Name, func(ctx context.Context) (injected, error) {
		i := injected{
			felt: check.Check{
				Name:  fmt.Sprintf("no pod of the datastore of cluster %s is left", c.Name),
				Probe: func(ctx context.Context) error { return c.podGone(ctx, name) },
			},
			recover: c.scaled(database, 1),
			healed: check.Check{
				Name: fmt.Sprintf("the datastore of cluster %s runs", c.Name),
				Probe: func(ctx context.Context) error {
					runs, err := c.container(ctx, "postgres", name)
					if err == nil && !runs.Ready {
						err = fmt.Errorf("%s is not ready", runs)
					}
					return err
				},
			},
		}
		// A part of an object that is not there would make one.
		found, err := c.Objects.Object(ctx, c.own(database), &struct{}{})
		if err == nil && !found {
			err = errors.New("the SPIRE server has no PostgreSQL")
		}
		if err != nil {
			return injected{}, err
		}
		return i, c.scaled(database, 0)(ctx)
	}}
}
