package helmrelease

import (
	"context"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"

	"github.com/fedlab-dev/fedlab/lab/access"
)

// Access returns the client as others use it: a chart is named by an absolute path,
// or by its folder in charts.
func (c *Client) Access(charts fs.FS) access.Releases { return releases{c, charts} }

type releases struct {
	*Client
	charts fs.FS
}

func (r releases) Apply(ctx context.Context, release access.Release) (bool, error) {
	given, err := from(release, r.charts)
	if err != nil {
		return false, err
	}
	return r.Client.Apply(ctx, given)
}

// from reads a release as others give it.
func from(release access.Release, charts fs.FS) (Release, error) {
	r := Release{Name: release.Name, Namespace: release.Namespace, Values: release.Values, Edit: release.Edit}
	var err error
	switch {
	case release.Manifests != "":
		r.Manifests = os.DirFS(release.Manifests)
	case filepath.IsAbs(release.Chart):
		r.Chart = os.DirFS(release.Chart)
	default:
		r.Chart, err = fs.Sub(charts, release.Chart)
	}
	return r, err
}

// Objects returns what a release of a chart or of manifests outside of fedlab comes to
// without a cluster, as JSON has it, and before any edit.
func Objects(release access.Release) ([]map[string]any, error) {
	r, err := from(release, nil)
	if err != nil {
		return nil, err
	}
	rendered, err := Render(r)
	if err != nil {
		return nil, err
	}
	var all []map[string]any
	for _, name := range slices.Sorted(maps.Keys(rendered)) {
		objects, err := decode([]byte(rendered[name]))
		if err != nil {
			return nil, fmt.Errorf("read what %s comes to: %w", name, err)
		}
		all = append(all, objects...)
	}
	return all, nil
}
