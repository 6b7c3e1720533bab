package e2e

import (
	"archive/tar"
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"

	"github.com/fedlab-dev/fedlab/e2e/guide"
)

// auditManifests run the program of the guide by plain manifests.
const auditManifests = `
apiVersion: v1
kind: ServiceAccount
metadata: {name: audit}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: audit}
spec:
  selector: {matchLabels: {app: audit}}
  template:
    metadata: {labels: {app: audit}}
    spec:
      serviceAccountName: audit
      containers:
        - name: audit
          image: example.test/audit:1
          envFrom: [{configMapRef: {name: fedlab-audit}}]
          volumeMounts: [{name: sockets, mountPath: /run/spire/agent-sockets}]
      volumes: [{name: sockets, hostPath: {path: /run/spire/agent-sockets}}]
`

// ownLab is a lab whose programs are not fedlab's: those of the guide, and a third one
// of plain manifests with an image from elsewhere.
const ownLab = `
apiVersion: fedlab.dev/v1alpha1
kind: Lab
metadata: {name: e2e-own}
spec:
  clusters:
    - {name: market, trustDomain: cluster1.com}
    - {name: broker, trustDomain: cluster2.com}
  federation:
    - {between: [cluster1.com, cluster2.com]}
  workloads:
    - name: payments
      cluster: market
      chart: ./chart
      images: [{name: "example.test/payments:dev", go: .}]
      identity: {namespace: shop, serviceAccount: payments, path: "/{{ .PodSpec.ServiceAccountName }}"}
      port: 8443
      check: {path: /, as: cluster2.com}
    - name: till
      cluster: broker
      chart: ./chart
      images: [{name: "example.test/payments:dev", go: .}]
      identity: {namespace: shop, serviceAccount: till, path: /till}
      calls: [payments]
%s`

const auditEntry = `
    - name: audit
      cluster: broker
      manifests: ./k8s
      images: [{name: "example.test/audit:1", %s}]
      identity: {namespace: audit, serviceAccount: audit, federatesWith: [cluster1.com]}
      calls: [payments]
`

