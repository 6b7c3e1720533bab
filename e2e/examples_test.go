package e2e

import (
	"os"
	"path/filepath"
	"strings"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"

	"github.com/fedlab-dev/fedlab/lab/pki"
)

// Each of the article's four examples, as its reader brings it up. What an endpoint of each
// kind does is the matter of the specs of "Bundle endpoints".
var _ = DescribeTable("The lab file of an article's example comes up", Label("endpoints", "night"), func(ctx SpecContext, example string) {
	folder := filepath.Join(scratch(), "example-"+example)
	Expect(os.MkdirAll(folder, 0o755)).To(Succeed())
	text, err := os.ReadFile(filepath.Join(root, "docs", "examples", "openshift-"+example+".yaml"))
	Expect(err).NotTo(HaveOccurred())
	name := "{name: openshift-" + example + "}"
	Expect(string(text)).To(ContainSubstring(name))
	// The files that docs/from-an-article.md says how to make; one example reads them.
	ca, err := pki.NewRoot("internal CA", 24*time.Hour)
	Expect(err).NotTo(HaveOccurred())
	certificate, key, err := ca.ServingCert([]string{"federation.apps.cluster1.example.com"}, nil, 24*time.Hour)
	Expect(err).NotTo(HaveOccurred())
	for file, data := range map[string][]byte{
		"lab.yaml": []byte(strings.Replace(string(text), name, "{name: e2e-"+example+"}", 1)),
		"tls.crt":  certificate, "tls.key": key, "ca.crt": ca.CertificatePEM(),
	} {
		Expect(os.WriteFile(filepath.Join(folder, file), data, 0o600)).To(Succeed())
	}
	l := raised(ctx, filepath.Join(folder, "lab.yaml"), "the example "+example)
	Expect(l.well(ctx)).To(Succeed())
	Expect(l.fedlab(ctx, "drift")).To(endWell())
	l.unchanged(ctx)
},
	Entry("1, with certificates by ACME", "acme", SpecTimeout(15*time.Minute)),
	Entry("2, with a certificate of one's own", "certificate", SpecTimeout(15*time.Minute)),
	Entry("3, with https_spiffe", "spiffe", SpecTimeout(15*time.Minute)),
	Entry("4, with several profiles", "mixed", SpecTimeout(15*time.Minute)),
)
