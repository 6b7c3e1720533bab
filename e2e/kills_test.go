package e2e

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"

	"go.yaml.in/yaml/v3"

	"github.com/fedlab-dev/fedlab/lab/config"
	"github.com/fedlab-dev/fedlab/scenarios"
)

const (
	// early is how long after its start a command is killed at the latest that is
	// killed where all begins.
	early = 2 * time.Second
	// wholeUp and wholeDown are about as long as an up and a down take.
	wholeUp, wholeDown = 40 * time.Second, 5 * time.Second
	// submitted and all are how often each command is killed for a submission, and
	// when there is time.
	submitted, all = 3, 20
)

// dice are what decides when a command is killed. The seed is that of the order of
// specs, which Ginkgo prints.
func dice() *rand.Rand { return rand.New(rand.NewPCG(uint64(GinkgoRandomSeed()), 0)) } //nolint:gosec // no secret

// killedWithin starts a command and kills it with SIGKILL at a random moment. One
// that has ended by itself before is as good.
func (s *subject) killedWithin(ctx context.Context, dice *rand.Rand, within time.Duration, args ...string) error {
	begun := make(chan struct{})
	close(begun)
	return s.killed(ctx, io.Discard, begun, time.Duration(dice.Int64N(int64(within))), args...)
}

// killedOnce starts a command and kills it with SIGKILL at a random moment after it has
// printed something. It is an error when the command ends before.
func (s *subject) killedOnce(ctx context.Context, dice *rand.Rand, printed string, within time.Duration, args ...string) error {
	out := &watchedFor{what: printed, seen: make(chan struct{})}
	if err := s.killed(ctx, out, out.seen, time.Duration(dice.Int64N(int64(within))), args...); err != nil {
		return err
	}
	if out.what != "" {
		return fmt.Errorf("it has not printed %q", printed)
	}
	return nil
}

// watchedFor is an output in which something is looked for until it is seen.
type watchedFor struct {
	what, line string
	seen       chan struct{}
}

func (w *watchedFor) Write(p []byte) (int, error) {
	w.line += string(p)
	if w.what != "" && strings.Contains(w.line, w.what) {
		w.what = ""
		close(w.seen)
	}
	w.line = w.line[strings.LastIndex(w.line, "\n")+1:]
	return len(p), nil
}

