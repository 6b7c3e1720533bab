// Package helmrelease brings Helm releases to a cluster. It is the only
// importer of Helm.
//
// It refuses to know what is in a chart, and never waits for what a release
// starts: the caller has checks that know better what ready means. Helm's caches
// stay in memory.
package helmrelease

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"time"

	"github.com/fedlab-dev/fedlab/lab/access"
	"helm.sh/helm/v3/pkg/action"
	"helm.sh/helm/v3/pkg/chart"
	"helm.sh/helm/v3/pkg/release"
	"helm.sh/helm/v3/pkg/storage/driver"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/metadata"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
)

const (
	// digestLabel is where a release keeps what it was made from.
	digestLabel = "fedlab.dev/digest"
	// history is how many revisions of a release a cluster keeps.
	history = 3
	// patience bounds the whole of Apply, hooks included.
	patience = 2 * time.Minute
)

// Release is what should be in a cluster.
type Release struct {
	Name string
	// Namespace is made when it does not exist.
	Namespace string
	// Chart is the folder of the chart: os.DirFS of a path, fs.Sub of what is
	// embedded. Files that its .helmignore names do not count.
	Chart fs.FS
	// Manifests is a folder of plain manifests, in the place of a chart.
	Manifests fs.FS
	// Edit changes what the chart or the manifests come to, except for hooks; it may be
	// nil.
	Edit *access.Edit
	// Values is anything that encodes to a JSON object; nil stands for the
	// chart's own values.
	Values any
}

// Client applies releases to one cluster. It is safe for concurrent use on
// different releases.
type Client struct {
	kubeconfig clientcmd.ClientConfig
	config     *rest.Config
	client     kubernetes.Interface
}

// Apply installs or upgrades a release, and does nothing when the one that is
// deployed was made from the same chart and values and its objects are there as
// its manifest has them. What others removed, or changed of the fields that the
// manifest names, comes back, made again where it cannot be patched and no data
// would go with it; of kinds that come from CRDs, only what is gone. Apply reports
// no change where another chart, or other values, make the same objects: then it writes down
// another revision, and nothing else. It returns once the API server has taken the objects; they may not be ready.
// An object that the chart no longer has and that cannot be deleted stays: Helm
// only logs it.
//
// Only one process may work on a release at a time. A release that a process
// left half made is taken over: what its manifest names is brought into being
// or removed, so that a kill at any time leaves nothing behind that a later
// Apply does not know.
func (c *Client) Apply(ctx context.Context, r Release) (changed bool, err error) {
	ctx, cancel := context.WithTimeoutCause(ctx, patience, fmt.Errorf("not done after %s", patience))
	defer cancel()
	if changed, err = c.apply(ctx, r); err != nil {
		if ctx.Err() != nil {
			err = fmt.Errorf("%w: %w", context.Cause(ctx), err)
		}
		return changed, fmt.Errorf("apply release %s/%s: %w", r.Namespace, r.Name, err)
	}
	return changed, nil
}

func (c *Client) apply(ctx context.Context, r Release) (changed bool, err error) {
	files, err := r.files()
	if err != nil {
		return false, err
	}
	values, err := plain(r.Values)
	if err != nil {
		return false, err
	}
	want, err := digest(files, values, r.Edit)
	if err != nil {
		return false, err
	}
	helm, err := c.configuration(ctx, r.Namespace)
	if err != nil {
		return false, err
	}
	last, err := lastRevision(helm, r.Name)
	if err != nil {
		return false, err
	}
	// What is put back is what was: a chart can have made it at random.
	manifest, whole := "", ""
	if last != nil && last.Info.Status == release.StatusDeployed {
		drifted, err := drifted(ctx, helm, last.Manifest)
		if err != nil {
			return false, err
		}
		if len(drifted) == 0 {
			whole = last.Manifest
		}
		same := last.Labels[digestLabel] == want
		if same && len(drifted) == 0 {
			return false, nil
		}
		if same {
			manifest = last.Manifest
			for _, o := range drifted[stuck] {
				if err := o.remove(ctx); err != nil {
					return true, err
				}
			}
		}
	}
	loaded, err := load(files)
	if err != nil {
		return false, err
	}
	if last, err = takeOver(helm, r, last, want); err != nil {
		return true, fmt.Errorf("take over what a killed process left: %w", err)
	}
	if last == nil {
		if err := c.ensureNamespace(ctx, r.Namespace); err != nil {
			return false, err
		}
		return true, install(helm, r, loaded, values, want)
	}
	// A chart whose files are others may make the same objects: then another revision has
	// been written down, and nothing else.
	made, err := upgrade(helm, r, loaded, values, want, manifest)
	return err != nil || whole == "" || made != whole, err
}

