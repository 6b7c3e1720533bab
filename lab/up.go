package lab

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/fedlab-dev/fedlab/lab/access"
	"github.com/fedlab-dev/fedlab/lab/check"
	"github.com/fedlab-dev/fedlab/lab/metallb"
	"github.com/fedlab-dev/fedlab/lab/plan"
	"github.com/fedlab-dev/fedlab/lab/topology"
)

// Bounds of the waits of a bring-up. They are not about SPIRE's arithmetic, for
// which see package federation, but about machines: ten times what a machine
// with two cores needs when it does nothing else.
const (
	apiBound     = 3 * time.Minute
	rolloutBound = 4 * time.Minute
	callBound    = 3 * time.Minute
	// answerBound is how long an API that runs may take to answer before its
	// cluster counts as half-made. A wrong guess costs the cluster.
	answerBound = time.Minute
)

// Up brings t to life. Running Up again on a lab that is already up is a no-op:
// every step looks before it acts. The error is a *HeldError when another
// process is changing the lab, and a *MismatchError when clusters run that
// cannot become what t asks for.
func (d *Driver) Up(ctx context.Context, t topology.Topology) (err error) {
	held, err := d.Hold(ctx, t.Name, "up")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, held.Release()) }()
	return held.Up(ctx, t)
}

// Up is Driver.Up for a caller that holds the lab. The survey comes before the rest
// is planned: what is there already decides on addresses. To the observer both are
// one plan.
func (h *Hold) Up(ctx context.Context, t topology.Topology) (err error) {
	d := h.driver
	all, err := d.Plan(t)
	if err != nil {
		return err
	}
	s, err := d.newSurvey(t)
	if err != nil {
		return err
	}
	first, err := s.contents()
	if err != nil {
		return err
	}
	if err := (plan.Runner{Observe: d.Observe, Of: all.Len()}).Run(ctx, first); err != nil {
		return err
	}
	u := newUp(d, s.found, s.missing())
	defer func() { err = errors.Join(err, u.close()) }()
	rest, err := u.contents()
	if err != nil {
		return err
	}
	return plan.Runner{Observe: d.Observe, Before: first.Len(), Of: all.Len()}.Run(ctx, rest)
}

// up is a bring-up under way. Steps write what later ones need; the plan's
// order keeps them apart, the mutex guards the maps.
type up struct {
	*Driver
	*topology.Graph
	// missing says that clusters have to be made.
	missing bool
	images  ImageSet

	mu       sync.Mutex
	clusters map[*topology.Cluster]access.Cluster
	sites    map[*topology.Server]*Site
	// webRoots are the roots, in PEM, of https_web endpoints.
	webRoots map[*topology.Server]string
	// acmeRoot is the root, in PEM, that certificates by ACME lead to.
	acmeRoot []byte
	// certificates are the serving certificates of the person's own.
	certificates map[*topology.Server]ownCertificate
	// ownImages are the references of the images of the person's own programs, by what
	// manifests call the images.
	ownImages map[*topology.Workload]map[string]string
	// renewed are those whose agents were started again.
	renewed map[*topology.Member]bool
	// joined are the agents of members on hosts, once they have attested.
	joined map[*topology.Member]spiffeid.ID
	// kubeconfigs are those by which servers get into the clusters of members.
	kubeconfigs map[*topology.Member][]byte
}

func newUp(d *Driver, g *topology.Graph, missing bool) *up {
	return &up{
		Driver: d, Graph: g, missing: missing,
		clusters: map[*topology.Cluster]access.Cluster{}, sites: map[*topology.Server]*Site{},
		webRoots: map[*topology.Server]string{}, certificates: map[*topology.Server]ownCertificate{}, ownImages: map[*topology.Workload]map[string]string{},
		renewed: map[*topology.Member]bool{}, kubeconfigs: map[*topology.Member][]byte{}, joined: map[*topology.Member]spiffeid.ID{},
	}
}

func (u *up) close() error {
	var errs []error
	for _, s := range u.sites {
		errs = append(errs, s.Close())
	}
	return errors.Join(errs...)
}

