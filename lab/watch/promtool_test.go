package watch_test

import (
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/fedlab-dev/fedlab/lab/watch"
)

// series are those of a federation that is well, by the notation of promtool, for ten minutes
// of one sample each 15 s.
func series() map[string]string {
	const pair = `truster="a.test",trusted="b.test"`
	return map[string]string{
		`fedlab_look_timestamp_seconds`:                                                            `0+15x40`,
		`fedlab_bundle_state{` + pair + `,state="in sync"}`:                                        `1x40`,
		`fedlab_poll_seconds{` + pair + `}`:                                                        `15x40`,
		`fedlab_next_poll_seconds{` + pair + `}`:                                                   `3x40`,
		`fedlab_fetches_total{` + pair + `,result="done"}`:                                         `0+1x40`,
		`fedlab_fetches_total{` + pair + `,result="failed"}`:                                       `0x40`,
		`fedlab_authority_expiry_timestamp_seconds{` + pair + `,authority="old"}`:                  `300x40`,
		`fedlab_authority_expiry_timestamp_seconds{` + pair + `,authority="new"}`:                  `2400x40`,
		`fedlab_bundle_notice_seconds{` + pair + `}`:                                               `1200x40`,
		`fedlab_endpoint_up{trusted="b.test"}`:                                                     `1x40`,
		`fedlab_endpoint_latency_seconds_bucket{trusted="b.test",le="0.25"}`:                       `0+5x40`,
		`fedlab_endpoint_latency_seconds_bucket{trusted="b.test",le="5"}`:                          `0+5x40`,
		`fedlab_endpoint_latency_seconds_bucket{trusted="b.test",le="+Inf"}`:                       `0+5x40`,
		`fedlab_svid_expiry_timestamp_seconds{what="agent",name="a",trust_domain="b"}`:             `2400x40`,
		`fedlab_svid_notice_seconds{what="agent",name="a",trust_domain="b"}`:                       `1200x40`,
		`fedlab_calls_total{caller="a.test",server="b.test",name="web to api",outcome="answered"}`: `0+5x40`,
		`fedlab_calls_total{caller="a.test",server="b.test",name="web to api",outcome="failed"}`:   `0x40`,
		`fedlab_entry_failures{trusted="b.test"}`:                                                  `0x40`,
	}
}

// spoilt is one change of those, from the fifth minute on.
type spoilt struct {
	metric, values string
	alert          string
	// polls is how many polls after it has begun the alert fires at the latest.
	polls int
}

// TestRulesByPrometheus has promtool run the rules: each fault fires its alert, within its
// time, and no other; a federation that is well fires none.
func TestRulesByPrometheus(t *testing.T) {
	promtool := os.Getenv("FEDLAB_PROMTOOL")
	if promtool == "" {
		t.Skip("FEDLAB_PROMTOOL names no promtool")
	}
	const begin, poll = 5 * time.Minute, 15 * time.Second
	type sample struct {
		Labels string  `json:"labels"`
		Value  float64 `json:"value"`
	}
	type question struct {
		Expr    string   `json:"expr"`
		At      string   `json:"eval_time"`
		Samples []sample `json:"exp_samples"`
	}
	type values struct {
		Series string `json:"series"`
		Values string `json:"values"`
	}
	type test struct {
		Name      string     `json:"name"`
		Interval  string     `json:"interval"`
		Series    []values   `json:"input_series"`
		Questions []question `json:"promql_expr_test"`
	}
	asks := func(at time.Duration, alerts ...string) question {
		q := question{Expr: `count by (alertname) (ALERTS{alertstate="firing"})`, At: at.String()}
		for _, alert := range alerts {
			q.Samples = append(q.Samples, sample{fmt.Sprintf("{alertname=%q}", alert), 1})
		}
		return q
	}
	of := func(all map[string]string) (list []values) {
		for _, name := range slices.Sorted(maps.Keys(all)) {
			list = append(list, values{name, all[name]})
		}
		return list
	}
	tests := []test{{"well", poll.String(), of(series()), []question{asks(begin), asks(2 * begin)}}}
	fired := map[string]bool{}
	for _, s := range []spoilt{
		{`fedlab_authority_expiry_timestamp_seconds`, `1440x40`, "SPIREFederationBundleExpiry", 0},
		{`fedlab_endpoint_up`, `1x19 0x20`, "SPIREFederationEndpointDown", 2},
		{`result="failed"`, `0x19 1x20`, "SPIREFederationTrustBundleUpdateFailed", 1},
		{`outcome="failed"`, `0x19 5+5x20`, "SPIRECrossDomainAuthenticationFailures", 3},
		{`le="0.25"`, `0+5x19 95x20`, "SPIREFederationLatencyHigh", 3},
		{`fedlab_bundle_state`, ``, "SPIREFederationBundleNotInSync", 3},
		{`fedlab_next_poll_seconds`, `3x19 -20x20`, "SPIREFederationNoFetch", 1},
		{`fedlab_entry_failures`, `0x19 2x20`, "SPIREFederationEntryFailures", 3},
		{`fedlab_svid_expiry`, `1440x40`, "SPIREFederationSVIDExpiry", 0},
		{`fedlab_look_timestamp_seconds`, `0+15x19 _x20`, "SPIREFederationWatchSilent", 4},
	} {
		fired[s.alert] = true
		all, changed := series(), false
		for name := range all {
			if strings.Contains(name, s.metric) {
				all[name], changed = s.values, true
			}
		}
		if s.metric == "fedlab_bundle_state" {
			// Another state is another series.
			for name := range all {
				if strings.Contains(name, s.metric) {
					all[name] = `1x19 stale`
					all[strings.Replace(name, "in sync", "behind", 1)] = `_x19 1x20`
					break
				}
			}
		}
		if !changed {
			t.Errorf("no series is of %s", s.metric)
		}
		latest := begin + time.Duration(s.polls)*poll
		one := test{s.alert, poll.String(), of(all), []question{asks(latest, s.alert)}}
		if s.polls > 0 {
			one.Questions = append(one.Questions, asks(begin-poll))
		}
		tests = append(tests, one)
	}
	rules := watch.Rules(watch.Intervals{Poll: poll, Scrape: poll})
	for _, r := range rules.Groups[0].Rules {
		if !fired[r.Alert] {
			t.Errorf("no test has the alert %s", r.Alert)
		}
	}
	dir := t.TempDir()
	for name, what := range map[string]any{
		"rules.yaml": rules, // JSON is YAML
		"test.yaml":  map[string]any{"rule_files": []string{"rules.yaml"}, "evaluation_interval": poll.String(), "tests": tests},
	} {
		data, err := json.Marshal(what)
		if err == nil {
			err = os.WriteFile(filepath.Join(dir, name), data, 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	for _, args := range [][]string{{"check", "rules", "rules.yaml"}, {"test", "rules", "test.yaml"}} {
		command := exec.CommandContext(t.Context(), promtool, args...)
		command.Dir = dir
		if said, err := command.CombinedOutput(); err != nil {
			t.Errorf("promtool %s: %v\n%s", strings.Join(args, " "), err, said)
		}
	}
}
