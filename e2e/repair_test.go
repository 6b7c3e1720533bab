package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"

	"github.com/fedlab-dev/fedlab/lab/check"
	"github.com/fedlab-dev/fedlab/lab/federation"
	"github.com/fedlab-dev/fedlab/lab/helmrelease"
	"github.com/fedlab-dev/fedlab/lab/local"
	"github.com/fedlab-dev/fedlab/lab/plan"
	"github.com/fedlab-dev/fedlab/lab/spire"
	"github.com/fedlab-dev/fedlab/lab/topology"
)

// spoiled is something that was taken away from the lab.
type spoiled struct {
	// kinds are those of the steps by which up brings it back.
	kinds []string
	// restarts says that it makes the containers of the server's cluster start
	// again.
	restarts bool
	take     func(ctx context.Context, p pair) error
}

var _ = Describe("Up puts back", Label("up", "slow"), func() {
	DescribeTable("what was taken away",
		func(ctx SpecContext, s spoiled) {
			p := under.pair()
			Expect(under.well(ctx)).To(Succeed())
			if s.restarts {
				DeferCleanup(under.explain, p.server.Cluster().Name, NodeTimeout(rollout))
			}
			under.restored(rollout, under.repaired)
			Expect(s.take(ctx, p)).To(Succeed())
			Eventually(under.well).WithContext(ctx).WithTimeout(machine).WithPolling(time.Second).ShouldNot(Succeed(), "it is felt")

			up := under.fedlab(ctx, "up", "-o", "json")
			Expect(up).To(endWell())
			AddReportEntry("repaired in", up.Took.String(), ReportEntryVisibilityAlways)
			events, _, err := up.events()
			Expect(err).NotTo(HaveOccurred())
			var changed []string
			for _, e := range events {
				if e.State == plan.Changed {
					changed = append(changed, e.kind())
				}
			}
			slices.Sort(changed)
			Expect(slices.Compact(changed)).To(Equal(s.kinds), "up changes what has to be changed and nothing else")
			Expect(under.well(ctx)).To(Succeed())
			Expect(flowing(p.broker)(ctx)).To(Succeed())
		},
		Entry("a relationship", spoiled{kinds: []string{"federate"}, take: func(ctx context.Context, p pair) error {
			return remove(ctx, p.broker.Cluster().Name, spire.ResourceAPIVersion, "ClusterFederatedTrustDomain", spire.ResourceName(p.broker.Domain().TrustIn(p.server.Domain()).Relationships()[0]))
		}}, SpecTimeout(4*time.Minute)),
		Entry("a relationship, by a class that nobody serves", spoiled{kinds: []string{"federate"}, take: func(ctx context.Context, p pair) error {
			return rewritten(ctx, p, func(s *spire.FederatedTrustDomainSpec) { s.ClassName = "theirs" })
		}}, SpecTimeout(4*time.Minute)),
		Entry("a relationship, by a path that the endpoint does not serve", spoiled{kinds: []string{"federate"}, take: func(ctx context.Context, p pair) error {
			return rewritten(ctx, p, func(s *spire.FederatedTrustDomainSpec) { s.BundleEndpointURL += "/bundle" })
		}}, SpecTimeout(4*time.Minute)),
		Entry("a relationship, by a copy with another port that is older", spoiled{kinds: []string{"federate"}, take: func(ctx context.Context, p pair) error {
			return replacedBy(ctx, p, "partner", spire.Owned(), otherPort)
		}}, SpecTimeout(4*time.Minute)),
		Entry("a registration", spoiled{kinds: []string{"register"}, take: func(ctx context.Context, p pair) error {
			identity := spire.WorkloadIdentity(p.broker)
			return remove(ctx, p.broker.Cluster().Name, identity.APIVersion, identity.Kind, identity.Metadata.Name)
		}}, SpecTimeout(4*time.Minute)),
		Entry("a registration, given a class", spoiled{kinds: []string{"register"}, take: func(ctx context.Context, p pair) error {
			identity := spire.WorkloadIdentity(p.broker)
			return byHand(ctx, p.broker.Cluster().Name, "patch", "clusterspiffeid", identity.Metadata.Name, "--type=merge", `--patch={"spec":{"className":"theirs"}}`)
		}}, SpecTimeout(4*time.Minute)),
		Entry("the bundle that agents start with", spoiled{kinds: []string{"server"}, take: func(ctx context.Context, p pair) error {
			err := byHand(ctx, p.broker.Cluster().Name, "--namespace="+topology.ServerNamespace, "delete", "configmap", spire.BundleConfigMap)
			if err != nil {
				return err
			}
			// It waits for what is gone.
			return byHand(ctx, p.broker.Cluster().Name, "--namespace="+topology.ServerNamespace, "delete", "pod", "--wait=false",
				"--selector="+spire.ProgramLabel+"="+spire.AgentDaemonSet)
		}}, SpecTimeout(4*time.Minute)),
		Entry("a Helm release", spoiled{kinds: []string{"deploy"}, take: func(ctx context.Context, p pair) error {
			kubeconfig, err := under.driver.Parts.Kubeconfigs.Kubeconfig(under.graph.Name, p.server.Cluster().Name)
			if err != nil {
				return err
			}
			helm, err := helmrelease.New(kubeconfig)
			if err != nil {
				return err
			}
			return helm.Remove(ctx, p.server.Namespace, p.server.Name)
		}}, SpecTimeout(4*time.Minute)),
		Entry("an authority, revoked in a hurry", spoiled{kinds: []string{"presents", "server"}, take: revokedInAHurry}, SpecTimeout(6*time.Minute)),
		Entry("a node that was stopped", spoiled{kinds: []string{"cluster"}, restarts: true, take: func(ctx context.Context, p pair) error {
			_, err := docker(ctx, "stop", "--time", "30", local.NodeName(under.graph.Name, p.server.Cluster().Name))
			return err
		}}, SpecTimeout(6*time.Minute)),
	)
})