// enter connects to a cluster that runs.
func (u *up) enter(c *topology.Cluster) (access.Cluster, error) {
	in, err := u.access(c.Lab, c.Name)
	if err != nil {
		return access.Cluster{}, err
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	u.clusters[c] = in
	return in, nil
}

// in returns what can be done in a cluster, once enter has connected to it.
func (u *up) in(c *topology.Cluster) access.Cluster {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.clusters[c]
}

// site returns the connection to a server, once its step has made it.
func (u *up) site(s *topology.Server) *Site {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.sites[s]
}

// ensureImages asks for the node image only where a cluster has to be made: a
// lab that runs takes a changed demo program without it.
func (u *up) ensureImages(ctx context.Context) (err error) {
	u.images, err = u.Parts.Images.Ensure(ctx, u.missing, u.Intent().OptionalPrograms())
	return err
}

func (u *up) metallb(ctx context.Context, c *topology.Cluster) error {
	in := u.in(c)
	if err := memberSecret(ctx, in.Objects); err != nil {
		return err
	}
	changed, err := in.Releases.Apply(ctx, access.Release{
		Name: metallbRelease, Namespace: metallb.Namespace, Chart: u.images.MetalLBChart,
		Values: metallb.Values(u.images.MetalLBController, u.images.MetalLBSpeaker),
	})
	if err != nil {
		return err
	}
	if changed {
		plan.Did(ctx)
	}
	return wait(ctx, apiBound, check.Check{Name: "MetalLB takes its address pool", Probe: func(ctx context.Context) error {
		applied, err := in.Objects.Apply(ctx, metallb.Objects(c.Pool.First, c.Pool.Last)...)
		if applied {
			plan.Did(ctx)
		}
		return err
	}})
}

// memberSecret makes the secret of MetalLB's speakers where there is none, or an empty
// one.
func memberSecret(ctx context.Context, objects access.Objects) error {
	var is struct {
		Data map[string][]byte `json:"data"`
	}
	key := access.ObjectKey{APIVersion: "v1", Kind: "Secret", Namespace: metallb.Namespace, Name: metallb.SecretName}
	if _, err := objects.Object(ctx, key, &is); err != nil || len(is.Data[metallb.SecretKey]) > 0 {
		return err
	}
	plan.Did(ctx)
	_, err := objects.Apply(ctx, namespace(metallb.Namespace), metallb.MemberSecret())
	return err
}

func namespace(name string) any {
	return map[string]any{"apiVersion": "v1", "kind": "Namespace", "metadata": map[string]any{"name": name}}
}

// KubeconfigFileError says that a kubeconfig file of the person cannot be read or
// written. A lab needs no such file.
type KubeconfigFileError struct{ Err error }

func (e *KubeconfigFileError) Error() string { return e.Err.Error() }
func (e *KubeconfigFileError) Unwrap() error { return e.Err }

// exportKubeconfig writes the contexts of the clusters, and takes out those of
// clusters that are gone, now or in an earlier up that was killed.
func (u *up) exportKubeconfig(ctx context.Context) error {
	names, contexts := make([]string, len(u.Clusters)), make([]string, len(u.Clusters))
	for i, c := range u.Clusters {
		names[i], contexts[i] = c.Name, u.Parts.Kubeconfigs.Context(c.Lab, c.Name)
	}
	removed, err := u.Parts.Kubeconfigs.Remove(ctx, u.Name, names, "")
	changed := false
	if err == nil {
		changed, err = u.Parts.Kubeconfigs.Export(ctx, u.Name, names, "")
	}
	if removed || changed {
		plan.Did(ctx)
	}
	return without(ctx, "goes on without the contexts "+strings.Join(contexts, ", "), err)
}

// without goes on where only a kubeconfig file is in the way, and says what is
// missing for it.
func without(ctx context.Context, what string, err error) error {
	if file := (*KubeconfigFileError)(nil); errors.As(err, &file) && ctx.Err() == nil {
		plan.Remark(ctx, fmt.Sprintf("%s: %v", what, file))
		return nil
	}
	return err
}
