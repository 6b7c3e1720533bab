package e2e

import (
	"bytes"
	"errors"
	"io"
	"os"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"

	"go.yaml.in/yaml/v3"
)

// What docs/guides/enterprise.md says of the article's ClusterSPIFFEIDs, each
// refusal in the API server's own words.
var _ = Describe("The article's ClusterSPIFFEIDs", Label("registration"), func() {
	const (
		ttl        = ".spec.ttl: expected string"
		matchNames = ".spec.namespaceSelector.matchNames: field not declared in schema"
		dash       = "invalid SPIFFEID template: template: spiffeIDTemplate:1: bad character U+002D '-'"
		replace    = `invalid dnsNameTemplate value: template: dnsNameTemplate:1: function "replace" not defined`
		selector   = "workloadSelectorTemplate:1: bad character U+002D '-'"
	)
	asWritten := func() map[string]map[string]any {
		GinkgoHelper()
		text, err := os.ReadFile("testdata/clusterspiffeids-as-written.yaml")
		Expect(err).NotTo(HaveOccurred())
		all := map[string]map[string]any{}
		for documents := yaml.NewDecoder(bytes.NewReader(text)); ; {
			var document map[string]any
			if err := documents.Decode(&document); errors.Is(err, io.EOF) {
				return all
			} else if err != nil {
				Expect(err).NotTo(HaveOccurred())
			}
			meta, err := metadataOf(document)
			Expect(err).NotTo(HaveOccurred())
			all[meta.Name] = document
			// It is of the whole cluster: the client refuses a namespace before
			// anybody has seen it.
			delete(document["metadata"].(map[string]any), "namespace")
		}
	}
	DescribeTable("are refused as they stand, each for what is not real in it",
		func(ctx SpecContext, name string, refusals ...string) {
			document := asWritten()[name]
			Expect(document).NotTo(BeNil())
			spec := document["spec"].(map[string]any)
			cluster, err := under.cluster(under.graph.Clusters[0].Name)
			Expect(err).NotTo(HaveOccurred())
			DeferCleanup(func(ctx SpecContext) { Expect(cluster.Delete(ctx, document)).To(Succeed()) }, NodeTimeout(time.Minute))
			for _, refusal := range refusals {
				Expect(cluster.Apply(ctx, document)).To(MatchError(ContainSubstring(refusal)))
				switch refusal { // as the guide says to write it
				case ttl:
					spec["ttl"] = "1h"
				case matchNames:
					spec["namespaceSelector"] = map[string]any{"matchLabels": map[string]any{"kubernetes.io/metadata.name": "production"}}
				case dash:
					spec["spiffeIDTemplate"] = `spiffe://{{ .TrustDomain }}/gateway/{{ index .PodMeta.Labels "gateway-type" }}/{{ .PodMeta.Labels.region }}`
				case replace:
					spec["dnsNameTemplates"] = []any{"api.{{ .TrustDomain }}"}
				case selector:
					spec["workloadSelectorTemplates"] = []any{"k8s:ns:{{ .PodMeta.Namespace }}"}
				}
			}
			By("and taken once those are put right")
			Expect(cluster.Apply(ctx, document)).To(Succeed())
		},
		Entry("the frontend's", "aws-frontend-service", ttl, matchNames, SpecTimeout(time.Minute)),
		Entry("the data service's", "gcp-data-service", ttl, SpecTimeout(time.Minute)),
		Entry("the legacy bridge's", "onprem-legacy-bridge", ttl, SpecTimeout(time.Minute)),
		Entry("the gateway's", "cross-domain-gateway", ttl, dash, replace, selector, SpecTimeout(time.Minute)),
	)
})
