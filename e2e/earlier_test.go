package e2e

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
)

// earlier is a commit of this repository: the last one before a cluster could have
// several trust domains and a lab programs of one's own.
const earlier = "b05b2625134ac5f25c6ba0994929a14156fde3d7"

// earlierLab is a lab file as that commit took it.
const earlierLab = `
apiVersion: fedlab.dev/v1alpha1
kind: Lab
metadata: {name: e2e-earlier}
spec:
  clusters:
    - {name: market, trustDomain: cluster1.com}
    - {name: broker, trustDomain: cluster2.com}
  federation:
    - {between: [cluster1.com, cluster2.com]}
  workloads:
    - {app: stock-quotes, cluster: market}
    - {app: broker-webapp, cluster: broker, expose: "%s"}
`

// earlierProgram builds the command of that commit. Its images have the keys that they
// had then: what is of the same content is not built again.
func earlierProgram(ctx context.Context) string {
	GinkgoHelper()
	checkout := filepath.Join(scratch(), "earlier")
	DeferCleanup(os.RemoveAll, checkout)
	program := filepath.Join(checkout, "bin", "fedlab")
	for _, argv := range [][]string{
		{"git", "clone", "--quiet", "--no-checkout", root, checkout},
		{"git", "-C", checkout, "checkout", "--quiet", earlier},
		{"go", "build", "-C", checkout, "-trimpath", "-o", program, "./cmd/fedlab"},
	} {
		out, err := exec.CommandContext(ctx, argv[0], argv[1:]...).CombinedOutput()
		Expect(err).NotTo(HaveOccurred(), "%s: %s", strings.Join(argv, " "), out)
	}
	return program
}

var _ = Describe("A lab of an earlier fedlab", Ordered, Label("earlier", "night"), func() {
	var (
		lab    *subject
		before traces
	)
	BeforeAll(func(ctx SpecContext) {
		port, err := freePort(ctx)
		Expect(err).NotTo(HaveOccurred())
		file := filepath.Join(scratch(), "earlier.yaml")
		Expect(os.WriteFile(file, fmt.Appendf(nil, earlierLab, port), 0o644)).To(Succeed())
		lab, err = existing(under.command, file)
		Expect(err).NotTo(HaveOccurred())
		DeferCleanup(lab.close)
		DeferCleanup(func(ctx SpecContext) { Expect(lab.fedlab(ctx, "down")).To(endWell()) }, NodeTimeout(3*time.Minute))
		then := under.command
		then.program = earlierProgram(ctx)
		// It left folders of the Go compiler where temporary files are.
		then.scratch = filepath.Join(scratch(), "then")
		before, err = tracesNow(ctx, lab)
		Expect(err).NotTo(HaveOccurred())
		up, err := then.run(ctx, "up", "--lab", file)
		Expect(err).NotTo(HaveOccurred())
		Expect(up).To(endWell())
	}, NodeTimeout(25*time.Minute))

	It("is taken over by up, and leaves nothing with down", func(ctx SpecContext) {
		began := time.Now()
		Expect(lab.fedlab(ctx, "up")).To(endWell())
		measured("a lab of an earlier fedlab taken over in", began)
		Expect(lab.well(ctx)).To(Succeed())
		Expect(lab.fedlab(ctx, "drift")).To(endWell())
		lab.unchanged(ctx)
		lab.cleared(ctx, before)
	}, NodeTimeout(10*time.Minute))
})