// revokedInAHurry replaces the X.509 authority of the server's trust domain and
// leaves nobody the time to replace what the old one has signed, except the peer,
// which has fetched both the new one and the revocation.
func revokedInAHurry(ctx context.Context, p pair) (err error) {
	l, err := under.driver.Open(ctx, under.graph.Intent())
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, l.Close()) }()
	own, other := p.server.Domain(), p.broker.Domain()
	server, err := serverIn(ctx, l, own)
	if err != nil {
		return err
	}
	peer, err := serverIn(ctx, l, other)
	if err != nil {
		return err
	}
	before, err := server.X509Authorities(ctx)
	if err != nil {
		return err
	}
	next, err := server.PrepareX509Authority(ctx)
	if err != nil {
		return err
	}
	if err := peer.RefreshBundle(ctx, own.Name); err != nil {
		return err
	}
	if _, err := server.ActivateX509Authority(ctx, next.ID); err != nil {
		return err
	}
	if err := errors.Join(server.TaintX509Authority(ctx, before.Active.ID), server.RevokeX509Authority(ctx, before.Active.ID)); err != nil {
		return err
	}
	return check.Until(ctx, check.Bound{Within: federation.EndpointSVIDBound() + machine, Every: poll}, check.Check{
		Name: other.Name.Name() + " has heard of the revocation", Probe: func(ctx context.Context) error {
			if err := peer.RefreshBundle(ctx, own.Name); err != nil {
				return err
			}
			held, err := peer.HeldBundle(ctx, own.Name)
			if err == nil && slices.Contains(federation.X509IDs(held), before.Active.ID) {
				err = errors.New("it holds the old authority")
			}
			return err
		},
	})
}

// repaired lets up put right what a spec has not.
func (s *subject) repaired(ctx context.Context) error {
	if s.well(ctx) == nil {
		return nil
	}
	e, err := s.run(ctx, "up", "--lab", s.file)
	if err == nil && e.Code != 0 {
		err = fmt.Errorf("up: exit code %d: %s", e.Code, e.Stderr)
	}
	return err
}

