package watch_test

import (
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/fedlab-dev/fedlab/lab/watch"
)

// named are the metrics that a query names, without what Prometheus makes of a histogram.
func named(query string) (all []string) {
	for _, name := range regexp.MustCompile(`fedlab_\w+`).FindAllString(query, -1) {
		all = append(all, strings.TrimSuffix(name, "_bucket"))
	}
	return all
}

// asked holds a query against the metrics that there are.
func asked(t *testing.T, of, query string) {
	t.Helper()
	names := named(query)
	if len(names) == 0 {
		t.Errorf("%s asks for no metric: %s", of, query)
	}
	for _, name := range names {
		if !slices.ContainsFunc(watch.Metrics(), func(m watch.Metric) bool { return m.Name == name }) {
			t.Errorf("%s asks for %s, which there is not: %s", of, name, query)
		}
	}
}

func TestRules(t *testing.T) {
	i := watch.Intervals{Poll: 75 * time.Second, Scrape: 15 * time.Second}
	fors := map[string]string{}
	for _, r := range watch.Rules(i).Groups[0].Rules {
		asked(t, r.Alert, r.Expr)
		fors[r.Alert] = r.For
		if strings.Contains(r.Expr, "[") && !strings.Contains(r.Expr, "[300s]") {
			t.Errorf("%s: its window is not four polls: %s", r.Alert, r.Expr)
		}
	}
	if fors["SPIREFederationBundleNotInSync"] != "150s" || fors["SPIREFederationEndpointDown"] != "75s" || fors["SPIREFederationNoFetch"] != "" {
		t.Errorf("got %v", fors)
	}
	// Where Prometheus asks more seldom than servers poll, its interval counts.
	i.Scrape = 2 * time.Minute
	if r := watch.Rules(i).Groups[0].Rules[2]; !strings.Contains(r.Expr, "[480s]") {
		t.Errorf("got %s", r.Expr)
	}
}

// TestSamples: what is shown of a look has as many values as labels, and what it does not
// know is not shown.
func TestSamples(t *testing.T) {
	shown := func(l watch.Look) map[string]int {
		counts := map[string]int{}
		for _, s := range l.Samples(0) {
			counts[s.Metric.Name]++
			if len(s.Labels) != len(s.Metric.Labels) {
				t.Errorf("%s has the labels %v, want values for %v", s.Metric.Name, s.Labels, s.Metric.Labels)
			}
		}
		return counts
	}
	counts := shown(well())
	for name, want := range map[string]int{
		"fedlab_bundle_age_seconds": 1, "fedlab_fetches_total": 2, "fedlab_authority_expiry_timestamp_seconds": 2,
		"fedlab_svid_expiry_timestamp_seconds": 3, "fedlab_endpoint_up": 1, "fedlab_next_poll_seconds": 1,
	} {
		if counts[name] != want {
			t.Errorf("%d of %s, want %d", counts[name], name, want)
		}
	}
	unknown := well()
	unknown.Pairs[0] = watch.Pair{Truster: "a.test", Trusted: "b.test", State: "unknown"}
	counts = shown(unknown)
	for _, name := range []string{"fedlab_bundle_age_seconds", "fedlab_fetches_total", "fedlab_next_poll_seconds", "fedlab_bundle_notice_seconds"} {
		if counts[name] != 0 {
			t.Errorf("%s is shown of what nobody knows", name)
		}
	}
}

func TestDashboard(t *testing.T) {
	queries := watch.Queries()
	for title, query := range queries {
		asked(t, title, query)
	}
	if all, ok := watch.Dashboard()["panels"].([]map[string]any); !ok || len(all) != len(queries) || len(all) < 4 {
		t.Errorf("the dashboard has not one panel for each of %d queries", len(queries))
	}
}