// killed starts a command and kills it so long after a moment.
func (s *subject) killed(ctx context.Context, stdout io.Writer, moment <-chan struct{}, after time.Duration, args ...string) error {
	cmd, err := s.prepare(ctx, append(args, "--lab", s.file)...)
	if err != nil {
		return err
	}
	cmd.Stdout, cmd.Stderr = io.MultiWriter(GinkgoWriter, stdout), GinkgoWriter
	if err := cmd.Start(); err != nil {
		return err
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	var late <-chan time.Time
	for {
		select {
		case err := <-ended:
			GinkgoWriter.Printf("$ %s\nended by itself: %v\n", strings.Join(cmd.Args, " "), err)
			return err
		case <-moment:
			moment, late = nil, time.After(after)
		case <-late:
			GinkgoWriter.Printf("$ %s\nkilled after %s\n", strings.Join(cmd.Args, " "), after.Round(time.Millisecond))
			err = cmd.Process.Kill()
			GinkgoWriter.Printf("ended: %v\n", <-ended)
			return err
		}
	}
}

// cleared takes the lab down at once and wants nothing to be left.
func (s *subject) cleared(ctx context.Context, before traces) {
	GinkgoHelper()
	Expect(s.noteVolumes(ctx)).To(Succeed())
	Expect(s.fedlab(ctx, "down")).To(endWell())
	// A command of somebody who was killed may take a moment to end.
	Eventually(func() error { return leftBehind(ctx, s, before) }).WithContext(ctx).
		WithTimeout(10*time.Second).WithPolling(time.Second).Should(Succeed(), "down leaves nothing")
}

// downThroughKills takes the suite's own lab down, killed several times on the way.
func (s *subject) downThroughKills(ctx context.Context) error {
	dice := dice()
	var errs []error
	for range submitted {
		errs = append(errs, s.noteVolumes(ctx), s.killedWithin(ctx, dice, early, "down"))
	}
	return errors.Join(errs...)
}

var _ = Describe("A lab whose commands are killed", Label("scenario", "kills"), func() {
	It("comes up with the next up and leaves nothing with the next down", func(ctx SpecContext) {
		file, err := labFile(ctx, config.DefaultPreset, "kills-")
		Expect(err).NotTo(HaveOccurred())
		s, err := existing(under.command, file)
		Expect(err).NotTo(HaveOccurred())
		DeferCleanup(s.close)
		DeferCleanup(func(ctx SpecContext) { Expect(s.fedlab(ctx, "down")).To(endWell()) }, NodeTimeout(rollout))
		before, err := tracesNow(ctx, s)
		Expect(err).NotTo(HaveOccurred())
		dice := dice()
		for i := range all {
			By(fmt.Sprintf("round %d of %d", i+1, all))
			Expect(s.killedWithin(ctx, dice, wholeUp, "up")).To(Succeed())
			Expect(s.noteVolumes(ctx)).To(Succeed())
			Expect(s.fedlab(ctx, "up")).To(endWell())
			Expect(s.well(ctx)).To(Succeed())
			Expect(s.noteVolumes(ctx)).To(Succeed())
			Expect(s.killedWithin(ctx, dice, wholeDown, "down")).To(Succeed())
			s.cleared(ctx, before)
		}
	}, SpecTimeout(90*time.Minute))
})

var _ = Describe("A lab whose Docker is killed with SIGKILL", Label("scenario", "kills"), func() {
	It("is back with the next setup and up", func(ctx SpecContext) {
		out, err := exec.CommandContext(ctx, "pidof", "dockerd").Output()
		Expect(err).NotTo(HaveOccurred(), "dockerd runs here")
		pid, err := strconv.Atoi(strings.TrimSpace(string(out)))
		Expect(err).NotTo(HaveOccurred(), "there is one dockerd")
		for _, c := range under.graph.Clusters {
			DeferCleanup(under.explain, c.Name, NodeTimeout(rollout))
		}
		under.restored(rollout, under.repaired)
		Expect(syscall.Kill(pid, syscall.SIGKILL)).To(Succeed())
		setup, err := under.run(ctx, "setup")
		Expect(err).NotTo(HaveOccurred())
		Expect(setup).To(endWell())
		up := under.fedlab(ctx, "up")
		Expect(up).To(endWell())
		AddReportEntry("up after dockerd was killed", up.Took.String(), ReportEntryVisibilityAlways)
		Expect(under.well(ctx)).To(Succeed())
	}, SpecTimeout(10*time.Minute))
})

var _ = Describe("A scenario that is killed", Label("scenario", "kills"), func() {
	// during is the step of the scenario in which it is killed.
	DescribeTable("is whole when it runs again after up",
		func(ctx SpecContext, name, during string) {
			s, err := scenarios.Find(name)
			Expect(err).NotTo(HaveOccurred())
			fits, err := s.RunsOn(under.graph)
			Expect(err).NotTo(HaveOccurred())
			for _, c := range under.graph.Clusters {
				DeferCleanup(under.explain, c.Name, NodeTimeout(rollout))
			}
			under.restored(rollout, under.repaired)
			run := func(records string) []string {
				return []string{"scenario", "run", name, "--on", fits[0].String(), "--records", filepath.Join(scratch(), records), "-o", "json"}
			}
			step, err := json.Marshal(during)
			Expect(err).NotTo(HaveOccurred())
			Expect(under.killedOnce(ctx, dice(), `"name":`+string(step), early, run("killed")...)).To(Succeed())
			Expect(under.fedlab(ctx, "up")).To(endWell())
			Expect(under.well(ctx)).To(Succeed())
			Expect(under.fedlab(ctx, run("whole")...)).To(endWell())
		},
		Entry("while two clusters are parted", "outage/partition", "part them in both directions, and publish another authority", SpecTimeout(6*time.Minute)),
		Entry("while a cluster is off", "outage/cluster", "see that the other cluster gives newcomers their identity meanwhile", SpecTimeout(6*time.Minute)),
		Entry("while a server is away", "outage/server", "let a newcomer come: it waits", SpecTimeout(6*time.Minute)),
		Entry("in the middle of a rotation", "rotation/x509-authority", "taint the old one, so that all it has signed is replaced", SpecTimeout(6*time.Minute)),
		Entry("while a foreign root is in a bundle", "drift/tampered", "find it: the comparison with the source names the foreign root", SpecTimeout(6*time.Minute)),
	)
})

var _ = Describe("A repair of a held bundle that is killed", Label("scenario", "kills"), func() {
	It("is whole when it runs again", func(ctx SpecContext) {
		p := under.pair()
		truster, trusted := p.broker.Domain().String(), p.server.Domain().String()
		under.restored(rollout, under.repaired)
		dice := dice()
		for range submitted {
			deleted, err := under.run(ctx, "spire", "--lab", under.file, truster, "--", "bundle", "delete", "-id", "spiffe://"+trusted, "-mode", "dissociate")
			Expect(err).NotTo(HaveOccurred())
			Expect(deleted).To(endWell())
			Expect(under.killedWithin(ctx, dice, early, "drift", "--repair")).To(Succeed())
			Expect(under.fedlab(ctx, "drift", "--repair")).To(endWell())
			Expect(under.fedlab(ctx, "drift")).To(endWell())
			Eventually(flowing(p.broker)).WithContext(ctx).WithTimeout(machine).WithPolling(time.Second).Should(Succeed())
		}
	}, SpecTimeout(5*time.Minute))
})

var _ = Describe("The bootstrap token that kind gives every cluster", Label("up"), func() {
	It("opens no cluster of a lab", func(ctx SpecContext) {
		const token = "abcdef.0123456789abcdef" //nolint:gosec // everybody knows it
		for _, c := range under.graph.Clusters {
			for _, invitation := range [][2]string{{"Secret", "kube-system/bootstrap-token-abcdef"}, {"ConfigMap", "kube-public/cluster-info"}} {
				namespace, name, _ := strings.Cut(invitation[1], "/")
				there, err := under.there(ctx, c.Name, "v1", invitation[0], namespace, name)
				Expect(err).NotTo(HaveOccurred())
				Expect(there).To(BeFalse(), "%s %s of %s", invitation[0], invitation[1], c.Name)
			}
			Eventually(under.answersTo).WithContext(ctx).WithArguments(c.Name, token).
				WithTimeout(machine).WithPolling(time.Second).Should(Equal(http.StatusUnauthorized), "a node that joins %s asks so", c.Name)
		}
	}, SpecTimeout(2*time.Minute))
})

// answersTo returns how the API of a cluster answers whoever has a token and asks
// what a node asks first.
func (s *subject) answersTo(ctx context.Context, cluster, token string) (status int, err error) {
	kubeconfig, err := s.driver.Parts.Kubeconfigs.Kubeconfig(s.graph.Name, cluster)
	if err != nil {
		return 0, err
	}
	var k struct {
		Clusters []struct {
			Cluster struct{ Server string }
		}
	}
	if err := yaml.Unmarshal(kubeconfig, &k); err != nil || len(k.Clusters) != 1 {
		return 0, fmt.Errorf("read kubeconfig of cluster %s: %d clusters, %w", cluster, len(k.Clusters), err)
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, k.Clusters[0].Cluster.Server+"/api/v1/namespaces/kube-system/configmaps/kubeadm-config", nil)
	if err != nil {
		return 0, err
	}
	request.Header.Set("Authorization", "Bearer "+token)
	// Who the server is does not matter: it is told what everybody knows.
	transport := &http.Transport{DisableKeepAlives: true, TLSClientConfig: &tls.Config{InsecureSkipVerify: true}} //nolint:gosec // see above
	response, err := transport.RoundTrip(request)
	if err != nil {
		return 0, err
	}
	_, err = io.Copy(io.Discard, response.Body)
	return response.StatusCode, errors.Join(err, response.Body.Close())
}