// takeOver brings a release that a process left in the middle of something into
// a state that Helm goes on from, and returns its last revision, nil for none.
func takeOver(helm *action.Configuration, r Release, last *release.Release, want string) (*release.Release, error) {
	if last == nil {
		return nil, nil
	}
	status := last.Info.Status
	switch {
	case status == release.StatusUninstalling || status == release.StatusUninstalled:
		// What is being deleted must be gone before it can be made again.
		return nil, uninstall(helm, r.Name, patience)
	case status.IsPending():
		last.SetStatus(release.StatusFailed, "left by a process that was killed")
		if err := helm.Releases.Update(last); err != nil {
			return nil, err
		}
		if status == release.StatusPendingInstall || last.Labels[digestLabel] == want {
			return last, nil
		}
		// An upgrade compares with the last good revision. What only the killed
		// one has made would be forgotten: finish it first.
		without := &chart.Chart{Metadata: last.Chart.Metadata}
		_, err := upgrade(helm, r, without, last.Config, last.Labels[digestLabel], last.Manifest)
		return last, err
	}
	return last, nil
}

func install(helm *action.Configuration, r Release, c *chart.Chart, values map[string]any, digest string) error {
	do := action.NewInstall(helm)
	do.ReleaseName = r.Name
	do.Namespace = r.Namespace
	do.Timeout = patience
	do.Labels = map[string]string{digestLabel: digest}
	// The API server checks what it is given; fetching its whole schema to do
	// so here as well takes longer than all else.
	do.DisableOpenAPIValidation = true
	if r.Edit != nil {
		do.PostRenderer = editor{r.Edit}
	}
	_, err := do.Run(c, values)
	return err
}

// upgrade makes a new revision from a chart and values, or from a manifest as
// it stands when there is one. It returns the manifest of that revision.
func upgrade(helm *action.Configuration, r Release, c *chart.Chart, values map[string]any, digest, manifest string) (string, error) {
	do := action.NewUpgrade(helm)
	do.Namespace = r.Namespace
	do.Timeout = patience
	do.Labels = map[string]string{digestLabel: digest}
	do.DisableOpenAPIValidation = true
	do.MaxHistory = history
	// Without it, no values means those of the revision before.
	do.ResetValues = true
	do.CleanupOnFail = true
	switch {
	case manifest != "":
		do.PostRenderer = verbatim(manifest)
	case r.Edit != nil:
		do.PostRenderer = editor{r.Edit}
	}
	made, err := do.Run(r.Name, c, values)
	if err != nil {
		return "", err
	}
	return made.Manifest, nil
}

// verbatim puts a manifest in the place of what was rendered.
type verbatim string

func (v verbatim) Run(*bytes.Buffer) (*bytes.Buffer, error) {
	return bytes.NewBufferString(string(v)), nil
}

// List names the releases that Apply has made, sorted, without chart and values;
// also those that are half made.
func (c *Client) List(ctx context.Context) ([]access.Release, error) {
	// Metadata alone: each revision holds its whole chart.
	secrets, err := metadata.NewForConfig(c.config)
	if err != nil {
		return nil, fmt.Errorf("list releases: %w", err)
	}
	list, err := secrets.Resource(corev1.SchemeGroupVersion.WithResource("secrets")).
		List(ctx, metav1.ListOptions{LabelSelector: "owner=helm," + digestLabel})
	if err != nil {
		return nil, fmt.Errorf("list releases: %w", err)
	}
	var releases []access.Release
	for _, revision := range list.Items {
		releases = append(releases, access.Release{Namespace: revision.Namespace, Name: revision.Labels["name"]})
	}
	slices.SortFunc(releases, func(a, b access.Release) int {
		return cmp.Or(cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Name, b.Name))
	})
	return slices.Compact(releases), nil
}

// Remove asks for the removal of what a release has made, and forgets the
// release. The namespace stays. A release that does not exist is not an error.
func (c *Client) Remove(ctx context.Context, namespace, name string) error {
	helm, err := c.configuration(ctx, namespace)
	if err != nil {
		return err
	}
	last, err := lastRevision(helm, name)
	if err == nil && last != nil {
		err = uninstall(helm, name, 0)
	}
	if err != nil {
		return fmt.Errorf("uninstall release %s/%s: %w", namespace, name, err)
	}
	return nil
}

// uninstall waits for the objects to be gone when patience is not zero.
func uninstall(helm *action.Configuration, name string, patience time.Duration) error {
	do := action.NewUninstall(helm)
	do.Wait = patience > 0
	do.Timeout = patience
	// Helm logs why it cannot delete, and returns that it cannot.
	var said string
	log := helm.Log
	helm.Log = func(format string, v ...any) { said = fmt.Sprintf(format, v...) }
	defer func() { helm.Log = log }()
	if _, err := do.Run(name); err != nil {
		return fmt.Errorf("%w; helm's last words: %s", err, said)
	}
	return nil
}

// lastRevision returns the newest revision of a release, nil for none.
func lastRevision(helm *action.Configuration, name string) (*release.Release, error) {
	last, err := helm.Releases.Last(name)
	if errors.Is(err, driver.ErrReleaseNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read release %s: %w", name, err)
	}
	return last, nil
}
