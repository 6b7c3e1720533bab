package e2e

import (
	"bufio"
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"

	"github.com/fedlab-dev/fedlab/lab/federation"
	"github.com/fedlab-dev/fedlab/lab/topology"
)

var _ = Describe("Quotes", Label("quotes"), func() {
	It("flow between two workloads of which each knows who the other is", func(ctx SpecContext) {
		p := under.pair()
		server := p.server.ID
		client := p.broker.ID

		Eventually(flowing(p.broker)).WithContext(ctx).WithTimeout(machine).WithPolling(poll).Should(Succeed())
		// They flow over an open connection also while a bundle, put back by the
		// spec before, is on its way to the workload.
		Eventually(holds(p.broker, server.TrustDomain().Name())).WithContext(ctx).
			WithTimeout(federation.RegistrationBound() + machine).WithPolling(poll).Should(Succeed())
		v, err := ask(ctx, p.broker)
		Expect(err).NotTo(HaveOccurred())
		Expect(v.Peer.ID).To(Equal(server.String()))
		Expect(v.Self.ID).To(Equal(client.String()))
		Expect(v.Self.Bundles).To(ConsistOf(server.TrustDomain().Name(), client.TrustDomain().Name()))

		By("verified with a bundle that the other's own server has")
		bundle, err := under.site(ctx, p.server.Domain().Name).API.Bundle(ctx)
		Expect(err).NotTo(HaveOccurred())
		var authorities []string
		for _, a := range bundle.X509Authorities() {
			authorities = append(authorities, hex.EncodeToString(a.SubjectKeyId))
		}
		Expect(v.Peer.VerifiedBy.TrustDomain).To(Equal(server.TrustDomain().Name()))
		Expect(authorities).To(ContainElement(v.Peer.VerifiedBy.SubjectKeyID))

		By("and both logs say so")
		Expect(under.logged(ctx, p.broker, "server authenticated")).To(ContainElement(And(
			HaveKeyWithValue("spiffe_id", server.String()), HaveKeyWithValue("bundle", server.TrustDomain().Name()))))
		Expect(under.logged(ctx, p.server, "client authenticated")).To(ContainElement(And(
			HaveKeyWithValue("spiffe_id", client.String()), HaveKeyWithValue("bundle", client.TrustDomain().Name()))))

		By("and doctor finds nothing")
		under.silent(ctx)
	}, SpecTimeout(2*time.Minute))

	It("change from one second to the next", func(ctx SpecContext) {
		p := under.pair()
		first, err := ask(ctx, p.broker)
		Expect(err).NotTo(HaveOccurred())
		Expect(first.Quotes).NotTo(BeEmpty())
		Eventually(func() ([]int64, error) {
			v, err := ask(ctx, p.broker)
			return v.prices(), err
		}).WithContext(ctx).WithTimeout(10 * time.Second).WithPolling(poll).ShouldNot(Equal(first.prices()))
	}, SpecTimeout(time.Minute))
})

// logged returns the lines with a message that a workload's pods have logged,
// each as its fields.
func (s *subject) logged(ctx context.Context, w *topology.Workload, message string) (found []map[string]string, err error) {
	cluster, err := s.cluster(w.Cluster().Name)
	if err != nil {
		return nil, err
	}
	pods, err := cluster.Pods(ctx, w.Namespace, "app.kubernetes.io/name="+w.App.Name)
	if err != nil {
		return nil, err
	}
	if len(pods) == 0 {
		return nil, fmt.Errorf("%s has no pods", w.Name)
	}
	for _, pod := range pods {
		log, err := cluster.Logs(ctx, w.Namespace, pod.Name, pod.Containers[0].Name, false, logLines)
		if err != nil {
			return nil, err
		}
		for lines := bufio.NewScanner(bytes.NewReader(log)); lines.Scan(); {
			fields, err := logfmt(lines.Text())
			if err != nil {
				return nil, fmt.Errorf("read log of %s: %w", pod.Name, err)
			}
			if fields["msg"] == message {
				found = append(found, fields)
			}
		}
	}
	return found, nil
}

// logfmt reads a line as slog.TextHandler writes it.
func logfmt(line string) (map[string]string, error) {
	fields := map[string]string{}
	for rest := line; rest != ""; {
		key, value, ok := strings.Cut(rest, "=")
		if !ok {
			return nil, errors.New("no key=value in: " + line)
		}
		if strings.HasPrefix(value, `"`) {
			end := 1
			for ; end < len(value) && value[end] != '"'; end++ {
				if value[end] == '\\' {
					end++
				}
			}
			end = min(end+1, len(value))
			fields[key], rest = strings.Trim(value[:end], `"`), strings.TrimPrefix(value[end:], " ")
			continue
		}
		fields[key], rest, _ = strings.Cut(value, " ")
	}
	return fields, nil
}

// names returns nil when a broker's quotes name a company.
func names(broker *topology.Workload, company string) func(context.Context) error {
	return func(ctx context.Context) error {
		v, err := ask(ctx, broker)
		if err != nil {
			return err
		}
		var all []string
		for _, q := range v.Quotes {
			all = append(all, q.Company)
		}
		if !slices.Contains(all, company) {
			return fmt.Errorf("the companies are %q", all)
		}
		return nil
	}
}
