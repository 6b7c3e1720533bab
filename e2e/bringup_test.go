package e2e

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"

	"github.com/fedlab-dev/fedlab/lab/local"
	"github.com/fedlab-dev/fedlab/lab/plan"
	"github.com/fedlab-dev/fedlab/lab/spire"
	"github.com/fedlab-dev/fedlab/lab/topology"
)

// moments are where the bring-up of the suite's own lab is killed, one after the
// other. Each leaves something half made: a container without a cluster in it, a
// release of which some objects are there, a relationship without its first
// fetch.
func (s *subject) moments() []moment {
	return []moment{
		{name: "clusters are created", kind: "cluster", reached: func(ctx context.Context, step string) (bool, error) {
			_, cluster, _ := strings.Cut(step, "/")
			running, err := docker(ctx, "ps", "--quiet", "--filter", "name=^/"+local.NodeName(s.graph.Name, cluster)+"$")
			return len(running) > 0, err
		}},
		{name: "SPIRE is installed", kind: "server", reached: func(ctx context.Context, step string) (bool, error) {
			_, name, _ := strings.Cut(step, "/")
			for _, td := range s.graph.Domains {
				if td.String() == name {
					return s.there(ctx, td.Server().Place.Cluster.Name, "v1", "ServiceAccount", topology.ServerNamespace, "spire-server")
				}
			}
			return false, fmt.Errorf("no trust domain %s", name)
		}},
		{name: "trust domains are federated", kind: "federate", reached: func(ctx context.Context, step string) (bool, error) {
			for _, r := range s.graph.Trusts {
				if step != "federate/"+r.ID() {
					continue
				}
				return s.there(ctx, r.Truster.Server().Place.Cluster.Name, spire.ResourceAPIVersion, "ClusterFederatedTrustDomain", "", spire.ResourceName(r.Relationships()[0]))
			}
			return false, fmt.Errorf("no relationship has the step %s", step)
		}},
	}
}

func (s *subject) there(ctx context.Context, cluster, apiVersion, kind, namespace, name string) (bool, error) {
	c, err := s.cluster(cluster)
	if err != nil {
		return false, err
	}
	_, found, err := c.Object(ctx, apiVersion, kind, namespace, name)
	return found, err
}

// upThroughKills brings the lab up, killed at each moment on the way, and
// returns nil when it is up and well.
func (s *subject) upThroughKills(ctx context.Context) error {
	for _, m := range s.moments() {
		k, err := s.killAt(ctx, m, "up", "--lab", s.file, "-o", "json")
		if err != nil {
			return err
		}
		s.kills = append(s.kills, k)
		if err := s.noteVolumes(ctx); err != nil {
			return err
		}
		AddReportEntry("killed while "+m.name, k.Took.String(), ReportEntryVisibilityAlways)
	}
	up, err := s.run(ctx, "up", "--lab", s.file, "-o", "json")
	if err == nil && up.Code != 0 {
		err = fmt.Errorf("up after %d kills: exit code %d: %s", len(s.kills), up.Code, up.Stderr)
	}
	if err == nil {
		s.up, _, err = up.events()
	}
	if err != nil {
		return err
	}
	AddReportEntry("up to its end", up.Took.String(), ReportEntryVisibilityAlways)
	return errors.Join(s.well(ctx), s.noteVolumes(ctx))
}

// ofKind returns how the steps of a kind ended.
func ofKind(events []event, kind string) []plan.State {
	var states []plan.State
	for _, e := range events {
		if e.kind() == kind && e.State.Ended() {
			states = append(states, e.State)
		}
	}
	return states
}

// stateOf returns how a step ended first, and "" if it did not.
func stateOf(events []event, step string) plan.State {
	for _, e := range events {
		if e.Step == step && e.State.Ended() {
			return e.State
		}
	}
	return ""
}

