package e2e

import (
	"os/exec"
	"path/filepath"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
)

var _ = Describe("The programs that make dist builds", Label("dist", "night"), func() {
	It("are there for all platforms, and the same in two builds", func(ctx SpecContext) {
		once, again := filepath.Join(scratch(), "dist"), filepath.Join(scratch(), "dist-again")
		for _, folder := range []string{once, again} {
			build := exec.CommandContext(ctx, "go", "run", "./e2e/dist", "-o", folder)
			build.Dir, build.Stdout, build.Stderr = root, GinkgoWriter, GinkgoWriter
			Expect(build.Run()).To(Succeed())
		}
		for _, folder := range []string{once, again} {
			// What one build has written down is what the other has built.
			sums := exec.CommandContext(ctx, "sha256sum", "--check", "--strict", filepath.Join(once, "SHA256SUMS"))
			sums.Dir, sums.Stdout, sums.Stderr = folder, GinkgoWriter, GinkgoWriter
			Expect(sums.Run()).To(Succeed())
		}
		programs, err := filepath.Glob(filepath.Join(once, "fedlab-*-*"))
		Expect(err).NotTo(HaveOccurred())
		Expect(programs).To(HaveLen(4))
	}, SpecTimeout(40*time.Minute))
})
