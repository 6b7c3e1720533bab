package watch

// panel is one of the dashboard.
type panel struct{ title, kind, query, legend, unit string }

// panels are those of the dashboard, two in a row. The first four are those of an article,
// which docs/from-an-article.md compares.
var panels = []panel{
	{"Active relationships", "stat", `count(fedlab_bundle_state{state="in sync"})`, "in sync", "short"},
	{"Calls between trust domains", "timeseries", `sum by (caller, server, outcome) (rate(fedlab_calls_total[$__rate_interval]))`, "{{caller}} to {{server}}: {{outcome}}", "reqps"},
	{"Held bundles", "table", `fedlab_bundle_state`, "{{truster}} of {{trusted}}: {{state}}", "short"},
	{"Failed fetches by cause", "timeseries", `sum by (truster, trusted, cause) (increase(fedlab_fetch_errors_total[$__rate_interval]))`, "{{truster}} of {{trusted}}: {{cause}}", "short"},
	{"Until the newest authority ends", "timeseries", `max by (truster, trusted) (fedlab_authority_expiry_timestamp_seconds) - time()`, "{{truster}} of {{trusted}}", "s"},
	{"Until the next poll", "timeseries", `fedlab_next_poll_seconds`, "{{truster}} of {{trusted}}", "s"},
	{"Way of an authority to those who trust it (p99)", "timeseries", `histogram_quantile(0.99, sum by (truster, trusted, le) (rate(fedlab_propagation_seconds_bucket[1h])))`, "{{truster}} of {{trusted}}", "s"},
	{"Answer of a bundle endpoint (p99)", "timeseries", `histogram_quantile(0.99, sum by (trusted, le) (rate(fedlab_endpoint_latency_seconds_bucket[$__rate_interval])))`, "{{trusted}}", "s"},
}

// Dashboard is a dashboard of Grafana, as its import takes it. Grafana asks which of its data
// sources is the Prometheus.
func Dashboard() map[string]any {
	const width, height = 12, 8
	source := map[string]any{"type": "prometheus", "uid": "${source}"}
	var all []map[string]any
	for i, p := range panels {
		all = append(all, map[string]any{
			"id": i + 1, "title": p.title, "type": p.kind, "datasource": source,
			"gridPos":     map[string]int{"x": i % 2 * width, "y": i / 2 * height, "w": width, "h": height},
			"fieldConfig": map[string]any{"defaults": map[string]any{"unit": p.unit}},
			"targets":     []map[string]any{{"refId": "A", "datasource": source, "expr": p.query, "legendFormat": p.legend, "instant": p.kind == "table"}},
		})
	}
	return map[string]any{
		"title": "SPIRE federation", "uid": "spire-federation", "schemaVersion": 39, "refresh": "10s",
		"time":       map[string]string{"from": "now-30m", "to": "now"},
		"templating": map[string]any{"list": []map[string]any{{"name": "source", "label": "Prometheus", "type": "datasource", "query": "prometheus"}}},
		"panels":     all,
	}
}

// Queries returns what the panels ask, by their titles.
func Queries() map[string]string {
	all := map[string]string{}
	for _, p := range panels {
		all[p.title] = p.query
	}
	return all
}