// byHand does to a cluster what a person does with kubectl, which is on its node.
func byHand(ctx context.Context, cluster string, args ...string) error {
	_, err := docker(ctx, append([]string{"exec", local.NodeName(under.graph.Name, cluster), "kubectl", "--kubeconfig=/etc/kubernetes/admin.conf"}, args...)...)
	return err
}

// remove deletes an object that is in no namespace.
func remove(ctx context.Context, cluster, apiVersion, kind, name string) error {
	c, err := under.cluster(cluster)
	if err != nil {
		return err
	}
	return c.Delete(ctx, map[string]any{"apiVersion": apiVersion, "kind": kind, "metadata": map[string]any{"name": name}})
}

var _ = Describe("A change to a demo program", Label("up", "slow"), func() {
	// What a person who tries a change waits for; the compiler needs most of it.
	const bound = 30 * time.Second

	It("reaches the lab that runs by one command", func(ctx SpecContext) {
		p := under.pair()
		const file, company = "apps/stock-quotes/market.go", "Acorn Foods"
		Expect(names(p.broker, company)(ctx)).To(Succeed())
		renamed := fmt.Sprintf("Acorn %x", time.Now().UnixNano())

		By("the command is built with a changed source, of which the checkout knows nothing")
		builds, err := demoBuilds(p.server.App.Name)
		Expect(err).NotTo(HaveOccurred())
		program := filepath.Join(under.scratch, "fedlab-changed")
		DeferCleanup(func() error {
			now, err := demoBuilds(p.server.App.Name)
			errs := []error{err, os.Remove(program)}
			for _, dir := range now {
				if !slices.Contains(builds, dir) {
					errs = append(errs, os.RemoveAll(dir))
				}
			}
			return errors.Join(errs...)
		})
		overlay, err := changed(file, company, renamed)
		Expect(err).NotTo(HaveOccurred())
		began := time.Now()
		Expect(build(ctx, program, overlay)).To(Succeed())
		measured("the command is built in", began)

		By("up brings it to the lab")
		under.restored(rollout, func(ctx context.Context) error {
			e, err := under.run(ctx, "up", "--lab", under.file)
			if err == nil && e.Code != 0 {
				err = fmt.Errorf("up: exit code %d", e.Code)
			}
			asBefore := check.Check{Name: "the quotes name " + company + " again", Probe: names(p.broker, company)}
			return errors.Join(err, check.Until(ctx, check.Bound{Within: 10 * time.Second, Every: poll}, asBefore))
		})
		began = time.Now()
		up, err := command{program: program, scratch: under.scratch}.run(ctx, "up", "--lab", under.file)
		Expect(err).NotTo(HaveOccurred())
		Expect(up).To(endWell())
		Eventually(names(p.broker, renamed)).WithContext(ctx).WithTimeout(10 * time.Second).WithPolling(poll).Should(Succeed())
		measured("the change is in the lab after", began)
		Expect(time.Since(began)).To(BeNumerically("<", bound))
	}, SpecTimeout(5*time.Minute))
})

// changed returns a file for the flag -overlay of the go command, with which one
// source file reads otherwise.
func changed(file, old, text string) (string, error) {
	path, err := filepath.Abs(filepath.Join(root, file))
	if err != nil {
		return "", err
	}
	source, err := os.ReadFile(path)
	if err != nil {
		return "", err
	}
	if bytes.Count(source, []byte(old)) != 1 {
		return "", fmt.Errorf("%s does not hold %q once", file, old)
	}
	edited := filepath.Join(under.scratch, "changed.go")
	overlay, err := json.Marshal(map[string]any{"Replace": map[string]string{path: edited}})
	if err != nil {
		return "", err
	}
	name := filepath.Join(under.scratch, "overlay.json")
	return name, errors.Join(
		os.WriteFile(edited, bytes.Replace(source, []byte(old), []byte(text), 1), 0o600),
		os.WriteFile(name, overlay, 0o600))
}

// demoBuilds lists what the cache holds of a demo program.
func demoBuilds(app string) ([]string, error) {
	cache, err := local.Cache()
	if err != nil {
		return nil, err
	}
	return filepath.Glob(filepath.Join(cache, "builds", app+"-*"))
}