var _ = Describe("Programs of one's own", Ordered, Label("own"), func() {
	var (
		lab    *subject
		folder string
	)
	write := func(more string) {
		GinkgoHelper()
		Expect(os.WriteFile(filepath.Join(folder, "lab.yaml"), fmt.Appendf(nil, ownLab, more), 0o644)).To(Succeed())
	}
	// says waits until the log of a workload has words.
	says := func(ctx context.Context, cluster, namespace, app, words string) {
		GinkgoHelper()
		c, err := lab.cluster(cluster)
		Expect(err).NotTo(HaveOccurred())
		Eventually(func() (string, error) {
			pods, err := c.Pods(ctx, namespace, "app="+app)
			if err != nil || len(pods) == 0 {
				return "", err
			}
			log, err := c.Logs(ctx, namespace, pods[len(pods)-1].Name, pods[0].Containers[0].Name, false, logLines)
			return string(log), err
		}).WithContext(ctx).WithTimeout(rollout).WithPolling(poll).Should(ContainSubstring(words))
	}
	BeforeAll(func(ctx SpecContext) {
		folder = filepath.Join(scratch(), "own")
		Expect(guide.Copy(folder, filepath.Join(root, "docs", "guides", "payments"))).To(Succeed())
		Expect(os.Mkdir(filepath.Join(folder, "k8s"), 0o755)).To(Succeed())
		Expect(os.WriteFile(filepath.Join(folder, "k8s", "audit.yaml"), []byte(auditManifests), 0o644)).To(Succeed())
		write("")
		lab = raised(ctx, filepath.Join(folder, "lab.yaml"), "a lab of one's own programs")
		// Nobody killed this bring-up: what SPIRE needs is there when it starts.
		restarts, err := lab.restarts(ctx)
		Expect(err).NotTo(HaveOccurred())
		for container, n := range restarts {
			if strings.Contains(container, "spire") {
				Expect(n).To(BeZero(), container)
			}
		}
	}, NodeTimeout(10*time.Minute))

	It("are called across the federation", func(ctx SpecContext) {
		Expect(lab.well(ctx)).To(Succeed())
		says(ctx, "broker", "shop", "till", "paid by spiffe://cluster2.com/till")
		lab.unchanged(ctx)
	}, NodeTimeout(3*time.Minute))

	It("are checked from another trust domain", func(ctx SpecContext) {
		probes := func() (names []string) {
			found, _, err := lab.status(ctx)
			Expect(err).NotTo(HaveOccurred())
			for _, w := range found.Workloads {
				if strings.HasPrefix(w.Name, "probe-") {
					names = append(names, w.Name)
				}
			}
			return names
		}
		Expect(probes()).To(Equal([]string{"probe-cluster2.com"}))
		// Status goes by the file: nobody has to bring up what does not answer.
		Expect(os.WriteFile(filepath.Join(folder, "lab.yaml"), []byte(strings.Replace(fmt.Sprintf(ownLab, ""), "check: {path: /, as", "check: {path: /, port: 9, as", 1)), 0o644)).To(Succeed())
		found, code, err := lab.status(ctx)
		Expect(err).NotTo(HaveOccurred())
		Expect(code).To(Equal(3))
		Expect(found.Problems()).To(ConsistOf(HavePrefix("workload payments: check /: get https://")))
		write("")
	}, SpecTimeout(2*time.Minute))

	It("are changed in less than 30 seconds", func(ctx SpecContext) {
		file := filepath.Join(folder, "main.go")
		source, err := os.ReadFile(file)
		Expect(err).NotTo(HaveOccurred())
		Expect(os.WriteFile(file, bytes.ReplaceAll(source, []byte("paid by"), []byte("settled by")), 0o644)).To(Succeed())
		began := time.Now()
		Expect(lab.fedlab(ctx, "up")).To(endWell())
		Expect(time.Since(began)).To(BeNumerically("<", 30*time.Second))
		measured("a changed program up in", began)
		says(ctx, "broker", "shop", "till", "settled by spiffe://cluster2.com/till")
	}, SpecTimeout(3*time.Minute))

	DescribeTable("come by plain manifests, with an image of", func(ctx SpecContext, source string) {
		// An image that fedlab knows nothing of: the program alone.
		binary := filepath.Join(folder, "audit")
		build := exec.CommandContext(ctx, "go", "build", "-o", binary, ".")
		build.Dir, build.Env = folder, append(os.Environ(), "CGO_ENABLED=0")
		out, err := build.CombinedOutput()
		Expect(err).NotTo(HaveOccurred(), "%s", out)
		program, err := os.ReadFile(binary)
		Expect(err).NotTo(HaveOccurred())
		var layer bytes.Buffer
		w := tar.NewWriter(&layer)
		Expect(w.WriteHeader(&tar.Header{Name: "audit", Mode: 0o755, Size: int64(len(program)), Typeflag: tar.TypeReg})).To(Succeed())
		_, err = w.Write(program)
		Expect(err).NotTo(HaveOccurred())
		Expect(w.Close()).To(Succeed())
		plain := filepath.Join(folder, "layer.tar")
		Expect(os.WriteFile(plain, layer.Bytes(), 0o644)).To(Succeed())
		_, err = docker(ctx, "import", "--change", `ENTRYPOINT ["/audit"]`, plain, "example.test/audit:1")
		Expect(err).NotTo(HaveOccurred())
		DeferCleanup(func(ctx SpecContext) error {
			_, err := docker(ctx, "rmi", "example.test/audit:1")
			return err
		}, NodeTimeout(time.Minute))
		_, err = docker(ctx, "save", "-o", filepath.Join(folder, "audit.tar"), "example.test/audit:1")
		Expect(err).NotTo(HaveOccurred())

		write(fmt.Sprintf(auditEntry, source))
		Expect(lab.fedlab(ctx, "up")).To(endWell())
		says(ctx, "broker", "audit", "audit", "by spiffe://cluster2.com/ns/audit/sa/audit")
		Expect(lab.well(ctx)).To(Succeed())

		By("and go with all that they brought, and nothing else")
		cluster, err := lab.cluster("broker")
		Expect(err).NotTo(HaveOccurred())
		const mine = "kept"
		Expect(cluster.Apply(ctx, map[string]any{"apiVersion": "v1", "kind": "ConfigMap", "metadata": map[string]any{"name": mine, "namespace": "audit"}})).To(Succeed())
		write("")
		Expect(lab.fedlab(ctx, "up")).To(endWell())
		for _, kind := range []string{"Pod", "Secret", "ServiceAccount"} {
			Eventually(func() (string, error) {
				left, err := cluster.Objects(ctx, "v1", kind, "audit", "")
				return fmt.Sprint(left), err
			}).WithContext(ctx).WithTimeout(rollout).WithPolling(poll).ShouldNot(ContainSubstring("audit-"), kind)
		}
		_, there, err := cluster.Object(ctx, "apps/v1", "Deployment", "audit", "audit")
		Expect(err).NotTo(HaveOccurred())
		Expect(there).To(BeFalse())
		_, there, err = cluster.Object(ctx, "spire.spiffe.io/v1alpha1", "ClusterSPIFFEID", "", "audit")
		Expect(err).NotTo(HaveOccurred())
		Expect(there).To(BeFalse(), "the registration")
		_, there, err = cluster.Object(ctx, "v1", "ConfigMap", "audit", mine)
		Expect(err).NotTo(HaveOccurred())
		Expect(there).To(BeTrue(), "what somebody else has put there")
	},
		Entry("an archive", `archive: ./audit.tar`, SpecTimeout(5*time.Minute)),
		Entry("the local engine", `docker: "example.test/audit:1"`, SpecTimeout(5*time.Minute)),
	)

	It("are refused before anything is made, with all that is wrong", func(ctx SpecContext) {
		Expect(os.WriteFile(filepath.Join(folder, "k8s", "all.yaml"), []byte("apiVersion: rbac.authorization.k8s.io/v1\nkind: ClusterRole\nmetadata: {name: all}\n"), 0o644)).To(Succeed())
		file := filepath.Join(folder, "broken", "main.go")
		Expect(os.Mkdir(filepath.Dir(file), 0o755)).To(Succeed())
		Expect(os.WriteFile(file, []byte("package main\n\nfunc main() { nothing() }\n"), 0o644)).To(Succeed())
		write(fmt.Sprintf(auditEntry, "go: ./broken") + "    - {name: lost, cluster: market, chart: ./nowhere, identity: {namespace: lost}}\n")
		refused := lab.fedlab(ctx, "up")
		Expect(refused.Code).To(Equal(1), refused.Stderr)
		for _, words := range []string{
			"workload audit: image example.test/audit:1:", "undefined: nothing", "ClusterRole all belongs to the whole cluster", "workload lost: read chart:",
		} {
			Expect(refused.Stderr).To(ContainSubstring(words))
		}
		Expect(strings.Count(refused.Stderr, "programs/e2e-own")).To(BeNumerically("<", 3), "%s", refused.Stderr)
		write("")
		Expect(lab.well(ctx)).To(Succeed(), "nothing was changed")
	}, SpecTimeout(2*time.Minute))
})