var _ = Describe("An up that is killed with SIGKILL", Label("own", "up"), func() {
	BeforeEach(func() {
		if !under.own {
			Skip("the lab was up before the suite, which has killed nothing")
		}
	})

	It("is gone on with from where it was, whatever step it was in", func(SpecContext) {
		Expect(under.kills).To(HaveLen(3))
		for i, k := range under.kills {
			Expect(stateOf(k.Steps, k.Step)).To(BeEmpty(), "step %s had ended before it was killed", k.Step)
			// BeforeSuite has ended, so the up after the last kill came through.
			later := under.up
			if i+1 < len(under.kills) {
				later = slices.Concat(under.kills[i+1].Steps, under.up)
			}
			Expect(stateOf(later, k.Step)).To(BeElementOf(plan.Changed, plan.Unchanged), "step %s after it was killed", k.Step)
		}
		Expect(ofKind(under.up, "verify")).NotTo(BeEmpty())
	}, SpecTimeout(time.Minute))

	It("loses nothing that was finished", func(SpecContext) {
		clusters := len(under.graph.Clusters)
		install, federate := under.kills[1], under.kills[2]
		Expect(ofKind(install.Steps, "cluster")).To(ContainElement(plan.Changed), "the up after the first kill makes clusters again")
		// The second kill came as soon as one cluster stood: the others may have
		// been half made. After the third all stood.
		Expect(ofKind(federate.Steps, "cluster")).To(HaveLen(clusters))
		Expect(ofKind(under.up, "cluster")).To(Equal(slices.Repeat([]plan.State{plan.Unchanged}, clusters)))
		Expect(ofKind(under.up, "server")).To(Equal(slices.Repeat([]plan.State{plan.Unchanged}, len(under.graph.Domains))))
	}, SpecTimeout(time.Minute))
})

var _ = Describe("A second up", Label("up"), func() {
	It("is a no-op", func(ctx SpecContext) {
		before, err := under.objects(ctx)
		Expect(err).NotTo(HaveOccurred())

		up := under.fedlab(ctx, "up", "-o", "json")
		Expect(up).To(endWell())
		AddReportEntry("second up", up.Took.String(), ReportEntryVisibilityAlways)
		events, changed, err := up.events()
		Expect(err).NotTo(HaveOccurred())
		Expect(changed).To(BeFalse())
		for _, e := range events {
			Expect(e.State).To(BeElementOf(plan.Started, plan.Noted, plan.Unchanged), "step %s", e.Step)
		}

		Expect(under.objects(ctx)).To(Equal(before), "no object is another one or has another generation")
		Expect(under.fedlab(ctx, "up")).To(And(endWell(), HaveField("Stderr", ContainSubstring("nothing had to be changed"))))
	}, SpecTimeout(2*time.Minute))
})

// objects returns what fedlab brings to the clusters, each object with what
// changes when somebody changes or replaces it.
func (s *subject) objects(ctx context.Context) (map[string]string, error) {
	found := map[string]string{}
	for _, c := range s.graph.Clusters {
		cluster, err := s.cluster(c.Name)
		if err != nil {
			return nil, err
		}
		for _, kind := range []struct{ apiVersion, kind string }{
			{"v1", "Pod"}, {"v1", "Service"}, {"v1", "ConfigMap"},
			{"apps/v1", "Deployment"}, {"apps/v1", "StatefulSet"}, {"apps/v1", "DaemonSet"},
			{"apiextensions.k8s.io/v1", "CustomResourceDefinition"}, {"metallb.io/v1beta1", "IPAddressPool"},
			{spire.ResourceAPIVersion, "ClusterFederatedTrustDomain"}, {spire.ResourceAPIVersion, "ClusterSPIFFEID"},
		} {
			list, err := cluster.Objects(ctx, kind.apiVersion, kind.kind, "", "")
			if err != nil {
				return nil, err
			}
			for _, object := range list {
				m, err := metadataOf(object)
				if err != nil {
					return nil, err
				}
				if m.DeletionTimestamp != "" {
					continue // of what an earlier spec has changed
				}
				found[strings.Join([]string{c.Name, kind.kind, m.Namespace, m.Name}, "/")] = fmt.Sprintf("%s generation %d", m.UID, m.Generation)
			}
		}
	}
	return found, nil
}
