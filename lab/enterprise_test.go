package lab_test

import (
	"flag"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/fedlab-dev/fedlab/lab"
	"github.com/fedlab-dev/fedlab/lab/plan"
	"github.com/fedlab-dev/fedlab/lab/topology"
)

// Of what takes minutes to try as a whole, a run tries a sample.
var (
	everything = flag.Bool("everything", false, "try all there is instead of a sample")
	seed       = flag.Uint64("seed", 0, "repeat the sample of another run; 0 takes a new one")
)

// sample returns n of all, sorted, so that the seed chooses the same again.
func sample(t *testing.T, all []string, n int) []string {
	t.Helper()
	slices.Sort(all)
	if racing {
		n = (n + 3) / 4
	}
	if *everything || n >= len(all) {
		return all
	}
	s := *seed
	if s == 0 {
		s = rand.Uint64()
	}
	t.Logf("%d of %d are tried: -seed %d repeats it, -everything tries all", n, len(all), s)
	var chosen []string
	for _, i := range rand.New(rand.NewPCG(s, 0)).Perm(len(all))[:n] {
		chosen = append(chosen, all[i])
	}
	return chosen
}

// clouds are what an up of the enterprise preset may find. In onprem stand the
// private authorities, in aws the datastore.
func clouds() map[string]func(*testing.T, *world, *lab.Driver) {
	return situations(enterprise, "onprem", "aws")
}

func TestEnterpriseConverges(t *testing.T) {
	want := fresh(t, enterprise(t), (*world).dump)
	for _, line := range []string{
		"enterprise/aws trusts gcp.company.com at https://10.192.2.1:8443: in sync, polls true",
		"enterprise/aws trusts onprem.company.com at https://10.192.3.1:8443: in sync, polls true",
		"enterprise/gcp trusts onprem.company.com at https://10.192.3.1:8443, by its configuration: in sync, polls true",
		`enterprise/gcp entry spiffe://gcp.company.com/ns/distributed-app/service/data-processing/version/v2, federates with ["aws.company.com" "onprem.company.com"]`,
		"enterprise/onprem Secret spire-web-ca ",
		"enterprise/onprem Secret spire-upstream-authority ",
	} {
		if !slices.Contains(strings.Split(want, "\n"), line) {
			t.Errorf("a lab that is up lacks %q", line)
		}
	}
	if strings.Contains(want, "gcp ClusterFederatedTrustDomain onprem.company.com") {
		t.Error("a static relationship has a resource, too")
	}
	for name, start := range clouds() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				d := w.driver(t)
				start(t, w, d)
				if err := w.up(t, d, enterprise(t)); err != nil {
					t.Fatal(err)
				}
				w.want(t, want)
				s, err := d.Status(t.Context(), enterprise(t))
				if err != nil || !s.Well || len(s.Relationships) != 6 || len(s.Workloads) != 6 {
					t.Errorf("error %v, well %t with %d relationships and %d workloads:\n%s",
						err, s.Well, len(s.Relationships), len(s.Workloads), strings.Join(problems(s), "\n"))
				}
				if _, err := w.downOf(t, d, "enterprise"); err != nil {
					t.Error(err)
				}
				w.want(t, "")
			})
		})
	}
}

// kindOf is what a call does, wherever it does it.
func kindOf(call string, top topology.Topology) string {
	var words []string
	for word := range strings.FieldsFuncSeq(call, func(r rune) bool { return r == ' ' || r == '/' }) {
		isCluster := slices.ContainsFunc(top.Clusters, func(c topology.ClusterSpec) bool { return c.Name == word })
		if !isCluster && word != top.Name {
			words = append(words, word)
		}
	}
	return strings.Join(words, " ")
}

// TestEnterpriseDisturbed has ups of which a call fails for as long as they take,
// fails once, or is the last one. All that the enterprise preset needs and the
// quotes preset does not is tried, and of the rest a sample: that is the same as
// in the tests of the quotes preset.
func TestEnterpriseDisturbed(t *testing.T) {
	want := fresh(t, enterprise(t), (*world).dump)
	known := map[string]bool{}
	for _, tt := range trials(t) {
		known[kindOf(tt.call, quotes(t))] = true
	}
	found := map[string]string{}
	var tried, untried []string
	for _, tt := range trialsOf(t, enterprise, clouds()) {
		found[tt.call] = tt.found
		switch kind := kindOf(tt.call, enterprise(t)); {
		case !known[kind]:
			known[kind] = true
			untried = append(untried, tt.call+"/fails", tt.call+"/killed before", tt.call+"/killed after")
		default:
			tried = append(tried, tt.call+"/fails once", tt.call+"/killed before", tt.call+"/killed after")
		}
	}
	for _, name := range slices.Concat(sample(t, untried, 25), sample(t, tried, 10)) {
		at := strings.LastIndex(name, "/")
		call, what := name[:at], name[at+1:]
		t.Run(found[call]+"/"+name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				d := w.driver(t)
				clouds()[found[call]](t, w, d)
				var failed []string
				d.Observe = func(e plan.Event) {
					if e.State == plan.Failed {
						failed = append(failed, string(e.Step)+": ")
					}
				}
				w.fault = map[string]func(string) verdict{
					"fails": always(call, failLate), "fails once": once(call, fail),
					"killed before": once(call, killBefore), "killed after": once(call, killAfter),
				}[what]
				err := w.up(t, d, enterprise(t))
				if err == nil && what != "fails once" {
					t.Error("it ended well")
				}
				if what == "fails" {
					if said := fmt.Sprint(err); !strings.Contains(said, call) || !slices.ContainsFunc(failed, func(step string) bool { return strings.Contains(said, step) }) {
						t.Errorf("error %v does not name the cause, or none of the steps that failed: %v", err, failed)
					}
				}
				if err := w.up(t, d, enterprise(t)); err != nil {
					t.Fatal(err)
				}
				w.want(t, want)
			})
		})
	}
}

// TestUpWithAFrontendBesideABridge: the frontend's trust domain gets raw records
// as the bridge's, and is refused aggregates.
func TestUpWithAFrontendBesideABridge(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		top := company(running("name: onprem-frontend, app: frontend, cluster: onprem")).topology(t)
		if err := w.up(t, w.driver(t), top); err != nil {
			t.Fatal(err)
		}
		onprem := w.nodes[nodeName{"company", "onprem"}]
		refused := map[string]string{}
		for _, v := range (party{onprem, onprem.demo("distributed-app", "frontend")}).told() {
			if v.State == "refused" {
				refused[v.Name] = v.Problem.Detail
			}
		}
		if want := map[string]string{"aggregates of data-service": "onprem.company.com gets raw data"}; !maps.Equal(refused, want) {
			t.Errorf("refused %v, want %v", refused, want)
		}
	})
}
