package e2e

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"

	"github.com/fedlab-dev/fedlab/lab/topology"
)

var _ = Describe("Evidence", Label("evidence"), func() {
	It("holds logs, events, bundles and entries, and no secret", func(ctx SpecContext) {
		p := under.pair()
		cluster, err := under.cluster(p.server.Cluster().Name)
		Expect(err).NotTo(HaveOccurred())
		key, fragments, err := newSecret()
		Expect(err).NotTo(HaveOccurred())

		By("a pod has written a private key and a token to its log, and has them in its arguments")
		const name = "e2e-careless"
		careless, err := under.careless(ctx, p, name, key)
		Expect(err).NotTo(HaveOccurred())
		DeferCleanup(func(ctx SpecContext) error { return cluster.Delete(ctx, careless) }, NodeTimeout(time.Minute))
		Expect(cluster.Apply(ctx, careless)).To(Succeed())
		Eventually(func(ctx context.Context) (string, error) {
			log, err := cluster.Logs(ctx, p.server.Namespace, name, name, false, logLines)
			return string(log), err
		}).WithContext(ctx).WithTimeout(machine).WithPolling(poll).Should(ContainSubstring(fragments[0]))

		By("what is collected shows the pod")
		dir := filepath.Join(under.scratch, "evidence")
		gathered := under.fedlab(ctx, "evidence", dir)
		Expect(gathered).To(And(endWell(), HaveField("Stdout", dir+"\n")))
		files := map[string][]byte{}
		Expect(filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() {
				return err
			}
			data, err := os.ReadFile(path)
			files[strings.TrimPrefix(path, dir+string(filepath.Separator))] = data
			return err
		})).To(Succeed())
		in := "clusters/" + p.server.Cluster().Name
		Expect(files).NotTo(HaveKey("problems.txt"), "%s", files["problems.txt"])
		Expect(string(files[in+"/logs/"+p.server.Namespace+"/"+name+"/"+name+".log"])).To(ContainSubstring("[removed: "))
		Expect(string(files[in+"/Pod.json"])).To(And(ContainSubstring(name), ContainSubstring("[removed: ")))
		Expect(string(files[in+"/Event.json"])).To(ContainSubstring(name))
		Expect(string(files[in+"/ClusterSPIFFEID.json"])).To(ContainSubstring(p.server.App.IDTemplate))
		Expect(files).To(HaveKey(in + "/node.log"))
		Expect(files).To(HaveKey(in + "/logs/spire-system/spire-server-0/spire-server.log"))
		Expect(string(files["servers/"+p.server.Domain().String()+"/entries.json"])).To(ContainSubstring(p.server.ID.String()))
		Expect(string(files["servers/"+p.server.Domain().String()+"/bundle.json"])).To(ContainSubstring(`"x5c"`))
		Expect(string(files["status.json"])).To(ContainSubstring(`"well": true`))
		Expect(string(files["index.html"])).To(And(ContainSubstring("All of the lab is well."), ContainSubstring("entries.json"), ContainSubstring("&#34;components&#34;")))

		By("no file holds any part of the secrets, and no other private key")
		for name, text := range files {
			for _, fragment := range fragments {
				Expect(bytes.Contains(text, []byte(fragment))).To(BeFalse(), "%s holds %q", name, fragment)
			}
			Expect(string(text)).NotTo(MatchRegexp(`-----BEGIN [A-Z ]*PRIVATE KEY-----|LS0tLS1CRUdJTi[A-Za-z0-9+/]*UFJJVkFURS|eyJ[\w-]+\.eyJ`), "%s", name)
		}
	}, SpecTimeout(3*time.Minute))
})

var _ = Describe("Evidence of several labs", Label("evidence"), func() {
	It("is in a folder of its own for each lab", func() {
		one, other := &subject{graph: &topology.Graph{Name: "one"}}, &subject{graph: &topology.Graph{Name: "other"}}
		Expect(one.evidenceOf("a spec: that fails")).To(HaveSuffix(filepath.Join("one", "a-spec-that-fails")))
		Expect(other.evidenceOf("a spec: that fails")).To(HaveSuffix(filepath.Join("other", "a-spec-that-fails")))
	})
})

// newSecret makes a private key and a token as somebody may leak them, in one
// text, and fragments of each form that must not be seen anywhere.
func newSecret() (text string, fragments []string, err error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return "", nil, err
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return "", nil, err
	}
	block := string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}))
	bare := base64.StdEncoding.EncodeToString(der)
	within := base64.StdEncoding.EncodeToString([]byte(block))
	signature := rand.Text() + rand.Text()
	token := base64.RawURLEncoding.EncodeToString([]byte(`{"alg":"ES256","kid":"e2e"}`)) + "." +
		base64.RawURLEncoding.EncodeToString([]byte(`{"sub":"spiffe://cluster2.com/client"}`)) + "." + signature
	password := rand.Text()
	text = block + "; " + bare + "; client-key-data: " + within + "; " + token + "; password=" + password
	return text, []string{bare[60:100], within[80:120], signature[:20], password}, nil
}

// careless returns a pod of the quotes server's image that is called wrongly: it
// says so in its log, with what it was given, and ends.
func (s *subject) careless(ctx context.Context, p pair, name, argument string) (map[string]any, error) {
	cluster, err := s.cluster(p.server.Cluster().Name)
	if err != nil {
		return nil, err
	}
	pods, err := cluster.Pods(ctx, p.server.Namespace, "app.kubernetes.io/name="+p.server.App.Name)
	if err != nil {
		return nil, err
	}
	if len(pods) == 0 {
		return nil, fmt.Errorf("%s has no pods", p.server.Name)
	}
	return map[string]any{
		"apiVersion": "v1", "kind": "Pod",
		"metadata": map[string]any{"name": name, "namespace": p.server.Namespace},
		"spec": map[string]any{
			"restartPolicy": "Never",
			"containers": []any{map[string]any{
				"name": name, "image": pods[0].Containers[0].Image, "imagePullPolicy": "Never",
				"args": []any{"-allow-clients", argument},
			}},
		},
	}, nil
}
