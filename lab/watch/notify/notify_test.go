package notify_test

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/fedlab-dev/fedlab/lab/watch"
	"github.com/fedlab-dev/fedlab/lab/watch/notify"
)

var (
	start   = time.Date(2026, 12, 1, 12, 0, 0, 0, time.UTC)
	finding = watch.Finding{Alert: "SPIREFederationNoFetch", Severity: watch.Critical, Truster: "a.test", Trusted: "b.test", Text: "no fetch", Since: start, Firing: true}
)

func TestRun(t *testing.T) {
	dir := t.TempDir()
	script := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte("#!/bin/sh\n"+text), 0o700); err != nil {
			t.Fatal(err)
		}
		return path
	}
	change := watch.Change{At: start, Status: watch.Firing, Finding: finding}
	if err := notify.Run(t.Context(), script("takes", "cat > "+dir+"/got"), change); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(filepath.Join(dir, "got"))
	if err != nil {
		t.Fatal(err)
	}
	var got watch.Change
	if err := json.Unmarshal(text, &got); err != nil || got != change {
		t.Errorf("it was given %s, error %v", text, err)
	}
	err = notify.Run(t.Context(), script("fails", "echo no pager; exit 3"), change)
	if err == nil || !strings.HasSuffix(err.Error(), "/fails: exit status 3: no pager") {
		t.Errorf("error %v", err)
	}
	if err := notify.Run(t.Context(), filepath.Join(dir, "missing"), change); err == nil {
		t.Error("a program that is not there was run")
	}
}

// TestAlertmanager: what fires is sent at once and each minute again, what is over once, and
// what was refused with the next call.
func TestAlertmanager(t *testing.T) {
	type alert struct {
		Labels           map[string]string
		Annotations      map[string]string
		StartsAt, EndsAt time.Time
	}
	var got [][]alert
	status := http.StatusOK
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var all []alert
		if err := json.NewDecoder(r.Body).Decode(&all); err != nil || r.Method != http.MethodPost || r.URL.Path != "/under/api/v2/alerts" || r.Header.Get("Content-Type") != "application/json" {
			t.Errorf("%s %s: %v", r.Method, r.URL, err)
		}
		if got = append(got, all); status != http.StatusOK {
			http.Error(w, "bad label", status)
		}
	}))
	t.Cleanup(server.Close)
	at, err := url.Parse(server.URL + "/under")
	if err != nil {
		t.Fatal(err)
	}
	a := notify.Alertmanager{URL: at, Lab: "quotes"}
	tell := func(seconds int, findings []watch.Finding, statuses ...string) error {
		var changes []watch.Change
		for _, s := range statuses {
			changes = append(changes, watch.Change{Status: s, Finding: finding})
		}
		return a.Tell(t.Context(), start.Add(time.Duration(seconds)*time.Second), findings, changes)
	}
	firing := []watch.Finding{finding, {Alert: "SPIREFederationEndpointDown"}}
	for i, step := range []struct {
		seconds  int
		findings []watch.Finding
		change   []string
		status   int
		// ends are those of what was sent, in seconds.
		ends []int
	}{
		{0, nil, nil, http.StatusOK, nil},
		{3, firing, []string{watch.Firing}, http.StatusOK, []int{243}},
		{6, firing, nil, http.StatusOK, nil},
		{62, firing, nil, http.StatusOK, nil},
		{63, firing, nil, http.StatusOK, []int{303}},
		{66, nil, []string{watch.Resolved}, http.StatusBadRequest, []int{66}},
		{69, nil, nil, http.StatusOK, []int{69}},
		{72, nil, nil, http.StatusOK, nil},
	} {
		got, status = nil, step.status
		err := tell(step.seconds, step.findings, step.change...)
		if (err != nil) != (step.status != http.StatusOK) {
			t.Errorf("step %d: error %v", i, err)
		}
		if err != nil && !strings.Contains(err.Error(), "/under: the answer is 400 Bad Request: bad label") {
			t.Errorf("step %d: error %v", i, err)
		}
		var ends []int
		for _, all := range got {
			for _, one := range all {
				ends = append(ends, int(one.EndsAt.Sub(start).Seconds()))
				if one.Labels["alertname"] != "SPIREFederationNoFetch" || one.Labels["severity"] != "critical" || one.Labels["lab"] != "quotes" || one.Labels["truster"] != "a.test" ||
					one.Annotations["description"] != "no fetch" || !one.StartsAt.Equal(start) {
					t.Errorf("step %d: sent %+v", i, one)
				}
			}
		}
		if len(ends) != len(step.ends) || len(ends) == 1 && ends[0] != step.ends[0] {
			t.Errorf("step %d: what was sent ends at %v, want %v", i, ends, step.ends)
		}
	}
}
