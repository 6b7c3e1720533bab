package watch

import (
	"fmt"
	"time"
)

// Intervals are what the windows of rules are made of.
type Intervals struct {
	// Poll is the longest one of the lab.
	Poll time.Duration
	// Scrape is how often Prometheus asks.
	Scrape time.Duration
}

// window is long enough for four polls, and for as many samples.
func (i Intervals) window() string { return prometheusDuration(4 * max(i.Poll, i.Scrape)) }

// prometheusDuration is a duration as Prometheus writes it, in whole seconds.
func prometheusDuration(d time.Duration) string {
	return fmt.Sprintf("%ds", int(d.Round(time.Second).Seconds()))
}

// RuleGroups is a rule file of Prometheus, and the spec of a PrometheusRule.
type RuleGroups struct {
	Groups []RuleGroup `json:"groups" yaml:"groups"`
}

// RuleGroup is a group of rules.
type RuleGroup struct {
	Name  string `json:"name" yaml:"name"`
	Rules []Rule `json:"rules" yaml:"rules"`
}

// Rule is an alert of Prometheus.
type Rule struct {
	Alert       string            `json:"alert" yaml:"alert"`
	Expr        string            `json:"expr" yaml:"expr"`
	For         string            `json:"for,omitempty" yaml:"for,omitempty"`
	Labels      map[string]string `json:"labels" yaml:"labels"`
	Annotations map[string]string `json:"annotations" yaml:"annotations"`
}

// Rules returns all alerts as rules of Prometheus.
func Rules(i Intervals) RuleGroups {
	group := RuleGroup{Name: "spire.federation"}
	for _, a := range alerts {
		r := Rule{
			Alert: a.name, Expr: a.expr(i), Labels: map[string]string{"severity": a.severity},
			Annotations: map[string]string{"summary": a.summary, "description": "{{ $labels.truster }} {{ $labels.trusted }} {{ $labels.name }}"},
		}
		if a.polls > 0 {
			r.For = prometheusDuration(time.Duration(a.polls) * max(i.Poll, i.Scrape))
		}
		group.Rules = append(group.Rules, r)
	}
	return RuleGroups{[]RuleGroup{group}}
}

// PrometheusRule returns the rules as an object of the Prometheus operator.
func (g RuleGroups) PrometheusRule(name string) map[string]any {
	return map[string]any{
		"apiVersion": "monitoring.coreos.com/v1", "kind": "PrometheusRule",
		"metadata": map[string]any{"name": name}, "spec": g,
	}
}
