package e2e

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	"github.com/spiffe/go-spiffe/v2/spiffeid"

	labs "github.com/fedlab-dev/fedlab/lab"
	"github.com/fedlab-dev/fedlab/lab/config"
	"github.com/fedlab-dev/fedlab/lab/federation"
	"github.com/fedlab-dev/fedlab/lab/local"
	"github.com/fedlab-dev/fedlab/lab/spire"
	"github.com/fedlab-dev/fedlab/lab/topology"
)

// A partner without Kubernetes, and a machine of the company that is in no cluster. The
// company's bundle endpoint is https_web, the partner's https_spiffe.
var _ = Describe("A host outside Kubernetes", Ordered, Label("hosts", "night"), func() {
	const company, partner = "company.test", "partner.test"
	var (
		lab    *subject
		before traces
	)
	file := func() string { return filepath.Join(scratch(), "hosts.yaml") }
	write := func(l config.Lab) {
		GinkgoHelper()
		data, err := config.Marshal(l)
		Expect(err).NotTo(HaveOccurred())
		Expect(os.WriteFile(file(), data, 0o644)).To(Succeed())
	}
	intent := func() config.Lab {
		return config.Lab{
			APIVersion: config.APIVersion, Kind: config.Kind, Metadata: config.Metadata{Name: "e2e-hosts"},
			Spec: config.Spec{
				Clusters: []config.Cluster{{Name: "market", TrustDomain: company}},
				Hosts:    []config.Host{{Name: "onprem", TrustDomain: company}, {Name: "partner", TrustDomain: partner}},
				TrustDomains: []config.TrustDomain{{
					Name: company,
					BundleEndpoint: config.BundleEndpoint{
						Profile: string(topology.HTTPSWeb), HTTPSWeb: &config.HTTPSWeb{ServingCert: &config.ServingCert{}},
					},
				}},
				Federation: []config.Federation{{Between: []string{company, partner}}},
				Workloads: []config.Workload{
					{App: "stock-quotes", Cluster: "market"},
					{Name: "partner-quotes", App: "stock-quotes", Host: "partner"},
					{Name: "partner-broker", App: "broker-webapp", Host: "partner", Calls: []string{"stock-quotes"}},
					{Name: "onprem-broker", App: "broker-webapp", Host: "onprem", Calls: []string{"partner-quotes"}},
				},
			},
		}
	}
	workload := func(name string) *topology.Workload {
		GinkgoHelper()
		i := slices.IndexFunc(lab.graph.Workloads, func(w *topology.Workload) bool { return w.Name == name })
		Expect(i).To(BeNumerically(">=", 0), name)
		return lab.graph.Workloads[i]
	}
	// told asks a broker on a host for quotes.
	told := func(ctx context.Context, name string) (v view, err error) {
		w := workload(name)
		ctx, cancel := context.WithTimeout(ctx, 15*time.Second)
		defer cancel()
		client := http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return lab.driver.Parts.OnHost(lab.graph.Name, w.Host().Name).Dial(ctx, labs.HostRun(w), w.App.Port)
		}}}
		request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://localhost/api/quotes", nil)
		if err != nil {
			return v, err
		}
		response, err := client.Do(request)
		if err != nil {
			return v, err
		}
		defer func() { err = errors.Join(err, response.Body.Close()) }()
		return v, json.NewDecoder(response.Body).Decode(&v)
	}
	// calls returns nil when a broker on a host has met whom it should.
	calls := func(name string, met, as string) func(context.Context) error {
		return func(ctx context.Context) error {
			v, err := told(ctx, name)
			switch {
			case err != nil:
				return err
			case v.Error != nil:
				return fmt.Errorf("%s: %s: %s", v.Error.Class, v.Error.What, v.Error.Detail)
			case v.Peer == nil || v.Self == nil:
				return errors.New("nobody answered yet")
			case v.Peer.ID != met || v.Self.ID != as:
				return fmt.Errorf("%s has met %s", v.Self.ID, v.Peer.ID)
			}
			return nil
		}
	}
	// joined returns the agents of a host that the server of a trust domain knows.
	joined := func(ctx context.Context, s *subject, trustDomain, host string) (ids []spiffeid.ID, err error) {
		agents, err := s.site(ctx, spiffeid.RequireTrustDomainFromString(trustDomain)).API.Agents(ctx)
		for _, a := range agents {
			if spire.JoinedOn(a.ID) == host {
				ids = append(ids, a.ID)
			}
		}
		return ids, err
	}
	agent := func() string { return local.HostContainer(lab.graph.Name, "partner", labs.HostAgent) }
	// svid runs a demo program of a host's container once more, as a user, which asks the
	// agent for what that process is given.
	svid := func(ctx context.Context, in *topology.Workload, uid int) error {
		_, err := docker(ctx, "exec", "--user", strconv.Itoa(uid), local.HostContainer(lab.graph.Name, in.Host().Name, labs.HostRun(in)), "/"+in.App.Name, "svid")
		return err
	}
	BeforeAll(func(ctx SpecContext) {
		write(intent())
		lab, before = raisedAlone(ctx, file(), "a cluster and two hosts")
	}, NodeTimeout(10*time.Minute))

	It("has agents that joined by a token, and servers that know them", func(ctx SpecContext) {
		Expect(lab.well(ctx)).To(Succeed())
		for trustDomain, host := range map[string]string{company: "onprem", partner: "partner"} {
			agents, err := lab.site(ctx, spiffeid.RequireTrustDomainFromString(trustDomain)).API.Agents(ctx)
			Expect(err).NotTo(HaveOccurred())
			Expect(agents).To(ContainElement(And(HaveField("AttestedBy", "join_token"), HaveField("ID", WithTransform(spire.JoinedOn, Equal(host))))))
		}
		Expect(lab.fedlab(ctx, "drift")).To(endWell())
		Expect(lab.fedlab(ctx, "logs", partner, "agent")).To(And(endWell(), HaveField("Stdout", ContainSubstring("Node attestation was successful"))))
		Expect(lab.fedlab(ctx, "logs", company, "agent", "--cluster", "onprem")).To(endWell())
	}, NodeTimeout(2*time.Minute))

	It("calls a workload of a cluster, and is called, over mutual TLS", func(ctx SpecContext) {
		for name, call := range map[string]func(context.Context) error{
			"from the partner to the cluster":              calls("partner-broker", "spiffe://"+company+"/server", "spiffe://"+partner+"/client"),
			"from a machine of the company to the partner": calls("onprem-broker", "spiffe://"+partner+"/server", "spiffe://"+company+"/client"),
		} {
			Eventually(call).WithContext(ctx).WithTimeout(machine).WithPolling(poll).Should(Succeed(), name)
		}
		Expect(lab.fedlab(ctx, "svid", "partner-quotes")).To(And(endWell(), HaveField("Stdout", ContainSubstring("spiffe://"+partner+"/server"))))
	}, SpecTimeout(3*time.Minute))

	// The kernel says who a workload is: its user and its program.
	It("gives an identity to this user's process of this program, and to no other", func(ctx SpecContext) {
		for name, in := range map[string]string{"partner-quotes": partner, "onprem-broker": company} {
			w := workload(name)
			agents, err := joined(ctx, lab, in, w.Host().Name)
			Expect(err).NotTo(HaveOccurred())
			Expect(agents).To(HaveLen(1))
			entries, err := lab.site(ctx, spiffeid.RequireTrustDomainFromString(in)).API.Entries(ctx)
			Expect(err).NotTo(HaveOccurred())
			Expect(entries).To(ContainElement(And(
				HaveField("ParentID", agents[0]), HaveField("SPIFFEID", w.ID),
				HaveField("Selectors", ConsistOf(fmt.Sprintf("unix:uid:%d", w.UID()), "unix:path:/"+w.App.Name)),
			)), name)
		}
		quotes, broker := workload("partner-quotes"), workload("partner-broker")
		Expect(svid(ctx, quotes, quotes.UID())).To(Succeed())
		Expect(svid(ctx, quotes, broker.UID())).To(MatchError(ContainSubstring("no identity issued")), "its program, run by another user")
		Expect(svid(ctx, broker, quotes.UID())).To(MatchError(ContainSubstring("no identity issued")), "its user, with another program")
	}, SpecTimeout(2*time.Minute))

	It("is unchanged by a second up", func(ctx SpecContext) { lab.unchanged(ctx) }, SpecTimeout(2*time.Minute))

	It("fetches by https_web, and is fetched from by https_spiffe", func(ctx SpecContext) {
		found, code, err := lab.status(ctx)
		Expect(err).NotTo(HaveOccurred())
		Expect(code).To(BeZero())
		profiles := map[string]string{}
		for _, r := range found.Relationships {
			profiles[r.Truster] = r.Profile
		}
		Expect(profiles).To(Equal(map[string]string{company: string(topology.HTTPSSPIFFE), partner: string(topology.HTTPSWeb)}))
		// What comes after the first bundle comes by a fetch.
		for truster, trusted := range map[string]string{company: partner, partner: company} {
			of := spiffeid.RequireTrustDomainFromString(trusted)
			next, err := lab.site(ctx, of).API.PrepareX509Authority(ctx)
			Expect(err).NotTo(HaveOccurred())
			peer := lab.site(ctx, spiffeid.RequireTrustDomainFromString(truster)).API
			Eventually(func(ctx context.Context) error {
				held, err := peer.HeldBundle(ctx, of)
				if err != nil {
					return err
				}
				return inBundle(held, next.ID, true)
			}).WithContext(ctx).WithTimeout(federation.FetchBound(federation.PollInterval(time.Minute, 0))+machine).WithPolling(poll).Should(Succeed(), truster)
		}
	}, SpecTimeout(5*time.Minute))

	It("has an agent that is killed, and attests with its data and without a token", func(ctx SpecContext) {
		was, err := joined(ctx, lab, partner, "partner")
		Expect(err).NotTo(HaveOccurred())
		Expect(was).To(HaveLen(1))
		_, err = docker(ctx, "kill", agent())
		Expect(err).NotTo(HaveOccurred())
		found, code, err := lab.status(ctx)
		Expect(err).NotTo(HaveOccurred())
		Expect(code).To(Equal(3))
		Expect(found.Problems()).To(ContainElement("host partner: agent on host partner is stopped"))
		_, err = docker(ctx, "start", agent())
		Expect(err).NotTo(HaveOccurred())
		Eventually(lab.well).WithContext(ctx).WithTimeout(rollout).WithPolling(time.Second).Should(Succeed(), "without an up")
		Expect(joined(ctx, lab, partner, "partner")).To(Equal(was), "with a token it would have another SPIFFE ID")
		Expect(lab.fedlab(ctx, "logs", partner, "agent")).To(And(endWell(), HaveField("Stdout", ContainSubstring("SVID loaded"))))
		Expect(lab.fedlab(ctx, "svid", "partner-quotes")).To(endWell())
	}, SpecTimeout(5*time.Minute))

	It("has an agent that is refused without its data, until there is another token", func(ctx SpecContext) {
		was, err := joined(ctx, lab, partner, "partner")
		Expect(err).NotTo(HaveOccurred())
		used := filepath.Join(scratch(), "join-token")
		_, err = docker(ctx, "cp", agent()+":"+spire.HostJoinToken, used)
		Expect(err).NotTo(HaveOccurred())
		token, err := os.ReadFile(used)
		Expect(err).NotTo(HaveOccurred())
		Expect(was).To(Equal([]spiffeid.ID{spire.JoinedAgentID(spiffeid.RequireTrustDomainFromString(partner), string(token))}), "its file has the token that it has used")
		_, err = docker(ctx, "kill", agent())
		Expect(err).NotTo(HaveOccurred())
		image, err := docker(ctx, "inspect", "--format", "{{.Config.Image}}", local.NodeName(lab.graph.Name, "market"))
		Expect(err).NotTo(HaveOccurred())
		_, err = docker(ctx, "run", "--rm", "--network", "none", "--entrypoint", "/bin/sh", "--volumes-from", agent(), image[0], "-c", "rm -rf "+spire.HostDataDir+"/*")
		Expect(err).NotTo(HaveOccurred())
		_, err = docker(ctx, "start", agent())
		Expect(err).NotTo(HaveOccurred())
		// It shows that token again.
		const words = "join token does not exist or has already been used"
		Eventually(func(ctx context.Context) (string, error) {
			logs, err := lab.run(ctx, "logs", partner, "agent", "--lab", lab.file)
			return logs.Stdout, err
		}).WithContext(ctx).WithTimeout(rollout).WithPolling(time.Second).Should(ContainSubstring(words))
		Expect(joined(ctx, lab, partner, "partner")).To(Equal(was), "the server knows no other agent")
		found, code, err := lab.status(ctx)
		Expect(err).NotTo(HaveOccurred())
		Expect(code).To(Equal(3))
		Expect(found.Problems()).To(ContainElement(HavePrefix("trust domain " + partner + ": agent ")))

		Expect(lab.fedlab(ctx, "up")).To(endWell())
		Expect(lab.well(ctx)).To(Succeed())
		now, err := joined(ctx, lab, partner, "partner")
		Expect(err).NotTo(HaveOccurred())
		Expect(now).To(And(HaveLen(1), Not(Equal(was))))
		Eventually(calls("partner-broker", "spiffe://"+company+"/server", "spiffe://"+partner+"/client")).
			WithContext(ctx).WithTimeout(machine).WithPolling(poll).Should(Succeed())
		lab.unchanged(ctx)
	}, SpecTimeout(8*time.Minute))

	It("keeps what its server knows when all of its containers are gone", func(ctx SpecContext) {
		td := spiffeid.RequireTrustDomainFromString(partner)
		was, err := lab.site(ctx, td).API.Bundle(ctx)
		Expect(err).NotTo(HaveOccurred())
		agents, err := joined(ctx, lab, partner, "partner")
		Expect(err).NotTo(HaveOccurred())
		containers, err := docker(ctx, "ps", "--all", "--quiet", "--filter", "label=dev.fedlab.lab="+lab.graph.Name, "--filter", "label=dev.fedlab.host=partner")
		Expect(err).NotTo(HaveOccurred())
		_, err = docker(ctx, append([]string{"rm", "--force"}, containers...)...)
		Expect(err).NotTo(HaveOccurred())
		Expect(lab.fedlab(ctx, "up")).To(endWell())
		Expect(lab.well(ctx)).To(Succeed())
		is, err := lab.site(ctx, td).API.Bundle(ctx)
		Expect(err).NotTo(HaveOccurred())
		Expect(is.X509Bundle().Equal(was.X509Bundle())).To(BeTrue(), "it has other authorities")
		Expect(joined(ctx, lab, partner, "partner")).To(Equal(agents))
	}, SpecTimeout(5*time.Minute))

	It("goes without a trace in the server of a cluster", func(ctx SpecContext) {
		l := intent()
		l.Spec.Hosts = slices.Delete(l.Spec.Hosts, 0, 1)
		l.Spec.Workloads = slices.DeleteFunc(l.Spec.Workloads, func(w config.Workload) bool { return w.Host == "onprem" })
		write(l)
		left, err := existing(under.command, file())
		Expect(err).NotTo(HaveOccurred())
		DeferCleanup(left.close)
		Expect(left.fedlab(ctx, "up")).To(endWell())
		Expect(left.well(ctx)).To(Succeed())
		Expect(joined(ctx, left, company, "onprem")).To(BeEmpty())
		entries, err := left.site(ctx, spiffeid.RequireTrustDomainFromString(company)).API.Entries(ctx)
		Expect(err).NotTo(HaveOccurred())
		Expect(entries).To(And(Not(BeEmpty()), HaveEach(HaveField("ParentID", WithTransform(spire.JoinedOn, BeEmpty())))))
		containers, err := docker(ctx, "ps", "--all", "--quiet", "--filter", "label=dev.fedlab.lab="+lab.graph.Name, "--filter", "label=dev.fedlab.host=onprem")
		Expect(err).NotTo(HaveOccurred())
		Expect(containers).To(BeEmpty())
	}, SpecTimeout(5*time.Minute))

	It("leaves nothing", func(ctx SpecContext) { lab.cleared(ctx, before) }, SpecTimeout(3*time.Minute))
})
