package helmrelease

import (
	"context"
	"io/fs"
	"os"
	"path/filepath"

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
	folder := os.DirFS(release.Chart)
	if !filepath.IsAbs(release.Chart) {
		sub, err := fs.Sub(r.charts, release.Chart)
		if err != nil {
			return false, err
		}
		folder = sub
	}
	return r.Client.Apply(ctx, Release{Name: release.Name, Namespace: release.Namespace, Chart: folder, Values: release.Values})
}
