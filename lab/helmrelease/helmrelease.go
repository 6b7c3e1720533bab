// Package helmrelease installs charts into one cluster with Helm's library. It
// is the only importer of Helm.
//
// It refuses to know what a chart is for, and waits for nothing that a chart
// starts.
package helmrelease

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"slices"

	"helm.sh/helm/v3/pkg/action"
	"helm.sh/helm/v3/pkg/chart"
	"helm.sh/helm/v3/pkg/chart/loader"
	"helm.sh/helm/v3/pkg/release"
	"helm.sh/helm/v3/pkg/storage/driver"
)

// hashLabel is the label of a release that tells which chart and values made it.
const hashLabel = "fedlab.dev/hash"

// Release is what is to be installed.
type Release struct {
	Name, Namespace string
	// Chart is the chart's folder.
	Chart fs.FS
	// Values is anything that encodes to a JSON object.
	Values any
}

// Client installs releases into one cluster.
type Client struct {
	// configure returns Helm's configuration for a namespace.
	configure func(namespace string) (*action.Configuration, error)
}

// New makes a client for the current context of a kubeconfig. It connects to
// nothing yet, and leaves no files.
func New(kubeconfig []byte) (*Client, error) {
	getter, err := newGetter(kubeconfig)
	if err != nil {
		return nil, err
	}
	return &Client{configure: func(namespace string) (*action.Configuration, error) {
		config := &action.Configuration{}
		if err := config.Init(getter.in(namespace), namespace, "secret", func(string, ...any) {}); err != nil {
			return nil, err
		}
		return config, nil
	}}, nil
}

// Apply installs the release, upgrades it when chart or values are not those
// that it was made of, and does nothing otherwise; it reports whether it did
// something. It waits for nothing. A release that a killed process left half
// done is made whole.
func (c *Client) Apply(ctx context.Context, r Release) (bool, error) {
	changed, err := c.apply(ctx, r)
	if err != nil {
		return changed, fmt.Errorf("apply release %s/%s: %w", r.Namespace, r.Name, err)
	}
	return changed, nil
}

func (c *Client) apply(ctx context.Context, r Release) (bool, error) {
	files, err := read(r.Chart)
	if err != nil {
		return false, err
	}
	values, err := asValues(r.Values)
	if err != nil {
		return false, err
	}
	hash, err := hashOf(files, values)
	if err != nil {
		return false, err
	}
	config, err := c.configure(r.Namespace)
	if err != nil {
		return false, err
	}
	last, err := config.Releases.Last(r.Name)
	switch {
	case errors.Is(err, driver.ErrReleaseNotFound):
		return true, c.install(ctx, config, r, files, values, hash)
	case err != nil:
		return false, err
	case last.Info.Status == release.StatusDeployed && last.Labels[hashLabel] == hash:
		return false, nil
	}
	history, err := config.Releases.History(r.Name)
	if err != nil {
		return false, err
	}
	deployed := slices.ContainsFunc(history, func(h *release.Release) bool {
		return h.Info.Status == release.StatusDeployed || h.Info.Status == release.StatusSuperseded
	})
	if !deployed {
		// It never stood whole: what there is of it goes, and it starts anew.
		if _, err := action.NewUninstall(config).Run(r.Name); err != nil {
			return false, err
		}
		return true, c.install(ctx, config, r, files, values, hash)
	}
	if last.Info.Status.IsPending() {
		// Helm refuses to touch what seems to be under way. The lock of the lab
		// says that nobody is at it.
		last.SetStatus(release.StatusFailed, "was interrupted")
		if err := config.Releases.Update(last); err != nil {
			return false, err
		}
	}
	return true, c.upgrade(ctx, config, r, files, values, hash)
}

func (c *Client) install(ctx context.Context, config *action.Configuration, r Release, files []*loader.BufferedFile, values map[string]any, hash string) error {
	loaded, err := loadChart(files)
	if err != nil {
		return err
	}
	install := action.NewInstall(config)
	install.ReleaseName, install.Namespace, install.CreateNamespace = r.Name, r.Namespace, true
	install.DisableOpenAPIValidation = true
	install.Labels = map[string]string{hashLabel: hash}
	_, err = install.RunWithContext(ctx, loaded, values)
	return err
}

func (c *Client) upgrade(ctx context.Context, config *action.Configuration, r Release, files []*loader.BufferedFile, values map[string]any, hash string) error {
	loaded, err := loadChart(files)
	if err != nil {
		return err
	}
	upgrade := action.NewUpgrade(config)
	upgrade.Namespace, upgrade.ResetValues, upgrade.MaxHistory = r.Namespace, true, 3
	upgrade.DisableOpenAPIValidation = true
	upgrade.Labels = map[string]string{hashLabel: hash}
	_, err = upgrade.RunWithContext(ctx, r.Name, loaded, values)
	return err
}

func read(folder fs.FS) ([]*loader.BufferedFile, error) {
	var files []*loader.BufferedFile
	err := fs.WalkDir(folder, ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		data, err := fs.ReadFile(folder, name)
		files = append(files, &loader.BufferedFile{Name: name, Data: data})
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("read chart: %w", err)
	}
	return files, nil
}

func loadChart(files []*loader.BufferedFile) (*chart.Chart, error) {
	loaded, err := loader.LoadFiles(files)
	if err != nil {
		return nil, fmt.Errorf("read chart: %w", err)
	}
	return loaded, nil
}

func asValues(v any) (map[string]any, error) {
	data, err := json.Marshal(v)
	if err != nil {
		return nil, fmt.Errorf("read values: %w", err)
	}
	values := map[string]any{}
	if err := json.Unmarshal(data, &values); err != nil {
		return nil, fmt.Errorf("read values: %w", err)
	}
	return values, nil
}

// hashOf is short enough for a label.
func hashOf(files []*loader.BufferedFile, values map[string]any) (string, error) {
	data, err := json.Marshal(values) // sorts keys
	if err != nil {
		return "", err
	}
	h := sha256.New()
	for _, f := range files {
		fmt.Fprintf(h, "%s %d\n%s", f.Name, len(f.Data), f.Data)
	}
	h.Write(data)
	return hex.EncodeToString(h.Sum(nil))[:32], nil
}
