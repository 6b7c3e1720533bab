package local

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/fedlab-dev/fedlab/lab"
	"github.com/fedlab-dev/fedlab/lab/docker"
	"github.com/fedlab-dev/fedlab/lab/images"
	"github.com/fedlab-dev/fedlab/lab/sidecar"
)

// labelSidecar is the label of a program next to the clusters; it has the
// program's name.
const labelSidecar = "dev.fedlab.sidecar"

type sidecars struct {
	engine  *docker.Client
	library *images.Library
}

func (s sidecars) Run(ctx context.Context, name, program string, env map[string]string, control int) (lab.Sidecar, error) {
	image, err := s.library.DemoInEngine(ctx, program)
	if err != nil {
		return lab.Sidecar{}, fmt.Errorf("bring image of %s into docker: %w", program, err)
	}
	made, err := sidecar.Run(ctx, sidecar.Spec{
		Name: name + "-" + program, Image: image, Network: networkName(name),
		Labels: map[string]string{labelLab: name, labelSidecar: program}, Env: env, Control: uint16(control),
	})
	return lab.Sidecar{Address: made.Address, Control: made.Control}, err
}

// List asks for labels and not for the network: that may be gone.
func (s sidecars) List(ctx context.Context, name string) ([]string, error) {
	containers, err := s.engine.Containers(ctx, map[string]string{labelLab: name})
	if err != nil {
		return nil, err
	}
	var programs []string
	for _, c := range containers {
		if program := c.Labels[labelSidecar]; program != "" {
			programs = append(programs, program)
		}
	}
	slices.Sort(programs)
	return slices.Compact(programs), nil
}

func (s sidecars) Remove(ctx context.Context, name, program string) error {
	containers, err := s.engine.Containers(ctx, map[string]string{labelLab: name, labelSidecar: program})
	if err != nil {
		return err
	}
	var errs []error
	for _, c := range containers {
		errs = append(errs, s.engine.RemoveContainer(ctx, c.ID))
	}
	return errors.Join(errs...)
}
